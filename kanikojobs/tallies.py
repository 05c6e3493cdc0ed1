"""Counting in the transaction of what is counted: increments per minute, hour and all time.

`COUNT(*)` is no counter, because retention makes it go backwards, and a counter in a process is lost with it. So each
transaction that records something adds to a row here; `/metrics` and the statistics read the sums.
"""

import os
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import connection

from kanikojobs.cursors import binding_cursor

# Upper bounds in seconds of a histogram's buckets; the last bucket, without a bound, is one more. What is stored counts
# by position: other bounds are another series. Of calls, of waits and of builds:
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
WAIT_BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
BUILD_BUCKETS = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)
SHARDS = 16
# Series of attempts: those that ended with the Job being in Kubernetes, and those that ended without.
SUCCESSES = ("creation/created", "creation/adopted")
FAILURES = ("creation/retry", "creation/refused", "creation/unavailable", "creation/lost")
MINUTES_KEPT = timedelta(days=2)


@dataclass(slots=True)
class Increment:
    """What one transaction adds to one series."""

    count: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=list)
    bounds: Sequence[float] = BUCKETS

    def observe(self, seconds: float) -> None:
        """Count one duration, in seconds."""
        if not self.buckets:
            self.buckets = [0] * (len(self.bounds) + 1)
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(self.bounds, seconds)] += 1


def counts(pairs: Mapping[str, int]) -> dict[str, Increment]:
    """Increments for series that only count."""
    return {series: Increment(count=count) for series, count in pairs.items() if count}


def add(increments: Mapping[str, Increment]) -> None:
    """Add to the tallies of this minute, of this hour and of all time.

    Call it last in a transaction: it locks the rows until the commit.
    """
    if not increments:
        return
    # One order for everybody (the ORDER BY): two that lock the same rows the other way round would deadlock.
    series = sorted(increments)
    shard = os.getpid() % SHARDS
    with binding_cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO kanikojobs_tally AS tally (span, since, series, shard, count, seconds, buckets)
            SELECT slot.span, slot.since, added.series, %s, added.count, added.seconds,
                   string_to_array(added.buckets, ',')::bigint[]
            FROM (
                VALUES ('all', 'epoch'::timestamptz), ('hour', date_trunc('hour', clock_timestamp())),
                       ('minute', date_trunc('minute', clock_timestamp()))
            ) AS slot (span, since)
            CROSS JOIN unnest(%s::text[], %s::bigint[], %s::float8[], %s::text[])
                AS added (series, count, seconds, buckets)
            ORDER BY slot.span, added.series
            ON CONFLICT (span, since, series, shard) DO UPDATE SET
                count = tally.count + excluded.count,
                seconds = tally.seconds + excluded.seconds,
                buckets = CASE
                    WHEN cardinality(excluded.buckets) = 0 THEN tally.buckets
                    WHEN cardinality(tally.buckets) = 0 THEN excluded.buckets
                    ELSE ARRAY (
                        SELECT COALESCE(old, 0) + COALESCE(new, 0)
                        FROM unnest(tally.buckets, excluded.buckets) WITH ORDINALITY AS b (old, new, position)
                        ORDER BY position
                    )
                END
            """,
            [
                shard,
                series,
                [increments[name].count for name in series],
                [increments[name].seconds for name in series],
                [",".join(map(str, increments[name].buckets)) for name in series],
            ],
        )


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of a series over a time."""

    count: int
    seconds: float
    buckets: tuple[int, ...]


def totals(*, prefix: str, minutes: int | None = None) -> dict[str, Total]:
    """The sums per series that starts with `prefix`: of all time, or of the last so many whole minutes and this one.

    The sums of all time are rows of their own, so that reading them costs the same after a day and after a year.
    """
    if minutes is None:
        window = "span = 'all'"
    else:
        window = "span = 'minute' AND since >= date_trunc('minute', now()) - make_interval(mins => %(minutes)s)"
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            SELECT series, sum(count)::bigint, sum(seconds), array_agg(array_to_string(buckets, ','))
            FROM kanikojobs_tally WHERE {window} AND starts_with(series, %(prefix)s) GROUP BY series
            """,  # noqa: S608 - `window` is one of the two literals above
            {"prefix": prefix, "minutes": minutes},
        )
        return {
            series: Total(count, seconds, _sum_of(buckets)) for series, count, seconds, buckets in cursor.fetchall()
        }


def history(*, prefix: str, span: str, since: datetime) -> dict[datetime, dict[str, Total]]:
    """The sums per minute or per hour (`span`) from a time on, and per series that starts with `prefix`."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT since, series, sum(count)::bigint, sum(seconds), array_agg(array_to_string(buckets, ','))
            FROM kanikojobs_tally WHERE span = %s AND since >= %s AND starts_with(series, %s)
            GROUP BY since, series
            """,
            [span, since, prefix],
        )
        found: dict[datetime, dict[str, Total]] = {}
        for at, series, count, seconds, buckets in cursor.fetchall():
            found.setdefault(at, {})[series] = Total(count, seconds, _sum_of(buckets))
        return found


def sums(*, span: str, since: datetime) -> dict[str, tuple[int, float]]:
    """The count and the seconds of each series from a time on, as one sum: no histograms, which cost most to add up."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT series, sum(count)::bigint, sum(seconds) FROM kanikojobs_tally
            WHERE span = %s AND since >= %s GROUP BY series
            """,
            [span, since],
        )
        return {series: (count, seconds) for series, count, seconds in cursor.fetchall()}


def _sum_of(rows: Iterable[str]) -> tuple[int, ...]:
    histograms = [map(int, row.split(",")) for row in rows if row]
    return tuple(map(sum, zip(*histograms, strict=True)))


def forget_minutes() -> int:
    """Delete the tallies per minute that no window reads any more; return how many. Hours are kept."""
    with connection.cursor() as cursor:
        cursor.execute(
            # Each process does this now and then; one that comes upon another's rows leaves them to it.
            """
            DELETE FROM kanikojobs_tally WHERE id IN (
                SELECT id FROM kanikojobs_tally
                WHERE span = 'minute' AND since < clock_timestamp() - make_interval(secs => %s)
                FOR UPDATE SKIP LOCKED
            )
            """,
            [MINUTES_KEPT.total_seconds()],
        )
        return cursor.rowcount


def quantile(buckets: Sequence[int], share: float, *, bounds: Sequence[float] = BUCKETS) -> float | None:
    """The duration in seconds below which this share of a histogram lies, or None for an empty one.

    Interpolated within its bucket, as Prometheus' histogram_quantile does; in the last bucket its lower bound.
    """
    wanted, below = share * sum(buckets), 0
    if not wanted:
        return None
    for position, count in enumerate(buckets):
        if below + count >= wanted:
            lower = bounds[position - 1] if position else 0.0
            if position == len(bounds):
                return lower
            return lower + (bounds[position] - lower) * (wanted - below) / count
        below += count
    return bounds[-1]


def count(totals: Mapping[str, Total], series: Iterable[str]) -> int:
    return sum(totals[name].count for name in series if name in totals)
