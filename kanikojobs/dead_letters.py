"""What could not be used, kept with all the evidence: recording it, and telling equal deaths by fingerprint."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction

from kanikojobs import tallies
from kanikojobs.cloudevent import StartEvent
from kanikojobs.errors import Fault, InvalidEvent
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob

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
    event_id: int | None = None
    kaniko_job_id: int | None = None


def of_invalid(message: Message, invalid: InvalidEvent, *, origin: JobStartEvent.Origin) -> Letter:
    """The dead letter of a message that is no valid event."""
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
    return Letter(
        cause=cause,
        origin=JobStartEvent.Origin.QUEUE,
        reason=f"{sentence} Queue: {queue}." if queue else sentence,
        body=message.body,
        content_type=message.content_type or "",
        headers=message.headers,
        properties=message.properties,
    )


def record_from_broker(messages: Sequence[Message]) -> IntakeResult:
    """Drain the broker's dead-letter queue into rows: committed when this returns."""
    letters = [of_broker(message) for message in messages]
    with transaction.atomic():
        record(letters)
        tallies.add(tallies.counts(Counter(f"dead-letter/{letter.cause}" for letter in letters)))
    return IntakeResult(outcomes=(Outcome.DEAD,) * len(messages))


def record_failed_creations(failures: Mapping[int, str]) -> None:
    """Write a dead letter for each Kaniko Job, by id, whose creation has failed with this message.

    The body is the event again, as structured JSON, so that it can be read, mended and replayed like any other.
    """
    if not failures:
        return
    jobs = KanikoJob.objects.filter(id__in=failures).select_related("event")
    record([_of_failed_creation(job, message=failures[job.pk]) for job in jobs])
    tallies.add(tallies.counts({f"dead-letter/{Cause.CREATION_FAILED}": len(failures)}))


def _of_failed_creation(job: KanikoJob, *, message: str) -> Letter:
    return Letter(
        cause=Cause.CREATION_FAILED,
        origin=JobStartEvent.Origin(job.event.origin),
        reason=f"{job.reason}: {message}",
        body=json.dumps(structured(job.event), ensure_ascii=False).encode(),
        content_type="application/cloudevents+json",
        ce_source=job.event.source,
        ce_id=job.event.event_id,
        event_id=job.event.pk,
        kaniko_job_id=job.pk,
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


def record(letters: Sequence[Letter]) -> None:
    """Write dead letters; one that is open already with the same message and cause is counted, not doubled.

    Must run inside the transaction that settles the messages.
    """
    # The same letter twice in one INSERT would touch its row twice, which ON CONFLICT refuses; and one order for
    # everybody, lest two consumers with the same letters deadlock.
    unique: dict[tuple[bytes, str, str, int], tuple[Letter, int]] = {}
    for letter in letters:
        key = (
            message_hash(letter),
            str(letter.cause),
            str(letter.origin),
            letter.kaniko_job_id or 0,
        )
        unique[key] = (letter, unique[key][1] + 1 if key in unique else 1)
    with connection.cursor() as cursor:
        for (hash, cause, origin, _), (letter, times) in sorted(unique.items(), key=lambda item: item[0]):
            cursor.execute(
                """
                INSERT INTO kanikojobs_deadletter AS letter (
                    cause, origin, reason, faults, fingerprint, body, content_type, headers, properties, message_hash,
                    ce_source, ce_id, event_id, kaniko_job_id, times_seen
                ) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
                ON CONFLICT (message_hash, cause, origin) WHERE state = 'open' AND kaniko_job_id IS NULL
                DO UPDATE SET
                    times_seen = letter.times_seen + excluded.times_seen,
                    -- Not before the last one: the clock may have been set back, or be another server's.
                    last_died_at = GREATEST(letter.last_died_at, clock_timestamp())
                """,
                [
                    cause,
                    origin,
                    printable(letter.reason),
                    json.dumps([{"path": printable(f.path), "problem": printable(f.problem)} for f in letter.faults]),
                    fingerprint(cause=letter.cause, reason=printable(letter.reason)),
                    letter.body,
                    printable(letter.content_type)[:256],
                    json.dumps(storable(letter.headers)),
                    json.dumps(storable(letter.properties)),
                    hash,
                    printable(letter.ce_source)[:512],
                    printable(letter.ce_id)[:256],
                    letter.event_id,
                    letter.kaniko_job_id,
                    times,
                ],
            )


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


def fingerprint(*, cause: str, reason: str) -> str:
    """Equal for two deaths of one cause: ids, numbers, names and addresses in the reason are masked."""
    masked = re.sub(r'"[^"]*"|\'[^\']*\'', '"…"', reason)
    masked = re.sub(r"\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b", "…", masked, flags=re.IGNORECASE)
    masked = re.sub(r"\d+", "0", masked)
    return hashlib.sha256(f"{cause}\n{masked}".encode()).hexdigest()


def printable(text: str) -> str:
    """The text with what PostgreSQL's text type refuses written out: NUL and lone surrogates."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


# AMQP's tables may nest as deep as a frame is long, and each level costs the interpreter's stack.
MOST_NESTED = 16


def storable(value: Any, *, depth: int = 0) -> Any:
    """A copy that jsonb can hold of whatever AMQP's field tables or HTTP headers carry."""
    match value:
        case None | bool():
            return value
        case int():
            # Python refuses to write out integers of thousands of digits; AMQP's own have 64 bits.
            return int(value) if value.bit_length() <= 64 else hex(value)
        case float():
            return value if value - value == 0 else str(value)
        case str():
            return printable(value)
        case bytes() | bytearray() | memoryview():
            return printable(bytes(value).decode("utf-8", "backslashreplace"))
        case datetime():
            return value.isoformat()
        case Mapping() | list() | tuple() if depth == MOST_NESTED:
            return f"nested deeper than {MOST_NESTED} levels"
        case Mapping():
            return {printable(str(key)): storable(item, depth=depth + 1) for key, item in value.items()}
        case list() | tuple():
            return [storable(item, depth=depth + 1) for item in value]
    return printable(str(value))
