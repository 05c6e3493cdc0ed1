"""Events become rows: the one statement that inserts a batch of them, each with its first Kaniko Job."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection

from kanikojobs import array_literals, naming
from kanikojobs.cloudevent import Identity, StartEvent
from kanikojobs.cursors import binding_cursor
from kanikojobs.models import JobStartEvent


class StoredEvent(NamedTuple):
    """The row that holds an identity: `inserted` by this transaction, or there before, perhaps with other content.

    `other_way_after` is for one that had come by the other way only until now: so many seconds after it was received.
    """

    id: int
    inserted: bool
    content_hash: bytes
    other_way_after: float | None = None


# Each column that an event fills, with its type in PostgreSQL; its value is in the event's field of that name.
EVENT_COLUMNS = {
    "event_id": "text",
    "source": "text",
    "type": "text",
    "specversion": "text",
    "subject": "text",
    "time": "timestamptz",
    "datacontenttype": "text",
    "dataschema": "text",
    "extensions": "jsonb",
    "data": "jsonb",
    "third_party_id": "text",
    "parser_id": "text",
    "correlation_id": "text",
    "job_name": "text",
    "priority": "smallint",
    "build_type": "text",
    "runtime": "text",
    "source_url": "text",
    "build_timeout": "integer",
    "content_hash": "bytea",
    "traceparent": "text",
    "trace_id": "text",
}
_COLUMNS = ", ".join(EVENT_COLUMNS)
_ARRAYS = ", ".join(f"%s::{type}[]" for type in EVENT_COLUMNS.values())

# That an event comes by the other way for the first time is noted on its row, by the update that counts it anyway. By
# the time of the statement it shows which one noted it.
_OTHER_WAY_AT = """
    COALESCE(event.other_way_at, CASE
        WHEN (event.origin, {origin}) IN (('queue', 'direct'), ('direct', 'queue')) THEN statement_timestamp()
    END)
"""
_OTHER_WAY_AFTER = """
    CASE WHEN event.other_way_at = statement_timestamp()
         THEN EXTRACT(EPOCH FROM GREATEST(event.other_way_at - event.received_at, interval '0'))::float8 END
"""

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
            SET times_seen = event.times_seen + excluded.times_seen, last_seen_at = clock_timestamp(),
                other_way_at = {_OTHER_WAY_AT.format(origin="excluded.origin")}
            WHERE event.content_hash = excluded.content_hash
        RETURNING id, source, event_id, content_hash, xmax = 0 AS inserted, {_OTHER_WAY_AFTER} AS other_way_after
    ), queued AS (
        INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id)
        SELECT stored.id, incoming.kubernetes_name, %s, incoming.priority, incoming.third_party_id, incoming.parser_id
        FROM stored JOIN incoming USING (source, event_id) WHERE stored.inserted
        ORDER BY incoming.arrival
    )
    SELECT source, event_id, id, inserted, content_hash, other_way_after FROM stored
"""  # noqa: S608 - built from the literals above


class Row(NamedTuple):
    """An event that is to be recorded, and the Kubernetes name of its first Kaniko Job."""

    identity: Identity
    event: StartEvent
    kubernetes_name: str


def row_of(event: StartEvent) -> Row:
    """The row of an event. Needs no database: the consumer makes it while the writer waits for Postgres."""
    name = naming.kubernetes_name(source=event.source, event_id=event.event_id, number=1, job_name=event.job_name)
    return Row(event.identity, event, name)


@dataclass(frozen=True, slots=True)
class Insertion:
    """Rows with distinct identities, ready to be inserted. `times_seen` says how often each came with each content."""

    rows: Sequence[Row]
    times_seen: Mapping[tuple[Identity, bytes], int]
    arrays: Sequence[str]


def insertion(rows: Sequence[Row], *, times_seen: Mapping[tuple[Identity, bytes], int]) -> Insertion:
    """Make ready to insert `rows`, which are in the order of arrival."""
    # One order for everybody: two consumers that upsert the same identities the other way round would deadlock.
    order = sorted(range(len(rows)), key=lambda position: rows[position].identity)
    rows = [rows[position] for position in order]
    arrays = [
        *event_arrays([row.event for row in rows]),
        array_literals.of_texts([row.kubernetes_name for row in rows]),
        array_literals.of_numbers(times_seen[row.identity, row.event.content_hash] for row in rows),
        array_literals.of_numbers(order),
    ]
    return Insertion(rows, times_seen, arrays)


def insert_events(ready: Insertion, *, origin: JobStartEvent.Origin) -> dict[Identity, StoredEvent]:
    """Insert events and a first Kaniko Job for each new one; return the row of each identity.

    The Kaniko Jobs are numbered by the database in the order of arrival: what is built one after the other goes by it.
    Must run inside a transaction.
    """
    with binding_cursor() as cursor:
        cursor.execute(_INSERT, [*ready.arrays, str(origin), settings.KANIKOJOBS_NAMESPACE])
        stored = {
            (source, event_id): StoredEvent(id, inserted, bytes(content_hash), other_way_after)
            for source, event_id, id, inserted, content_hash, other_way_after in cursor.fetchall()
        }
    if missing := [row.event for row in ready.rows if row.identity not in stored]:
        there = _rows_of(missing)
        # A batch can hold a conflict and, behind it, a duplicate of the very row that it conflicts with.
        times = {row.id: ready.times_seen.get((identity, row.content_hash), 0) for identity, row in there.items()}
        after = _count_again(times, origin=origin)
        stored.update((identity, row._replace(other_way_after=after.get(row.id))) for identity, row in there.items())
    return stored


def event_arrays(events: Sequence[StartEvent]) -> list[str]:
    """The arrays of `EVENT_COLUMNS`, each with one element per event."""
    fields: dict[str, Sequence[Any]] = dict(zip(StartEvent._fields, zip(*events, strict=True), strict=True))
    fields["extensions"] = [json.dumps(extensions) if extensions else "{}" for extensions in fields["extensions"]]
    fields["data"] = fields["data_json"]
    return [array_literals.of(fields[name], type=type) for name, type in EVENT_COLUMNS.items()]


def _count_again(times_seen: Mapping[int, int], *, origin: JobStartEvent.Origin) -> dict[int, float | None]:
    """Count events again; return the seconds after which each came by the other way, if it did so only now."""
    again = {id: times for id, times in times_seen.items() if times}
    if not again:
        return {}
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            UPDATE kanikojobs_jobstartevent event
            SET times_seen = event.times_seen + again.times, last_seen_at = clock_timestamp(),
                other_way_at = {_OTHER_WAY_AT.format(origin="again.origin")}
            FROM (SELECT *, %s::text AS origin FROM unnest(%s::bigint[], %s::integer[]) AS row (id, times)) AS again
            WHERE event.id = again.id
            RETURNING event.id, {_OTHER_WAY_AFTER}
            """,  # noqa: S608 - built from the literals above
            [str(origin), list(again), list(again.values())],
        )
        return dict(cursor.fetchall())


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
