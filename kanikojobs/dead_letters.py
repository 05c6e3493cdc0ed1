"""What could not be used, written down, and noted in the group of failures of its cause."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from django.db import transaction

from kanikojobs import failure_groups, fingerprints, letters, tallies
from kanikojobs.cursors import binding_cursor
from kanikojobs.database_time import now
from kanikojobs.failure_groups import Death
from kanikojobs.letters import Letter
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import DeadLetter, KanikoJob
from kanikojobs.redaction import redact
from kanikojobs.storable import printable, storable

# How many bytes of bodies are on their way to Postgres at once. A statement for each letter would take most of the time
# to be planned, and all bodies of a batch in one tens of megabytes.
MOST_BYTES_AT_ONCE = 1024 * 1024

# Each column that a letter fills, with its type in PostgreSQL.
_TYPES = {
    "cause": "text",
    "origin": "text",
    "reason": "text",
    "faults": "jsonb",
    "fingerprint": "text",
    "body": "bytea",
    "content_type": "text",
    "headers": "jsonb",
    "properties": "jsonb",
    "message_hash": "bytea",
    "ce_source": "text",
    "ce_id": "text",
    "third_party_id": "text",
    "parser_id": "text",
    "event_id": "bigint",
    "kaniko_job_id": "bigint",
    "times_seen": "integer",
    "arrived_at": "timestamptz",
}
_COLUMNS = ", ".join(_TYPES)
# `%b`: bodies go as they are, and not in hexadecimal digits.
_ARRAYS = ", ".join(f"{'%b' if type == 'bytea' else '%s'}::{type}[]" for type in _TYPES.values())
_RECORD = f"""
    INSERT INTO kanikojobs_deadletter AS letter ({_COLUMNS})
    SELECT {_COLUMNS} FROM unnest({_ARRAYS}) AS died ({_COLUMNS})
    -- One order for everybody, lest two consumers with the same letters deadlock.
    ORDER BY message_hash, cause, origin
    ON CONFLICT (message_hash, cause, origin) WHERE state = 'open' AND kaniko_job_id IS NULL
    DO UPDATE SET
        times_seen = letter.times_seen + excluded.times_seen,
        -- Not before the last one: the clock may have been set back, or be another server's.
        last_died_at = GREATEST(letter.last_died_at, clock_timestamp())
    -- PostgreSQL sets xmax when the conflict branch locks the row: 0 is a new one.
    RETURNING message_hash, cause, origin, COALESCE(kaniko_job_id, 0), id, xmax = 0
"""  # noqa: S608 - built from the literals above

# What makes two letters one: the message, the cause, the origin, and the Kaniko Job that it is about or 0.
Key = tuple[bytes, str, str, int]


def record_from_broker(messages: Sequence[Message]) -> IntakeResult:
    """Drain the broker's dead-letter queue into rows: committed when this returns."""
    dead = [letters.of_broker(message) for message in messages]
    with transaction.atomic():
        ids = record(dead)
        tallies.add(tallies.counts(Counter(f"dead-letter/{letter.cause}" for letter in dead)))
    return IntakeResult(outcomes=(Outcome.DEAD,) * len(messages), letters=ids)


def record_failed_creations(failures: Mapping[int, str]) -> None:
    """Write a dead letter for each Kaniko Job, by id, whose creation has failed with this message.

    The body is the event again, as structured JSON, so that it can be read, mended and replayed like any other.
    """
    _record_failed_jobs(failures, cause=DeadLetter.Cause.CREATION_FAILED)


def record_failed_builds(failures: Mapping[int, str]) -> None:
    """Write a dead letter for each Kaniko Job, by id, that failed in Kubernetes, with this message.

    The Kaniko Job's own `reason` must be in its row by then. Must run inside the transaction that moves it to failed.
    """
    _record_failed_jobs(failures, cause=DeadLetter.Cause.BUILD_FAILED)


