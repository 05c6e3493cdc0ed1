"""Messages become rows: a whole batch in one transaction, of which each message has its own outcome.

What is acknowledged to RabbitMQ or answered to an HTTP caller has been committed here before. Valid events become a
`JobStartEvent` and its first `KanikoJob`, which is also the queue entry; invalid ones become dead letters; one bad
message never spoils its batch.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import structlog
from django.conf import settings
from django.db import DatabaseError, DataError, IntegrityError, transaction

from kanikojobs import claims, cloudevent, dead_letters, letters, logs, tallies, tracing
from kanikojobs.cloudevent import Identity, StartEvent
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.event_rows import Insertion, Row, StoredEvent, insert_events, insertion, row_of
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
    prepared = prepare(messages, origin=origin)
    result = write(pack(messages, prepared), origin=origin)
    tell(prepared, result, origin=origin)
    return result


Reading = StartEvent | InvalidEvent | NotOurs
# What is written: the row of a valid event, or the verdict on another message.
Prepared = Row | InvalidEvent | NotOurs


def prepare(messages: Sequence[Message], *, origin: JobStartEvent.Origin) -> list[Prepared]:
    """Do all that can be done for each message without the database."""
    readings = tracing.begun(read(messages, origin=origin))
    return [row_of(reading) if isinstance(reading, StartEvent) else reading for reading in readings]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are written in one transaction. `first` is where in it each identity comes first."""

    messages: Sequence[Message]
    prepared: Sequence[Prepared]
    first: Mapping[Identity, int]
    insertion: Insertion | None


def pack(messages: Sequence[Message], prepared: Sequence[Prepared]) -> Batch:
    """Do all that can be done for a batch without the database."""
    first: dict[Identity, int] = {}
    times_seen: dict[tuple[Identity, bytes], int] = {}
    rows: list[Row] = []
    for position, row in enumerate(prepared):
        if isinstance(row, Row):
            if row.identity not in first:
                first[row.identity] = position
                rows.append(row)
            content = row.identity, row.event.content_hash
            times_seen[content] = times_seen.get(content, 0) + 1
    return Batch(messages, prepared, first, insertion(rows, times_seen=times_seen) if rows else None)


def write(batch: Batch, *, origin: JobStartEvent.Origin) -> IntakeResult:
    """Write a batch in one transaction. Raises as `record` does."""
    try:
        return _write(batch, origin=origin)
    except (DatabaseError, UnicodeEncodeError) as error:
        if not is_about_a_value(error):
            raise
        refusal = error
    # Halving finds the message that holds the value in log2(batch) tries, instead of failing the same batch for ever;
    # its neighbours are recorded.
    messages, prepared = batch.messages, batch.prepared
    if len(messages) == 1:
        return _write(pack(messages, [_unstorable(prepared[0], refusal)]), origin=origin)
    middle = len(messages) // 2
    first = write(pack(messages[:middle], prepared[:middle]), origin=origin)
    second = write(pack(messages[middle:], prepared[middle:]), origin=origin)
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


def _unstorable(prepared: Prepared, error: Exception) -> InvalidEvent:
    log.warning("event-unstorable", error=type(error).__name__)
    fault = Fault("", f"PostgreSQL cannot store it: {str(error).splitlines()[0]}")
    if isinstance(prepared, Row):
        return InvalidEvent([fault], source=prepared.event.source, event_id=prepared.event.event_id)
    return InvalidEvent([fault])


def refuse(message: Message, invalid: InvalidEvent, *, origin: JobStartEvent.Origin) -> IntakeResult:
    """Keep a message as a dead letter that was found to be invalid before it could be read as an event."""
    result = _write(pack([message], [invalid]), origin=origin)
    tell([invalid], result, origin=origin)
    return result


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


def _write(batch: Batch, *, origin: JobStartEvent.Origin) -> IntakeResult:
    began_at = time.time()
    outcomes: list[Outcome] = []
    faults: dict[int, tuple[Fault, ...]] = {}
    dead: list[letters.Letter] = []
    with transaction.atomic():
        stored = insert_events(batch.insertion, origin=origin) if batch.insertion else {}
        for position, (message, row) in enumerate(zip(batch.messages, batch.prepared, strict=True)):
            if isinstance(row, NotOurs):
                outcomes.append(Outcome.NOT_OURS)
            elif isinstance(row, InvalidEvent):
                outcomes.append(Outcome.DEAD)
                faults[position] = row.faults
                dead.append(letters.of_invalid(message, row, origin=origin))
            else:
                there = stored[row.identity]
                if there.content_hash != row.event.content_hash:
                    outcomes.append(Outcome.DEAD)
                    letter = letters.of_conflict(message, row.event, event_id=there.id, origin=origin)
                    faults[position] = letter.faults
                    dead.append(letter)
                elif there.inserted and batch.first[row.identity] == position:
                    outcomes.append(Outcome.RECORDED)
                else:
                    outcomes.append(Outcome.DUPLICATE)
        dead_letters.record(dead)
        counted = Counter(outcomes)
        causes = Counter(letter.cause for letter in dead)
        increments = tallies.counts(
            {f"intake/{origin}/{outcome}": n for outcome, n in counted.items()}
            | {f"dead-letter/{cause}": n for cause, n in causes.items()}
        )
        if counted[Outcome.DUPLICATE]:
            increments |= _other_ways(stored.values(), origin=origin)
        tallies.add(increments)
        if counted[Outcome.RECORDED]:
            claims.notify()
    events = (row.event for row in batch.prepared if isinstance(row, Row))
    tracing.processed(events, messages=len(batch.messages), origin=origin, began_at=began_at)
    return IntakeResult(outcomes=tuple(outcomes), faults=faults)


def tell(prepared: Sequence[Prepared], result: IntakeResult, *, origin: JobStartEvent.Origin) -> None:
    """Log what became of each message, once the batch is committed."""
    counted = Counter(result.outcomes)
    log.info("batch-recorded", origin=str(origin), **{str(outcome): n for outcome, n in counted.items()})
    lines = (_line(*settled, origin=origin) for settled in zip(prepared, result.outcomes, strict=True))
    logs.steps(__name__, "message-settled", lines)


def _other_ways(stored: Iterable[StoredEvent], *, origin: JobStartEvent.Origin) -> dict[str, tallies.Increment]:
    """How much later events came by this way than by the other, under the series of the way that was first."""
    first = JobStartEvent.Origin.QUEUE if origin == JobStartEvent.Origin.DIRECT else JobStartEvent.Origin.DIRECT
    delays = [there.other_way_after for there in stored if there.other_way_after is not None]
    increment = tallies.Increment(bounds=tallies.WAIT_BUCKETS)
    for delay in delays:
        increment.observe(delay)
    return {f"both-ways/{first}": increment} if delays else {}


def _line(prepared: Prepared, outcome: Outcome, *, origin: JobStartEvent.Origin) -> dict[str, str]:
    """What the log says of one message: its ids, and nothing of what it carries."""
    told = {"origin": origin.value, "outcome": outcome.value}
    if isinstance(prepared, Row):
        event = prepared.event
        told |= {"event_id": event.event_id, "correlation_id": event.correlation_id, "trace_id": event.trace_id}
    return told
