"""The CloudEvents attributes around `data`, and the `StartEvent` that both together make.

Rules are those of CloudEvents 1.0.2 ("Context Attributes", "Type System"), with an upper bound wherever it has none.
`type` and `source` decide first: another's event is not ours to judge.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NoReturn

from kanikojobs import job_start
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.hostile_text import kind, member, text_problem
from kanikojobs.job_start import Rules
from kanikojobs.strict_json import MAX_FAULTS

SPECVERSION = "1.0"
MAX_EVENT_ID_LENGTH = 256
MAX_SOURCE_LENGTH = 512
MAX_TYPE_LENGTH = 256
MAX_SUBJECT_LENGTH = 512
MAX_DATASCHEMA_LENGTH = 2048
MAX_CONTENT_TYPE_LENGTH = 256
MAX_EXTENSIONS = 64
MAX_EXTENSION_NAME_LENGTH = 64
MAX_EXTENSION_LENGTH = 4096

REQUIRED = frozenset({"id", "source", "type", "specversion"})
_CONTEXT = REQUIRED | {"subject", "time", "datacontenttype", "dataschema"}
_NOT_EXTENSIONS = _CONTEXT | {"data", "data_base64"}
# Added or changed on an event's way (tracing, Knative's brokers, recording): the event itself is still the same.
_TRANSIT_EXTENSIONS = frozenset({"traceparent", "tracestate", "recordedtime"})
_TRANSIT_PREFIX = "knative"

_EXTENSION_NAME = re.compile(rf"[a-z0-9]{{1,{MAX_EXTENSION_NAME_LENGTH}}}").fullmatch
_ABSOLUTE_URI = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+"
).fullmatch
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:)(\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
).fullmatch
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
).fullmatch
_JSON_MEDIA_TYPE = re.compile(r"[a-z0-9!#$&^_.+-]+/(?:[a-z0-9!#$&^_.+-]+\+)?json").fullmatch
_UTF8_CHARSETS = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})
_WRITTEN = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, check_circular=False)


@dataclass(frozen=True, slots=True)
class StartEvent:
    """A job start event that may be stored as it is: every text without NUL and surrogates, every number exact.

    Absent optional attributes are empty. `data_json` is `data` as JSON with sorted names, ready for a jsonb column:
    written once, it serves the hash and the row.
    """

    event_id: str
    source: str
    type: str
    subject: str
    time: datetime | None
    specversion: str
    datacontenttype: str
    dataschema: str
    extensions: dict[str, str | int | bool]
    data: dict[str, Any]
    data_json: str
    third_party_id: str
    parser_id: str
    correlation_id: str
    job_name: str
    priority: int
    build_type: str
    runtime: str
    source_url: str
    build_timeout: int
    environment: dict[str, str]
    content_hash: bytes
    traceparent: str
    trace_id: str


def refuse_others(attributes: dict[str, Any], *, rules: Rules) -> None:
    """Raises `NotOurs` if both `type` and `source` can be read and are not both ours."""
    if attributes.get("type") == rules.event_type and attributes.get("source") == rules.event_source:
        return
    type_ = _readable(attributes.get("type"), max_length=MAX_TYPE_LENGTH)
    source = _readable(attributes.get("source"), max_length=MAX_SOURCE_LENGTH)
    if type_ and source:
        raise NotOurs(type=type_, source=source)


def start_event(
    attributes: dict[str, Any], *, data: Any, prefix: str, rules: Rules, faults: list[Fault]
) -> StartEvent:
    """The event of `attributes` and `data`. Raises `InvalidEvent` with `faults` and all that it finds itself.

    `prefix` is what the attributes' names carry where they came from: nothing in JSON, `ce-` in headers.
    """
    specversion = attributes.get("specversion")
    if specversion != SPECVERSION:
        found = "missing" if specversion is None else kind(specversion)
        faults.append(Fault(f"{prefix}specversion", f'{found}; must be the string "{SPECVERSION}"'))
    for name, max_length in (("type", MAX_TYPE_LENGTH), ("source", MAX_SOURCE_LENGTH)):
        _required(attributes, name, max_length=max_length, prefix=prefix, faults=faults)
    event_id = _required(attributes, "id", max_length=MAX_EVENT_ID_LENGTH, prefix=prefix, faults=faults)
    subject = _optional(attributes, "subject", max_length=MAX_SUBJECT_LENGTH, prefix=prefix, faults=faults)
    dataschema = _optional(
        attributes, "dataschema", max_length=MAX_DATASCHEMA_LENGTH, prefix=prefix, faults=faults
    )
    if dataschema and not _ABSOLUTE_URI(dataschema):
        faults.append(Fault(f"{prefix}dataschema", f"{kind(dataschema)}; must be an absolute URI"))
    time = _time(attributes, prefix=prefix, faults=faults)
    extensions = _extensions(attributes, prefix=prefix, faults=faults)
    datacontenttype = attributes.get("datacontenttype") or "application/json"
    if datacontenttype != "application/json" and (problem := content_type_problem(datacontenttype)):
        faults.append(Fault("datacontenttype" if not prefix else "content-type", problem))
    if not isinstance(data, dict):
        if not faults or not any(fault.path in ("body", "data", "data_base64") for fault in faults):
            faults.append(Fault("data", _no_object(data)))
        data = {}
    else:
        fields = job_start.read(data, event_id=event_id, rules=rules, faults=faults)
    if faults:
        refuse(faults, attributes=attributes)

    data_json = _WRITTEN.encode(data)
    traceparent, trace_id = _trace(extensions) if extensions else ("", "")
    return StartEvent(
        event_id=event_id,
        source=rules.event_source,
        type=rules.event_type,
        subject=subject,
        time=time,
        specversion=SPECVERSION,
        datacontenttype=datacontenttype,
        dataschema=dataschema,
        extensions=extensions,
        data=data,
        data_json=data_json,
        third_party_id=fields.third_party_id,
        parser_id=fields.parser_id,
        correlation_id=fields.correlation_id,
        job_name=fields.job_name,
        priority=fields.priority,
        build_type=fields.build_type,
        runtime=fields.runtime,
        source_url=fields.source_url,
        build_timeout=fields.build_timeout,
        environment=fields.environment,
        content_hash=_content_hash(subject=subject, extensions=extensions, data_json=data_json, rules=rules),
        traceparent=traceparent,
        trace_id=trace_id,
    )


def refuse(faults: list[Fault], *, attributes: dict[str, Any]) -> NoReturn:
    """Raises `InvalidEvent` with the first fault of each place, and the identity as far as it can be read."""
    distinct = list({fault.path: fault for fault in reversed(faults)}.values())[::-1]
    if len(distinct) > MAX_FAULTS:
        distinct = [*distinct[:MAX_FAULTS], Fault("", f"and {len(distinct) - MAX_FAULTS} more")]
    source = _readable(attributes.get("source"), max_length=MAX_SOURCE_LENGTH)
    event_id = _readable(attributes.get("id"), max_length=MAX_EVENT_ID_LENGTH)
    raise InvalidEvent(distinct, source=source, event_id=event_id)


def _readable(value: object, *, max_length: int) -> str:
    return value if isinstance(value, str) and not text_problem(value, max_length=max_length) else ""


def media_type(content_type: object) -> tuple[str, str]:
    """The media type and the charset of a content type, in lower case, empty where not given."""
    if not isinstance(content_type, str) or len(content_type) > MAX_CONTENT_TYPE_LENGTH:
        return ("", "") if content_type is None else ("unreadable", "")
    return _parsed(content_type)


@lru_cache(maxsize=128)
def _parsed(content_type: str) -> tuple[str, str]:
    essence, *parameters = content_type.lower().split(";")
    charsets = [
        value for name, _, value in (p.partition("=") for p in parameters) if name.strip() == "charset"
    ]
    return essence.strip(), charsets[0].strip(' "') if charsets else ""


def content_type_problem(content_type: object) -> str:
    """Why a content type is not that of JSON in UTF-8; empty if it is."""
    essence, charset = media_type(content_type)
    if not _JSON_MEDIA_TYPE(essence):
        return f"{kind(content_type)}; must be application/json, because data is read as JSON"
    return charset_problem(charset)


def charset_problem(charset: str) -> str:
    """JSON is always UTF-8 (RFC 8259, section 8.1): why another charset is refused; empty if it is UTF-8."""
    if charset in _UTF8_CHARSETS:
        return ""
    return f"charset {kind(charset).removeprefix('the string ')}; JSON is always UTF-8, send it as such"


def _no_object(data: object) -> str:
    wanted = "must be an object with the fields of a job start event"
    if data is None:
        return f"missing or null; {wanted}"
    hint = ", not JSON wrapped in a string" if isinstance(data, str) and data.lstrip()[:1] == "{" else ""
    return f"{kind(data)}; {wanted}{hint}"


def _required(
    attributes: dict[str, Any], name: str, *, max_length: int, prefix: str, faults: list[Fault]
) -> str:
    if attributes.get(name) is None:
        faults.append(
            Fault(f"{prefix}{name}", f"missing; every CloudEvent has {'an' if name == 'id' else 'a'} {name}")
        )
        return ""
    return _optional(attributes, name, max_length=max_length, prefix=prefix, faults=faults)


def _optional(
    attributes: dict[str, Any], name: str, *, max_length: int, prefix: str, faults: list[Fault]
) -> str:
    """An attribute of type String. null is absent (JSON event format 1.0.2, section 2.2)."""
    value = attributes.get(name)
    if value is None:
        return ""
    if isinstance(value, str):
        problem = text_problem(value, max_length=max_length)
        if not problem:
            return value
    else:
        problem = f"{kind(value)}; must be a string"
    faults.append(Fault(f"{prefix}{name}", problem))
    return ""


def _time(attributes: dict[str, Any], *, prefix: str, faults: list[Fault]) -> datetime | None:
    """`time` in UTC, cut to microseconds. A leap second is the first second of the next minute, as in PostgreSQL."""
    value = attributes.get("time")
    if value is None:
        return None
    parts = _RFC3339(value) if isinstance(value, str) else None
    if parts is None:
        wanted = "a time of RFC 3339 with an offset, such as 2024-01-01T00:00:00Z"
        faults.append(Fault(f"{prefix}time", f"{kind(value)}; must be {wanted}"))
        return None
    date, minute, second, fraction, offset = parts.groups()
    leap = timedelta(seconds=1) if second == "60" else timedelta()
    second = "59" if leap else second
    fraction = "" if fraction is None or leap else fraction[:7]
    try:
        time = (
            datetime.fromisoformat(f"{date}T{minute}{second}{fraction}{offset.upper()}") + leap
        ).astimezone(UTC)
    except (ValueError, OverflowError):
        time = None
    # The first and the last year are refused because they cannot be shown in every time zone.
    if time is None or not 1 < time.year < 9999:
        faults.append(
            Fault(f"{prefix}time", f"{kind(value)}; no such time, or outside of the years 0002 to 9998")
        )
        return None
    return time


def _extensions(
    attributes: dict[str, Any], *, prefix: str, faults: list[Fault]
) -> dict[str, str | int | bool]:
    names = attributes.keys() - _NOT_EXTENSIONS
    if not names:
        return {}
    if len(names) > MAX_EXTENSIONS:
        faults.append(Fault("", f"{len(names)} extension attributes; at most {MAX_EXTENSIONS} are kept"))
        return {}
    extensions: dict[str, str | int | bool] = {}
    for name in sorted(names):
        value = attributes[name]
        if value is None:
            continue
        path = f"{prefix}{name}" if prefix and _EXTENSION_NAME(name) else member("", name)
        if not _EXTENSION_NAME(name):
            rule = f"1 to {MAX_EXTENSION_NAME_LENGTH} lower-case letters and digits"
            faults.append(Fault(path, f"not the name of a CloudEvents attribute ({rule}); put it into data"))
        elif isinstance(value, str):
            problem = text_problem(value, max_length=MAX_EXTENSION_LENGTH) if value else ""
            if problem:
                faults.append(Fault(path, problem))
        elif not (isinstance(value, int) and -(2**31) <= value < 2**31):
            wanted = "a string, a boolean or a whole number of 32 bits"
            faults.append(Fault(path, f"{kind(value)}; an extension must be {wanted}"))
        extensions[name] = value
    return extensions


def _trace(extensions: dict[str, str | int | bool]) -> tuple[str, str]:
    """`traceparent` and its trace id if it is valid by W3C Trace Context, level 1; a broken trace harms no build."""
    value = extensions.get("traceparent")
    found = _TRACEPARENT(value) if isinstance(value, str) else None
    if found is None or (found[0].startswith("00") and found[2] is not None):
        return "", ""
    return found[0], found[1]


def _content_hash(
    *, subject: str, extensions: dict[str, str | int | bool], data_json: str, rules: Rules
) -> bytes:
    """SHA-256 of what was asked for: the same for every content mode, order of names and spacing.

    `time` is not part of it: a producer that sends again after a lost confirm may write the present time, and would
    otherwise be told of a conflict. Nor are `datacontenttype`, which binary mode always has, and what is added in
    transit. Line feeds separate because no attribute can contain one. Extensions count in their canonical strings,
    because headers know no other type. 1 and 1.0 are different numbers here.
    """
    lines = [rules.event_type, rules.event_source, subject]
    for name in sorted(extensions):
        if name not in _TRANSIT_EXTENSIONS and not name.startswith(_TRANSIT_PREFIX):
            lines.append(f"{name}={canonical(extensions[name])}")
    lines.append(data_json)
    return hashlib.sha256("\n".join(lines).encode()).digest()


def canonical(value: str | int | bool) -> str:
    """The canonical string of an attribute value (CloudEvents 1.0.2, "Type System")."""
    return str(value).lower() if isinstance(value, bool) else str(value)
