"""A message or a request becomes a `StartEvent`, or an `InvalidEvent` that names everything wrong with it.

Pure: no Django, no pika. Read are CloudEvents 1.0 in structured and binary mode, over AMQP (the RabbitMQ
binding's `ce-` headers, the AMQP binding's `cloudEvents:` and `cloudEvents_`) and over HTTP, batches over
HTTP, and plain JSON bodies that are CloudEvents. The rules are in `attributes.py` and, for `data`, in
`job_start.py`.

The CloudEvents SDK writes events (the sample sender, the answer to a request) and is the oracle of the tests,
but does not read here. Its reader takes 10 µs for the document's sample and checks little: NaN, repeated
names, surrogates and any ISO 8601 time pass, and a body that is an array ends in an AttributeError. This
reader takes 15 µs, every rule and the content hash included.
"""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote_to_bytes

from kanikojobs.cloudevent import attributes, envelope, strict_json
from kanikojobs.cloudevent.envelope import UNREADABLE, Identity, StartEvent
from kanikojobs.cloudevent.hostile_text import header_name, kind
from kanikojobs.cloudevent.job_start import Rules
from kanikojobs.errors import Fault, InvalidEvent, NotOurs

__all__ = ["Identity", "Rules", "StartEvent", "batch_from_http", "from_amqp", "from_http", "is_batch", "split_batch"]

