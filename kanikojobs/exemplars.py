"""Exemplars: beside the count of a histogram's bucket one recent case of it, by the trace that shows it.

Read from the newest attempts at scrape time: a look at the end of an index, whose cost does not grow with the history.
Only of calls to create Jobs and of the waits for them; nothing finds the builds that ended last without reading many.
Prometheus takes them in OpenMetrics' format, which it asks for, and keeps them with its feature `exemplar-storage`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from django.db import connection
from prometheus_client.samples import Exemplar

from kanikojobs.tallies import BUCKETS, WAIT_BUCKETS

# How many attempts are looked at: enough for the slow buckets, few enough to take 2 ms.
NEWEST = 200

ByBucket = Mapping[int, Exemplar]
NO_EXAMPLES: ByBucket = {}


@dataclass(frozen=True, slots=True)
class Exemplars:
    """By the position of their bucket: of calls to create Jobs, and of how long these had been waited for."""

    calls: ByBucket
    waits: ByBucket


def newest() -> Exemplars:
    """Of each bucket the newest case that has a trace."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT event.trace_id, extract(epoch FROM attempt.finished_at)::float8, attempt.duration,
                   CASE WHEN attempt.outcome IN ('created', 'adopted')
                        THEN extract(epoch FROM job.created_at - job.queued_at)::float8 END
            FROM (
                SELECT kaniko_job_id, outcome, finished_at, duration FROM kanikojobs_jobattempt
                ORDER BY id DESC LIMIT %s
            ) attempt
            JOIN kanikojobs_kanikojob job ON job.id = attempt.kaniko_job_id
            JOIN kanikojobs_jobstartevent event ON event.id = job.event_id
            WHERE event.trace_id <> '' AND attempt.duration IS NOT NULL
            ORDER BY attempt.finished_at
            """,
            [NEWEST],
        )
        rows = cursor.fetchall()
    return Exemplars(
        calls=_by_bucket(((trace_id, at, call) for trace_id, at, call, _ in rows), bounds=BUCKETS),
        waits=_by_bucket(
            ((trace_id, at, max(0.0, wait)) for trace_id, at, _, wait in rows if wait is not None), bounds=WAIT_BUCKETS
        ),
    )


def _by_bucket(cases: Iterable[tuple[str, float, float]], *, bounds: Sequence[float]) -> ByBucket:
    return {
        bisect_left(bounds, seconds): Exemplar({"trace_id": trace_id}, seconds, at) for trace_id, at, seconds in cases
    }
