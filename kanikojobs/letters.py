"""What a message, an event or a failed Kaniko Job says as a dead letter: why, whose it is, and all the evidence."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.conf import settings

from kanikojobs import cloudevent
from kanikojobs.cloudevent import StartEvent
from kanikojobs.cloudevent.glimpse import whose
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob
from kanikojobs.storable import printable, storable

Cause = DeadLetter.Cause


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter that is about to be recorded."""

    cause: Cause
    origin: JobStartEvent.Origin
    reason: str
    body: bytes
    faults: tuple[Fault, ...] = ()
    content_type: str = ""
    headers: Mapping[str, object] = field(default_factory=dict)
    properties: Mapping[str, object] = field(default_factory=dict)
    ce_source: str = ""
    ce_id: str = ""
    third_party_id: str = ""
    parser_id: str = ""
    event_id: int | None = None
    kaniko_job_id: int | None = None
    arrived_at: datetime | None = None


def of_invalid(message: Message, invalid: InvalidEvent, *, origin: JobStartEvent.Origin) -> Letter:
    """The dead letter of a message that is no valid event."""
    third_party_id, parser_id = whose(message.body)
    return Letter(
        cause=Cause.INVALID,
        origin=origin,
        reason="\n".join(str(fault) for fault in invalid.faults),
        body=message.body,
        faults=invalid.faults,
        content_type=message.content_type or "",
        headers=message.headers,
        properties=message.properties,
        ce_source=invalid.source,
        ce_id=invalid.event_id,
        third_party_id=third_party_id,
        parser_id=parser_id,
    )


def of_conflict(message: Message, event: StartEvent, *, event_id: int, origin: JobStartEvent.Origin) -> Letter:
    """The dead letter of an event whose identity is taken by another content: no duplicate, and not to be lost."""
    fault = Fault(
        "id",
        "an event with this source and id but with other content was recorded before. "
        "Give each event an id of its own (CloudEvents 1.0.2, section 3.1.1).",
    )
    return Letter(
        cause=Cause.IDENTITY_CONFLICT,
        origin=origin,
        reason=str(fault),
        body=message.body,
        faults=(fault,),
        content_type=message.content_type or "",
        headers=message.headers,
        properties=message.properties,
        ce_source=event.source,
        ce_id=event.event_id,
        third_party_id=event.third_party_id,
        parser_id=event.parser_id,
        event_id=event_id,
    )


# Why RabbitMQ dead-lettered a message, as its `x-death` header says (RabbitMQ documentation, "Dead Letter Exchanges").
_BROKER_CAUSES = {
    "expired": (Cause.EXPIRED, "It waited in the queue for longer than its time to live."),
    "maxlen": (Cause.MAXLEN, "The queue was full, and this was its oldest message."),
    "delivery_limit": (Cause.DELIVERY_LIMIT, "It was handed over too often without being acknowledged."),
    "rejected": (Cause.REJECTED, "A consumer rejected it."),
}


def of_broker(message: Message) -> Letter:
    """The dead letter of a message that RabbitMQ dead-lettered itself."""
    deaths = message.headers.get("x-death")
    death = deaths[0] if isinstance(deaths, list) and deaths and isinstance(deaths[0], Mapping) else {}
    cause, sentence = _BROKER_CAUSES.get(
        str(death.get("reason")),
        (Cause.REJECTED, "It was in the dead-letter queue without a reason that is known."),
    )
    queue = death.get("queue")
    source, event_id = _identity(message)
    third_party_id, parser_id = whose(message.body)
    return Letter(
        cause=cause,
        origin=JobStartEvent.Origin.QUEUE,
        reason=f"{sentence} Queue: {queue}." if queue else sentence,
        body=message.body,
        content_type=message.content_type or "",
        headers=message.headers,
        properties=message.properties,
        ce_source=source,
        ce_id=event_id,
        third_party_id=third_party_id,
        parser_id=parser_id,
    )


def _identity(message: Message) -> tuple[str, str]:
    """The source and id of the event that a message is, as far as they can be read: for the search."""
    rules = cloudevent.Rules(
        event_type=settings.KANIKOJOBS_EVENT_TYPE,
        event_source=settings.KANIKOJOBS_EVENT_SOURCE,
        max_body_bytes=settings.KANIKOJOBS_MAX_EVENT_BYTES,
    )
    try:
        event = cloudevent.from_amqp(
            body=message.body, content_type=message.content_type, headers=message.headers, rules=rules
        )
    except InvalidEvent as invalid:
        return invalid.source, invalid.event_id
    except NotOurs as other:
        return other.source, ""
    return event.source, event.event_id


def of_failed_job(job: KanikoJob, *, cause: Cause, message: str) -> Letter:
    return Letter(
        cause=cause,
        origin=JobStartEvent.Origin(job.event.origin),
        reason=f"{job.reason}: {message}",
        body=json.dumps(structured(job.event), ensure_ascii=False).encode(),
        content_type="application/cloudevents+json",
        ce_source=job.event.source,
        ce_id=job.event.event_id,
        third_party_id=job.third_party_id,
        parser_id=job.parser_id,
        event_id=job.event.pk,
        kaniko_job_id=job.pk,
        arrived_at=job.event.received_at,
    )


def structured(event: JobStartEvent) -> dict[str, Any]:
    """A recorded event in CloudEvents' structured JSON form, as it was asked for (JSON format 1.0.2, section 3)."""
    attributes = {
        "specversion": event.specversion,
        "id": event.event_id,
        "source": event.source,
        "type": event.type,
        "subject": event.subject,
        "time": event.time.isoformat() if event.time else "",
        "datacontenttype": event.datacontenttype,
        "dataschema": event.dataschema,
    }
    return {name: value for name, value in attributes.items() if value} | event.extensions | {"data": event.data}


def message_hash(letter: Letter) -> bytes:
    """Equal for the same message, however often it is handed over.

    The content type decides how the body is read, and in binary mode two events can have the same body and differ in
    their headers. Other headers do not count: the broker adds to them on each delivery.
    """
    attributes = {
        str(name).lower(): storable(value)
        for name, value in letter.headers.items()
        if str(name).lower().startswith(("ce-", "cloudevents"))
    }
    rest = json.dumps([printable(letter.content_type), attributes], sort_keys=True)
    return hashlib.sha256(hashlib.sha256(letter.body).digest() + rest.encode()).digest()