_STRUCTURED = frozenset({"application/cloudevents+json", "application/cloudevents"})
_ANY_FORMAT = "application/cloudevents"
_BATCH = "application/cloudevents-batch"
# RabbitMQ binding, section 3.1; AMQP binding 1.0.2, section 3.1.3.1, and the colon of the versions before it.
_PREFIXES = {"ce-": "ce-", "cloudevents_": "cloudEvents_", "cloudevents:": "cloudEvents:"}
_QUOTED_PAIR = re.compile(r"\\(.)").sub
_NO_CLOUDEVENT = (
    "no CloudEvent, it has none of id, source, specversion and type; "
    "put the job start into the data of a CloudEvent, or send ce- headers"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_amqp(
    *, body: bytes, content_type: str | None, headers: Mapping[str, object] | None, rules: Rules
) -> StartEvent:
    """The event of a message. Raises `InvalidEvent` or `NotOurs`, and nothing else, whatever it is."""
    return _read(body, content_type=content_type, headers=headers, decoded=_amqp_value, rules=rules)


def from_http(*, body: bytes, content_type: str | None, headers: Mapping[str, str] | None, rules: Rules) -> StartEvent:
    """The event of a request. Raises `InvalidEvent` or `NotOurs`, and nothing else, whatever it is."""
    return _read(body, content_type=content_type, headers=headers, decoded=_http_value, rules=rules)


def is_batch(content_type: str | None) -> bool:
    """Whether a request carries a batch, to be read by `split_batch` or `batch_from_http`."""
    return attributes.media_type(content_type)[0].startswith(_BATCH)


def split_batch(*, body: bytes, rules: Rules) -> list[bytes]:
    """The bodies of a batch's events, each to be read as `application/cloudevents+json` on its own.

    Raises `InvalidEvent` if the batch as a whole cannot be read.
    """
    _refuse_oversized(body, most=rules.max_batch_bytes)
    return strict_json.split_array(body, max_items=rules.max_batch_events)


def batch_from_http(*, body: bytes, rules: Rules) -> list[StartEvent | InvalidEvent | NotOurs]:
    """What each event of a batch is, in its order. Raises `InvalidEvent` if there is no batch to read."""
    outcomes: list[StartEvent | InvalidEvent | NotOurs] = []
    for item in split_batch(body=body, rules=rules):
        try:
            _refuse_oversized(item, most=rules.max_body_bytes)
            outcomes.append(_structured(item, rules=rules, faults=[]))
        except (InvalidEvent, NotOurs) as outcome:
            outcomes.append(outcome)
    return outcomes


def _read(
    body: bytes,
    *,
    content_type: str | None,
    headers: Mapping[str, Any] | None,
    decoded: Callable[[str, Any], Any],
    rules: Rules,
) -> StartEvent:
    event = _by_mode(body, content_type=content_type, headers=headers, decoded=decoded, rules=rules)
    if event.traceparent or not headers:
        return event
    # Instrumented senders and proxies give the trace to the message that carries the event. HTTP writes names large.
    traceparent, trace_id = attributes.trace(headers.get("traceparent") or headers.get("Traceparent"))
    return event._replace(traceparent=traceparent, trace_id=trace_id) if traceparent else event


def _by_mode(
    body: bytes,
    *,
    content_type: str | None,
    headers: Mapping[str, Any] | None,
    decoded: Callable[[str, Any], Any],
    rules: Rules,
) -> StartEvent:
    """The content mode, by the rules of HTTP binding 1.0.2, section 1.3, which the AMQP bindings share."""
    _refuse_oversized(body, most=rules.max_body_bytes)
    essence, charset = attributes.media_type(content_type)
    faults: list[Fault] = []
    if charset and (problem := attributes.charset_problem(charset)):
        faults.append(Fault("content-type", problem))
    if essence in _STRUCTURED:
        return _structured(body, rules=rules, faults=faults)
    if essence.startswith(_ANY_FORMAT):
        raise InvalidEvent([Fault("content-type", _format_problem(essence))])
    if headers:
        given, prefix = _attributes(headers, decoded=decoded, faults=faults)
        if prefix:
            if content_type is not None:
                _set_content_type(given, content_type, prefix=prefix, faults=faults)
            return _binary(body, given=given, prefix=prefix, rules=rules, faults=faults)
    if essence and attributes.content_type_problem(content_type) and not faults:
        wanted = "application/cloudevents+json, or application/json with or without ce- headers"
        raise InvalidEvent([Fault("content-type", f"{kind(content_type)}; must be {wanted}")])
    return _structured(body, rules=rules, faults=faults)


def _refuse_oversized(body: bytes, *, most: int) -> None:
    if len(body) > most:
        limit = f"at most {most} are read; leave out what the build does not need"
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
    if attributes.REQUIRED.isdisjoint(event):
        raise InvalidEvent([*faults, Fault("body", _NO_CLOUDEVENT)])
    envelope.refuse_others(event, rules=rules)
    data = event.get("data")
    if "data_base64" in event:
        data = _base64_data(event, rules=rules, faults=faults)
    return envelope.start_event(event, data=data, prefix="", rules=rules, faults=faults)


def _base64_data(event: dict[str, Any], *, rules: Rules, faults: list[Fault]) -> Any:
    """`data_base64`, decoded and read as JSON, the only format that the data of a job start event has."""
    if "data" in event:
        faults.append(Fault("data_base64", "given beside data; a CloudEvent has one or the other"))
        return event["data"]
    encoded = event["data_base64"]
    try:
        body = base64.b64decode(encoded, validate=True)
    except (TypeError, ValueError):
        faults.append(Fault("data_base64", f"{kind(encoded)}; must be JSON in Base64, or use data"))
        return UNREADABLE
    return _data(body, path="data_base64", rules=rules, faults=faults)


def _binary(body: bytes, *, given: dict[str, Any], prefix: str, rules: Rules, faults: list[Fault]) -> StartEvent:
    envelope.refuse_others(given, rules=rules)
    data = _data(body, path="body", rules=rules, faults=faults)
    return envelope.start_event(given, data=data, prefix=prefix, rules=rules, faults=faults)


def _data(body: bytes, *, path: str, rules: Rules, faults: list[Fault]) -> Any:
    """Data that came as bytes of its own. Its faults join those of the attributes."""
    try:
        data, found = strict_json.read(body, root="data", max_depth=rules.max_depth - 1)
    except InvalidEvent as error:
        faults += [Fault(path, fault.problem) for fault in error.faults]
        return UNREADABLE
    faults += found
    return data


def _set_content_type(given: dict[str, Any], content_type: str, *, prefix: str, faults: list[Fault]) -> None:
    """In binary mode the content type is `datacontenttype`, and a header of that name is one too many."""
    header = given.get("datacontenttype")
    if header is not None and attributes.media_type(header) != attributes.media_type(content_type):
        faults.append(Fault(f"{prefix}datacontenttype", "differs from the content type; leave it out"))
    given["datacontenttype"] = content_type


def _attributes(
    headers: Mapping[str, Any], *, decoded: Callable[[str, Any], Any], faults: list[Fault]
) -> tuple[dict[str, Any], str]:
    """The attributes among the headers and the prefix of the first; none if no required one is among them."""
    given: dict[str, Any] = {}
    problems: list[Fault] = []
    first_prefix = ""
    for header, value in headers.items():
        if not isinstance(header, str):  # pika gives bytes for a name that is not UTF-8
            continue
        lowered = header.lower()
        prefix = next((prefix for prefix in _PREFIXES if lowered.startswith(prefix)), None)
        if prefix is None:
            continue
        first_prefix = first_prefix or _PREFIXES[prefix]
        name = lowered[len(prefix) :]
        path = header_name(_PREFIXES[prefix] + name)
        try:
            attribute = decoded(name, value)
        except ValueError as error:
            problems.append(Fault(path, str(error)))
            attribute = None
        if name in given and not (isinstance(attribute, str) and attribute == given[name]):
            problems.append(Fault(path, "given twice with different values; keep one"))
        given[name] = attribute
    if attributes.REQUIRED.isdisjoint(given):
        return {}, ""
    faults += problems
    return given, first_prefix


def _amqp_value(name: str, value: Any) -> Any:
    """A header's value as JSON has it. A time is milliseconds in AMQP 1.0 and has its own type in 0-9-1."""
    try:
        if isinstance(value, datetime):
            return value.astimezone(UTC).isoformat()
        if isinstance(value, int) and not isinstance(value, bool):
            # pika's 64-bit integers are a subclass that writes itself 5L.
            return (_EPOCH + timedelta(milliseconds=value)).isoformat() if name == "time" else int(value)
    except OverflowError:
        raise ValueError("not in the years 0002 to 9998; leave it out if unknown") from None
    return value


def _http_value(_name: str, value: str) -> str:
    """A header's value by the HTTP binding 1.0.2, section 3.1.3.2. Raises `ValueError` with the problem."""
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
