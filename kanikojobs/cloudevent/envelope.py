"""The attributes and `data` of a CloudEvent become a `StartEvent`, or their faults an `InvalidEvent`.

`type` and `source` decide first: another's event is not ours to judge.
"""

import hashlib
from datetime import datetime
from typing import Any, Final, NamedTuple

from kanikojobs.cloudevent import attributes, job_start, strict_json
from kanikojobs.cloudevent.attributes import Extensions
from kanikojobs.cloudevent.hostile_text import kind
from kanikojobs.cloudevent.job_start import JobStart, Rules
from kanikojobs.cloudevent.strict_json import MAX_FAULTS
from kanikojobs.errors import Fault, InvalidEvent, NotOurs

SPECVERSION = "1.0"
UNREADABLE: Final = object()
"""Stands for data whose own fault has been recorded."""

# Added or changed on an event's way (tracing, recording, Knative's brokers): it is still the same event.
_TRANSIT_EXTENSIONS = frozenset({"traceparent", "tracestate", "recordedtime"})
_TRANSIT_PREFIX = "knative"


Identity = tuple[str, str]
"""`source` and `id`, which tell one event from another (CloudEvents 1.0.2, section 3.1.1)."""


class StartEvent(NamedTuple):
    """A job start event that can be stored as it is: no NUL, no surrogates, every number exact.

    Absent optional attributes are empty. `data_json` is `data` as JSON with sorted names, ready for a jsonb
    column: written once, it serves the hash and the row.
    """

    event_id: str
    source: str
    type: str
    subject: str
    time: datetime | None
    specversion: str
    datacontenttype: str
    dataschema: str
    extensions: Extensions
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

    @property
    def identity(self) -> Identity:
        return self.source, self.event_id


def refuse_others(given: dict[str, Any], *, rules: Rules) -> None:
    """Raises `NotOurs` if both `type` and `source` can be read and are not both ours."""
    if given.get("type") == rules.event_type and given.get("source") == rules.event_source:
        return
    type_ = attributes.readable_text(given, "type", max_length=attributes.MAX_TYPE_LENGTH)
    source = attributes.readable_text(given, "source", max_length=attributes.MAX_SOURCE_LENGTH)
    if type_ and source:
        raise NotOurs(type=type_, source=source)


def start_event(given: dict[str, Any], *, data: Any, prefix: str, rules: Rules, faults: list[Fault]) -> StartEvent:
    """The event of the attributes `given` and `data`, after `refuse_others`.

    Raises `InvalidEvent` with the faults so far and all that it finds itself.
    """
    event_id = attributes.required_text(
        given, "id", max_length=attributes.MAX_EVENT_ID_LENGTH, prefix=prefix, faults=faults
    )
    if given.get("source") != rules.event_source:
        attributes.required_text(given, "source", max_length=attributes.MAX_SOURCE_LENGTH, prefix=prefix, faults=faults)
    if given.get("type") != rules.event_type:
        attributes.required_text(given, "type", max_length=attributes.MAX_TYPE_LENGTH, prefix=prefix, faults=faults)
    specversion = given.get("specversion")
    if specversion != SPECVERSION:
        found = "missing" if specversion is None else kind(specversion)
        faults.append(Fault(f"{prefix}specversion", f'{found}; must be the string "{SPECVERSION}"'))
    subject = attributes.optional_text(
        given, "subject", max_length=attributes.MAX_SUBJECT_LENGTH, prefix=prefix, faults=faults
    )
    time = attributes.time(given, prefix=prefix, faults=faults)
    dataschema = attributes.dataschema(given, prefix=prefix, faults=faults)
    datacontenttype = attributes.datacontenttype(given, prefix=prefix, faults=faults)
    extensions = attributes.extensions(given, prefix=prefix, faults=faults)
    fields = _fields(data, event_id=event_id, rules=rules, faults=faults)
    if faults or fields is None:
        raise _invalid(faults, given=given)

    data_json = strict_json.canonical(data)
    traceparent, trace_id = attributes.trace(extensions.get("traceparent"))
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


def _fields(data: Any, *, event_id: str, rules: Rules, faults: list[Fault]) -> JobStart | None:
    if isinstance(data, dict):
        return job_start.read(data, event_id=event_id, rules=rules, faults=faults)
    if data is not UNREADABLE:
        found = "missing or null" if data is None else kind(data)
        wrapped = isinstance(data, str) and data.lstrip().startswith("{")
        hint = ", not JSON wrapped in a string" if wrapped else ""
        faults.append(Fault("data", f"{found}; must be an object with the fields of a job start event{hint}"))
    return None


def _invalid(faults: list[Fault], *, given: dict[str, Any]) -> InvalidEvent:
    """The first fault of each place, up to `MAX_FAULTS`, and the identity as far as it can be read."""
    distinct = list({fault.path: fault for fault in reversed(faults)}.values())[::-1]
    if len(distinct) > MAX_FAULTS:
        distinct = [*distinct[:MAX_FAULTS], Fault("", f"and more; the first {MAX_FAULTS} faults are listed")]
    return InvalidEvent(
        distinct,
        source=attributes.readable_text(given, "source", max_length=attributes.MAX_SOURCE_LENGTH),
        event_id=attributes.readable_text(given, "id", max_length=attributes.MAX_EVENT_ID_LENGTH),
    )


def _content_hash(*, subject: str, extensions: Extensions, data_json: str, rules: Rules) -> bytes:
    """SHA-256 of what was asked for: the same for every content mode, order of names and spacing.

    `time` is not part of it: a producer that sends again after a lost confirm may write the present time, and
    would otherwise be told of a conflict. Nor are `datacontenttype`, which binary mode always has,
    `dataschema`, and what is added in transit. Line feeds separate because no attribute can contain one.
    Extensions count in their canonical strings, because headers know no other type. 1 and 1.0 are different
    numbers here.
    """
    lines = [rules.event_type, rules.event_source, subject]
    for name in sorted(extensions):
        if name not in _TRANSIT_EXTENSIONS and not name.startswith(_TRANSIT_PREFIX):
            lines.append(f"{name}={_canonical(extensions[name])}")
    lines.append(data_json)
    return hashlib.sha256("\n".join(lines).encode()).digest()


def _canonical(value: str | int | bool) -> str:
    """The canonical string of an attribute's value (CloudEvents 1.0.2, "Type System")."""
    return str(value).lower() if isinstance(value, bool) else str(value)