def _record_failed_jobs(failures: Mapping[int, str], *, cause: DeadLetter.Cause) -> None:
    if not failures:
        return
    jobs = KanikoJob.objects.filter(id__in=failures).select_related("event")
    record([letters.of_failed_job(job, cause=cause, message=failures[job.pk]) for job in jobs])
    tallies.add(tallies.counts({f"dead-letter/{cause}": len(failures)}))


def record(dead: Sequence[Letter]) -> tuple[int, ...]:
    """Write dead letters and return their ids; one that is open already with the same message and cause is counted,
    not doubled.

    Must run inside the transaction that settles the messages.
    """
    if not dead:
        return ()
    moment = now()
    # The same letter twice in one INSERT would touch its row twice, which ON CONFLICT refuses.
    times: Counter[Key] = Counter()
    unique: dict[Key, Letter] = {}
    for place, letter in enumerate(dead):
        key = (letters.message_hash(letter), str(letter.cause), str(letter.origin), letter.kaniko_job_id or 0)
        # In the order in which they were handed over, whatever the order in which they are written.
        arrived_at = letter.arrived_at or moment + timedelta(microseconds=place)
        unique.setdefault(key, replace(letter, arrived_at=arrived_at))
        times[key] += 1
    ids: list[int] = []
    deaths: list[Death] = []
    with binding_cursor() as cursor:
        for part in _parts(unique):
            groups = {key: _group(unique[key]) for key in part}
            rows = [_row(key, unique[key], times=times[key], group=groups[key]) for key in part]
            cursor.execute(_RECORD, [list(column) for column in zip(*rows, strict=True)])
            for hash, cause, origin, kaniko_job_id, id, opened in cursor.fetchall():
                key = (hash, cause, origin, kaniko_job_id)
                ids.append(id)
                deaths.append(_death(unique[key], times=times[key], group=groups[key], opened=opened))
    failure_groups.note_deaths(deaths)
    return tuple(ids)


def _parts(unique: Mapping[Key, Letter]) -> Iterator[list[Key]]:
    """The keys in order, in parts of so many bytes of bodies."""
    part: list[Key] = []
    size = 0
    for key in sorted(unique):
        size += len(unique[key].body)
        if part and size > MOST_BYTES_AT_ONCE:
            yield part
            part, size = [], len(unique[key].body)
        part.append(key)
    if part:
        yield part


@dataclass(frozen=True, slots=True)
class Group:
    """The group of failures that a letter belongs to."""

    fingerprint: str
    signature: str


def _group(letter: Letter) -> Group:
    signature = fingerprints.signature(reason=printable(letter.reason), faults=letter.faults)
    fingerprint = fingerprints.fingerprint(kind=str(letter.cause), signature=signature)
    # The name of a group is on pages of those who may not see secrets.
    return Group(fingerprint, redact(printable(signature)))


def _death(letter: Letter, *, times: int, group: Group, opened: bool) -> Death:
    return Death(
        fingerprint=group.fingerprint,
        cause=str(letter.cause),
        signature=group.signature,
        sample=printable(letter.reason),
        third_party_id=letter.third_party_id[:128],
        times=times,
        opened=opened,
    )


def _row(key: Key, letter: Letter, *, times: int, group: Group) -> tuple[Any, ...]:
    """The columns in the order of `_TYPES`."""
    faults = [{"path": printable(fault.path), "problem": printable(fault.problem)} for fault in letter.faults]
    return (
        str(letter.cause),
        str(letter.origin),
        printable(letter.reason),
        json.dumps(faults),
        group.fingerprint,
        letter.body,
        printable(letter.content_type)[:256],
        json.dumps(storable(letter.headers)),
        json.dumps(storable(letter.properties)),
        key[0],
        printable(letter.ce_source)[:512],
        printable(letter.ce_id)[:256],
        letter.third_party_id[:128],
        letter.parser_id[:128],
        letter.event_id,
        letter.kaniko_job_id,
        times,
        letter.arrived_at,
    )
