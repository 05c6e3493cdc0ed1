"""A message or a request becomes a `StartEvent`, or an `InvalidEvent` that names everything wrong with it.

Pure: no Django, no pika. Read are CloudEvents 1.0 in structured and binary mode, over AMQP (the RabbitMQ binding's
`ce-` headers, the AMQP binding's `cloudEvents:` and `cloudEvents_`) and over HTTP, batches over HTTP, and plain JSON
bodies that are CloudEvents. The attributes' rules are in `envelope.py`, those of `data` in `job_start.py`.

The CloudEvents SDK writes events (the sample sender, the answer to a request) and is the oracle of the tests, but does
not read here. Its reader takes 9 µs for the document's sample and checks little: NaN, repeated names, surrogates and
any ISO 8601 time pass, and a body that is an array ends in an AttributeError.
"""

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

from kanikojobs import envelope, strict_json
from kanikojobs.envelope import StartEvent
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.hostile_text import kind
from kanikojobs.job_start import Rules

__all__ = ["Rules", "StartEvent", "batch_from_http", "from_amqp", "from_http", "is_batch", "split_batch"]

_STRUCTURED = ("application/cloudevents+json", "application/cloudevents")
_BATCH = "application/cloudevents-batch"
_ANY_FORMAT = "application/cloudevents"
# RabbitMQ binding, section 3.1; AMQP binding 1.0.2, section 3.1.3.1 (and its predecessor's colon).
_PREFIXES = ("ce-", "cloudevents_", "cloudevents:")
_QUOTED_PAIR = re.compile(r"\\(.)").sub
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_amqp(
    *, body: bytes, content_type: str | None, headers: Mapping[str, object] | None, rules: Rules
) -> StartEvent:
    """The event of a message. Raises `InvalidEvent` or `NotOurs`, and nothing else, whatever the message is."""
    return _read(body, content_type=content_type, headers=headers or {}, decoded=_amqp_value, rules=rules)


def from_http(
    *, body: bytes, content_type: str | None, headers: Mapping[str, str], rules: Rules
) -> StartEvent:
    """The event of a request. Raises `InvalidEvent` or `NotOurs`, and nothing else, whatever the request is."""
    return _read(body, content_type=content_type, headers=headers, decoded=_http_value, rules=rules)


def is_batch(content_type: str | None) -> bool:
    """Whether a request carries a batch, to be read by `split_batch` or `batch_from_http`."""
    return envelope.media_type(content_type)[0].startswith(_BATCH)


def split_batch(*, body: bytes, rules: Rules) -> list[bytes]:
    """The bodies of a batch's events, each to be read as structured JSON on its own.

    Raises `InvalidEvent` if the batch as a whole cannot be read.
    """
    _refuse_oversized(body, rules=rules)
    return strict_json.split_array(body, max_items=rules.max_batch_events)


def batch_from_http(*, body: bytes, rules: Rules) -> list[StartEvent | InvalidEvent | NotOurs]:
    """What each event of a batch is, in its order. Raises `InvalidEvent` if the batch as a whole cannot be read."""
    outcomes: list[StartEvent | InvalidEvent | NotOurs] = []
    for item in split_batch(body=body, rules=rules):
        try:
            outcomes.append(_structured(item, rules=rules, faults=[]))
        except (InvalidEvent, NotOurs) as outcome:
            outcomes.append(outcome)
    return outcomes


def _read(
    body: bytes,
    *,
    content_type: str | None,
    headers: Mapping[str, Any],
    decoded: Callable[[str, Any], Any],
    rules: Rules,
) -> StartEvent:
    _refuse_oversized(body, rules=rules)
    essence, charset = envelope.media_type(content_type)
    faults: list[Fault] = []
    if charset and (problem := envelope.charset_problem(charset)):
        faults.append(Fault("content-type", problem))
    if essence in _STRUCTURED:
        return _structured(body, rules=rules, faults=faults)
    if essence.startswith(_ANY_FORMAT):
        raise InvalidEvent([Fault("content-type", _format_problem(essence))])
    if headers:
        attributes, prefix = _attributes(headers, decoded=decoded, faults=faults)
        if not envelope.REQUIRED.isdisjoint(attributes):
            return _binary(
                body,
                attributes=attributes,
                prefix=prefix,
                content_type=content_type,
                rules=rules,
                faults=faults,
            )
    if essence and (problem := envelope.content_type_problem(content_type)):
        wanted = "application/cloudevents+json, or application/json with or without ce- headers"
        raise InvalidEvent([Fault("content-type", f"{kind(content_type)}; must be {wanted}")])
    return _structured(body, rules=rules, faults=faults)


