"""How long Kaniko Jobs waited and built, and how late we learned of their ends: observed as they move.

Called in the transaction that moves the rows, so that the histograms hold exactly what happened, and read from the rows
themselves, so that every caller counts alike.
"""

from collections.abc import Collection
from typing import cast

from kanikojobs.cursors import binding_cursor
from kanikojobs.tallies import BUILD_BUCKETS, WAIT_BUCKETS, Increment


def waits(created: Collection[int]) -> dict[str, Increment]:
    """How long Kaniko Jobs, which have just been created, had waited for that since they were queued."""
    if not created:
        return {}
    wait = Increment(bounds=WAIT_BUCKETS)
    with binding_cursor() as cursor:
        cursor.execute(
            """
            SELECT extract(epoch FROM created_at - queued_at)::float8
            FROM kanikojobs_kanikojob WHERE id = ANY (%s::bigint[]) AND created_at IS NOT NULL
            """,
            [list(created)],
        )
        for (seconds,) in cursor.fetchall():
            wait.observe(max(0.0, seconds))
    return {"wait/created": wait}


def builds(finished: Collection[int]) -> dict[str, Increment]:
    """How long Kaniko Jobs, which have just been finished, ran, by state; and how late that was learned."""
    if not finished:
        return {}
    found: dict[str, Increment] = {}
    with binding_cursor() as cursor:
        cursor.execute(
            """
            SELECT state, extract(epoch FROM finished_at - running_at)::float8,
                   extract(epoch FROM clock_timestamp() - finished_at)::float8
            FROM kanikojobs_kanikojob WHERE id = ANY (%s::bigint[]) AND finished_at IS NOT NULL
            """,
            [list(finished)],
        )
        for state, ran, late in cast(list[tuple[str, float | None, float]], cursor.fetchall()):
            if ran is not None:
                found.setdefault(f"build/{state}", Increment(bounds=BUILD_BUCKETS)).observe(max(0.0, ran))
            found.setdefault("watch/late", Increment(bounds=WAIT_BUCKETS)).observe(max(0.0, late))
    return found
