"""Events become rows: the one statement that inserts a batch of them, each with its first Kaniko Job."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection

from kanikojobs import naming
from kanikojobs.cloudevent import StartEvent
from kanikojobs.cursors import binding_cursor
from kanikojobs.models import JobStartEvent


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
        SELECT * FROM unnest({_ARRAYS}, %s::text[], %s::integer[], %s::integer[])
            AS row ({_COLUMNS}, kubernetes_name, times_seen, arrival)
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


Identity = tuple[str, str]


class Row(NamedTuple):
    """An event, and its columns as they are written into arrays."""

    event: StartEvent
    elements: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        return self.event.source, self.event.event_id


def row_of(event: StartEvent) -> Row:
    """The row of an event. Needs no database: the consumer makes it while the writer waits for Postgres."""
    name = naming.kubernetes_name(source=event.source, event_id=event.event_id, number=1, job_name=event.job_name)
    return Row(event, (*(element(read(event)) for read in EVENT_COLUMNS.values()), element(name)))


def insert_events(
    rows: Sequence[Row], *, times_seen: Mapping[tuple[Identity, bytes], int], origin: JobStartEvent.Origin
) -> dict[Identity, StoredEvent]:
    """Insert events with distinct identities and a first Kaniko Job for each new one; return the row of each identity.

    The Kaniko Jobs are numbered by the database in the order of `rows`, which is that of arrival: what is built one
    after the other goes by it. `times_seen` says how often each identity came with each content. Must run inside a
    transaction.
    """
    arrival = {row.identity: position for position, row in enumerate(rows)}
    # One order for everybody: two consumers that upsert the same identities the other way round would deadlock.
    rows = sorted(rows, key=attrgetter("identity"))
    columns = list(zip(*(row.elements for row in rows), strict=True))
    columns.append(tuple(str(times_seen[row.identity, row.event.content_hash]) for row in rows))
    columns.append(tuple(str(arrival[row.identity]) for row in rows))
    arrays = ["{" + ",".join(column) + "}" for column in columns]
    with binding_cursor() as cursor:
        cursor.execute(_INSERT, [*arrays, str(origin), settings.KANIKOJOBS_NAMESPACE], prepare=True)
        stored = {
            (source, event_id): StoredEvent(id, inserted, bytes(content_hash))
            for source, event_id, id, inserted, content_hash in cursor.fetchall()
        }
    if missing := [row.event for row in rows if row.identity not in stored]:
        there = _rows_of(missing)
        # A batch can hold a conflict and, behind it, a duplicate of the very row that it conflicts with.
        _count_again({row.id: times_seen.get((identity, row.content_hash), 0) for identity, row in there.items()})
        stored.update(there)
    return stored


def element(value: str | int | bytes | datetime | None) -> str:
    """A value as an element of an array, as PostgreSQL reads it (manual, section 8.15.2).

    psycopg's own way with lists costs 50 µs per event, more than all the rest of intake; this costs 6.
    """
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
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
