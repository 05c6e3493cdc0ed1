"""Messages become rows: a whole batch in one transaction, of which each message has its own outcome.

What is acknowledged to RabbitMQ or answered to an HTTP caller has been committed here before. Valid events become a
`JobStartEvent` and its first `KanikoJob`, which is also the queue entry; invalid ones become dead letters; one bad
message never spoils its batch.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

import structlog
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, connection, transaction

from kanikojobs import claims, cloudevent, dead_letters, logs, naming, tallies
from kanikojobs.cloudevent import StartEvent
from kanikojobs.cursors import binding_cursor
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import JobStartEvent

log = structlog.get_logger(__name__)


def rules() -> cloudevent.Rules:
    """The validation rules that the settings ask for."""
    return cloudevent.Rules(
        event_type=settings.KANIKOJOBS_EVENT_TYPE,
        event_source=settings.KANIKOJOBS_EVENT_SOURCE,
        max_body_bytes=settings.KANIKOJOBS_MAX_EVENT_BYTES,
        max_batch_bytes=settings.DATA_UPLOAD_MAX_MEMORY_SIZE,
        max_build_timeout=settings.KANIKOJOBS_MAX_BUILD_TIMEOUT,
    )


def record(messages: Sequence[Message], *, origin: JobStartEvent.Origin) -> IntakeResult:
    """Write a batch of messages in one transaction and say what became of each.

    When this returns, all of it is committed. Raises `django.db.OperationalError` or `InterfaceError` when the
    database is away; then nothing is committed and the messages must stay with whoever handed them over.
    """
    return write(messages, read(messages, origin=origin), origin=origin)


Reading = StartEvent | InvalidEvent | NotOurs


def write(messages: Sequence[Message], readings: Sequence[Reading], *, origin: JobStartEvent.Origin) -> IntakeResult:
    """`record` for messages that have been read already."""
    try:
        return _write(messages, readings, origin=origin)
    except (DatabaseError, UnicodeEncodeError) as error:
        if not is_about_a_value(error):
            raise
        refusal = error
    # Halving finds the message that holds the value in log2(batch) tries, instead of failing the same batch for ever;
    # its neighbours are recorded.
    if len(messages) == 1:
        return _write(messages, [_unstorable(readings[0], refusal)], origin=origin)
    middle = len(messages) // 2
    first = write(messages[:middle], readings[:middle], origin=origin)
    second = write(messages[middle:], readings[middle:], origin=origin)
    return IntakeResult(
        outcomes=first.outcomes + second.outcomes,
        faults=dict(first.faults) | {middle + position: faults for position, faults in second.faults.items()},
    )


def is_about_a_value(error: Exception) -> bool:
    """Whether PostgreSQL refuses some value that validation let through, so that trying again cannot help.

    Class 54 are its limits, such as on the size of an index's row; psycopg files them under operational errors.
    """
    if isinstance(error, DataError | IntegrityError | UnicodeEncodeError):
        return True
    return (getattr(error.__cause__, "sqlstate", None) or "").startswith("54")


def _unstorable(reading: Reading, error: Exception) -> InvalidEvent:
    log.warning("event-unstorable", error=type(error).__name__)
    fault = Fault("", f"PostgreSQL cannot store it: {str(error).splitlines()[0]}")
    if isinstance(reading, StartEvent):
        return InvalidEvent([fault], source=reading.source, event_id=reading.event_id)
    return InvalidEvent([fault])


def refuse(message: Message, invalid: InvalidEvent, *, origin: JobStartEvent.Origin) -> IntakeResult:
    """Keep a message as a dead letter that was found to be invalid before it could be read as an event."""
    return _write([message], [invalid], origin=origin)


def read(messages: Sequence[Message], *, origin: JobStartEvent.Origin) -> list[Reading]:
    """Parse and validate each message by the rules of where it came from."""
    current = rules()
    return [_read(message, direct=origin == JobStartEvent.Origin.DIRECT, rules=current) for message in messages]


def _read(message: Message, *, direct: bool, rules: cloudevent.Rules) -> Reading:
    try:
        if direct:
            headers = {name: str(value) for name, value in message.headers.items()}
            return cloudevent.from_http(
                body=message.body, content_type=message.content_type, headers=headers, rules=rules
            )
        return cloudevent.from_amqp(
            body=message.body, content_type=message.content_type, headers=message.headers, rules=rules
        )
    except (InvalidEvent, NotOurs) as verdict:
        # Its traceback would hold the frames that raised it, and with them the body.
        return verdict.with_traceback(None)


Identity = tuple[str, str]


def _write(messages: Sequence[Message], readings: Sequence[Reading], *, origin: JobStartEvent.Origin) -> IntakeResult:
    first: dict[Identity, int] = {}
    times_seen: Counter[tuple[Identity, bytes]] = Counter()
    events: list[StartEvent] = []
    for position, reading in enumerate(readings):
        if isinstance(reading, StartEvent):
            identity = (reading.source, reading.event_id)
            if identity not in first:
                first[identity] = position
                events.append(reading)
            times_seen[identity, reading.content_hash] += 1

    outcomes: list[Outcome] = []
    faults: dict[int, tuple[Fault, ...]] = {}
    letters: list[dead_letters.Letter] = []
    with transaction.atomic():
        stored = insert_events(events, times_seen=times_seen, origin=origin) if events else {}
        for position, (message, reading) in enumerate(zip(messages, readings, strict=True)):
            if isinstance(reading, NotOurs):
                outcomes.append(Outcome.NOT_OURS)
            elif isinstance(reading, InvalidEvent):
                outcomes.append(Outcome.DEAD)
                faults[position] = reading.faults
                letters.append(dead_letters.of_invalid(message, reading, origin=origin))
            else:
                identity = (reading.source, reading.event_id)
                row = stored[identity]
                if row.content_hash != reading.content_hash:
                    outcomes.append(Outcome.DEAD)
                    letter = dead_letters.of_conflict(message, reading, event_id=row.id, origin=origin)
                    faults[position] = letter.faults
                    letters.append(letter)
                elif row.inserted and first[identity] == position:
                    outcomes.append(Outcome.RECORDED)
                else:
                    outcomes.append(Outcome.DUPLICATE)
        dead_letters.record(letters)
        counted = Counter(outcomes)
        causes = Counter(letter.cause for letter in letters)
        tallies.add(
            tallies.counts(
                {f"intake/{origin}/{outcome}": n for outcome, n in counted.items()}
                | {f"dead-letter/{cause}": n for cause, n in causes.items()}
            )
        )
        if counted[Outcome.RECORDED]:
            claims.notify()
    log.info("batch-recorded", origin=str(origin), **{str(outcome): n for outcome, n in counted.items()})
    lines = (_line(*settled, origin=origin) for settled in zip(readings, outcomes, strict=True))
    logs.steps(__name__, "message-settled", lines)
    return IntakeResult(outcomes=tuple(outcomes), faults=faults)


def _line(reading: Reading, outcome: Outcome, *, origin: JobStartEvent.Origin) -> dict[str, str]:
    """What the log says of one message: its ids, and nothing of what it carries."""
    told = {"origin": origin.value, "outcome": outcome.value}
    if isinstance(reading, StartEvent):
        told |= {"event_id": reading.event_id, "correlation_id": reading.correlation_id, "trace_id": reading.trace_id}
    return told


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """The row that holds an identity: `inserted` by this transaction, or there before, perhaps with other content."""

    id: int
    inserted: bool
    content_hash: bytes


# Each column that an event fills, with its type in PostgreSQL and where its value is read.
EVENT_COLUMNS: dict[tuple[str, str], Callable[[StartEvent], Any]] = {
    ("event_id", "text"): attrgetter("event_id"),
    ("source", "text"): attrgetter("source"),
    ("type", "text"): attrgetter("type"),
    ("specversion", "text"): attrgetter("specversion"),
    ("subject", "text"): attrgetter("subject"),
    ("time", "timestamptz"): attrgetter("time"),
    ("datacontenttype", "text"): attrgetter("datacontenttype"),
    ("dataschema", "text"): attrgetter("dataschema"),
    ("extensions", "jsonb"): lambda event: json.dumps(event.extensions) if event.extensions else "{}",
    ("data", "jsonb"): attrgetter("data_json"),
    ("third_party_id", "text"): attrgetter("third_party_id"),
    ("parser_id", "text"): attrgetter("parser_id"),
    ("correlation_id", "text"): attrgetter("correlation_id"),
    ("job_name", "text"): attrgetter("job_name"),
    ("priority", "smallint"): attrgetter("priority"),
    ("build_type", "text"): attrgetter("build_type"),
    ("runtime", "text"): attrgetter("runtime"),
    ("source_url", "text"): attrgetter("source_url"),
    ("build_timeout", "integer"): attrgetter("build_timeout"),
    ("content_hash", "bytea"): attrgetter("content_hash"),
    ("traceparent", "text"): attrgetter("traceparent"),
    ("trace_id", "text"): attrgetter("trace_id"),
}
_COLUMNS = ", ".join(name for name, _ in EVENT_COLUMNS)
_ARRAYS = ", ".join(f"%s::{type}[]" for _, type in EVENT_COLUMNS)

# One statement, so that an event is never without its Kaniko Job. The ON CONFLICT branch touches only rows with the
# same content; an identity that comes back from neither branch is there with other content, and is looked up after.
# `xmax = 0` tells an inserted row from an updated one: PostgreSQL sets xmax when the conflict branch locks the row.
_INSERT = f"""
    WITH incoming AS (
        SELECT * FROM unnest({_ARRAYS}, %s::integer[], %s::text[], %s::integer[])
            AS row ({_COLUMNS}, times_seen, kubernetes_name, arrival)
    ), stored AS (
        INSERT INTO kanikojobs_jobstartevent AS event ({_COLUMNS}, times_seen, origin)
        SELECT {_COLUMNS}, times_seen, %s FROM incoming
        ON CONFLICT (source, event_id) DO UPDATE
            SET times_seen = event.times_seen + excluded.times_seen, last_seen_at = clock_timestamp()
            WHERE event.content_hash = excluded.content_hash
        RETURNING id, source, event_id, content_hash, xmax = 0 AS inserted
    ), queued AS (
        INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id)
        SELECT stored.id, incoming.kubernetes_name, %s, incoming.priority, incoming.third_party_id, incoming.parser_id
        FROM stored JOIN incoming USING (source, event_id) WHERE stored.inserted
        ORDER BY incoming.arrival
    )
    SELECT source, event_id, id, inserted, content_hash FROM stored