def _refuse_oversized(body: bytes, *, rules: Rules) -> None:
    if len(body) > rules.max_body_bytes:
        limit = f"at most {rules.max_body_bytes} are read; leave out what the build does not need"
        raise InvalidEvent([Fault("body", f"{len(body)} bytes; {limit}")])


def _format_problem(essence: str) -> str:
    if essence.startswith(_BATCH):
        return "a batch; batches are read over HTTP and as JSON only, send each event as a message of its own"
    return f"{kind(essence)}; of CloudEvents' formats only JSON is read: application/cloudevents+json"


def _structured(body: bytes, *, rules: Rules, faults: list[Fault]) -> StartEvent:
    event, found = strict_json.read(body, root="", max_depth=rules.max_depth)
    faults += found
    if not isinstance(event, dict):
        raise InvalidEvent([*faults, Fault("body", f"{kind(event)}; must be one CloudEvent, a JSON object")])
    envelope.refuse_others(event, rules=rules)
    data = event.get("data")
    if "data_base64" in event:
        data = _base64_data(event, rules=rules, faults=faults)
    return envelope.start_event(event, data=data, prefix="", rules=rules, faults=faults)


def _base64_data(event: dict[str, Any], *, rules: Rules, faults: list[Fault]) -> Any:
    """`data_base64`, decoded and read as JSON, because that is the only format a job start event's data has."""
    if "data" in event:
        faults.append(Fault("data_base64", "given beside data; a CloudEvent has one or the other"))
        return event["data"]
    encoded = event["data_base64"]
    try:
        body = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError, binascii.Error):
        faults.append(Fault("data_base64", f"{kind(encoded)}; must be JSON in Base64, or use data"))
        return None
    return _data(body, path="data_base64", rules=rules, faults=faults)


def _binary(
    body: bytes,
    *,
    attributes: dict[str, Any],
    prefix: str,
    content_type: str | None,
    rules: Rules,
    faults: list[Fault],
) -> StartEvent:
    envelope.refuse_others(attributes, rules=rules)
    given = attributes.get("datacontenttype")
    if content_type is not None:
        if given is not None and envelope.media_type(given) != envelope.media_type(content_type):
            faults.append(Fault(f"{prefix}datacontenttype", "differs from the content type; leave it out"))
        attributes["datacontenttype"] = content_type
    data = _data(body, path="body", rules=rules, faults=faults)
    return envelope.start_event(attributes, data=data, prefix=prefix, rules=rules, faults=faults)


def _data(body: bytes, *, path: str, rules: Rules, faults: list[Fault]) -> Any:
    """Data that came as bytes of its own. Its faults join those of the attributes."""
    try:
        data, found = strict_json.read(body, root="data", max_depth=rules.max_depth - 1)
    except InvalidEvent as error:
        faults += [Fault(path, fault.problem) for fault in error.faults]
        return None
    faults += found
    return data


def _attributes(
    headers: Mapping[str, Any], *, decoded: Callable[[str, Any], Any], faults: list[Fault]
) -> tuple[dict[str, Any], str]:
    """The attributes among the headers, and the prefix that the first of them has."""
    attributes: dict[str, Any] = {}
    first_prefix = ""
    for header, raw in headers.items():
        if not isinstance(header, str):  # pika gives names that are not UTF-8 as bytes
            continue
        lowered = header.lower()
        prefix = next((prefix for prefix in _PREFIXES if lowered.startswith(prefix)), None)
        if prefix is None:
            continue
        first_prefix = first_prefix or header[: len(prefix)]
        name = lowered[len(prefix) :]
        try:
            value = decoded(name, raw)
        except ValueError as error:
            faults.append(Fault(f"{prefix}{name}", str(error)))
            continue
        if name in attributes and attributes[name] != value:
            faults.append(Fault(f"{prefix}{name}", "given twice with different values; keep one"))
        attributes[name] = value
    return attributes, first_prefix


def _amqp_value(name: str, value: Any) -> Any:
    """A header's value as JSON would have it. AMQP has times of its own: seconds in 0-9-1, milliseconds in 1.0."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if name == "time" and type(value) is int:
        try:
            return (_EPOCH + timedelta(milliseconds=value)).isoformat()
        except OverflowError:
            return value
    return value


def _http_value(name: str, value: str) -> str:
    """A header's value by the HTTP binding 1.0.2, section 3.1.3.2. Raises `ValueError` saying what is wrong."""
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = _QUOTED_PAIR(r"\1", value[1:-1])
    if not value.isascii():
        raise ValueError("has characters outside of ASCII; percent-encode them as UTF-8")
    if "%" not in value:
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        raise ValueError("percent-encoded bytes that are not UTF-8; encode the text as UTF-8") from None