"""  # noqa: S608 - built from the literals above


def insert_events(
    events: Sequence[StartEvent], *, times_seen: Mapping[tuple[Identity, bytes], int], origin: JobStartEvent.Origin
) -> dict[Identity, StoredEvent]:
    """Insert events with distinct identities and a first Kaniko Job for each new one; return the row of each identity.

    The Kaniko Jobs are numbered by the database in the order of `events`, which is that of arrival: what is built one
    after the other goes by it. `times_seen` says how often each identity came with each content. Must run inside a
    transaction.
    """
    arrival = {(event.source, event.event_id): position for position, event in enumerate(events)}
    # One order for everybody: two consumers that upsert the same identities the other way round would deadlock.
    events = sorted(events, key=lambda event: (event.source, event.event_id))
    columns = [array_literal(map(read, events)) for read in EVENT_COLUMNS.values()]
    columns.append(array_literal(times_seen[(event.source, event.event_id), event.content_hash] for event in events))
    columns.append(
        array_literal(
            naming.kubernetes_name(source=event.source, event_id=event.event_id, number=1, job_name=event.job_name)
            for event in events
        )
    )
    columns.append(array_literal(arrival[event.source, event.event_id] for event in events))
    with binding_cursor() as cursor:
        cursor.execute(_INSERT, [*columns, str(origin), settings.KANIKOJOBS_NAMESPACE], prepare=True)
        stored = {
            (source, event_id): StoredEvent(id, inserted, bytes(content_hash))
            for source, event_id, id, inserted, content_hash in cursor.fetchall()
        }
    if missing := [event for event in events if (event.source, event.event_id) not in stored]:
        there = _rows_of(missing)
        # A batch can hold a conflict and, behind it, a duplicate of the very row that it conflicts with.
        _count_again({row.id: times_seen.get((identity, row.content_hash), 0) for identity, row in there.items()})
        stored.update(there)
    return stored


def array_literal(values: Iterable[str | int | bytes | datetime | None]) -> str:
    """An array as PostgreSQL reads it (manual, section 8.15.2).

    psycopg's own way with lists costs 50 µs per event, more than all the rest of intake; this costs 5.
    """
    # Texts, which most are, without a call for each: that is a third of the 5.
    elements = [
        '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else _element(value)
        for value in values
    ]
    return "{" + ",".join(elements) + "}"


def _element(value: int | bytes | datetime | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f'"\\\\x{value.hex()}"'
    return str(value) if isinstance(value, int) else f'"{value.isoformat()}"'


def _count_again(times_seen: Mapping[int, int]) -> None:
    if again := {id: times for id, times in times_seen.items() if times}:
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE kanikojobs_jobstartevent event
                SET times_seen = event.times_seen + again.times, last_seen_at = clock_timestamp()
                FROM unnest(%s::bigint[], %s::integer[]) AS again (id, times) WHERE event.id = again.id
                """,
                [list(again), list(again.values())],
            )


def _rows_of(events: Sequence[StartEvent]) -> dict[Identity, StoredEvent]:
    """The rows that hold these identities. They are there: their insert has just run into them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT source, event_id, id, content_hash FROM kanikojobs_jobstartevent
            JOIN unnest(%s::text[], %s::text[]) AS wanted (source, event_id) USING (source, event_id)
            """,
            [[event.source for event in events], [event.event_id for event in events]],
        )
        return {
            (source, event_id): StoredEvent(id, False, bytes(content_hash))
            for source, event_id, id, content_hash in cursor.fetchall()
        }
