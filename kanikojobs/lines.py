"""The lines in which Kaniko Jobs of one third party and parser wait for each other, as rows point to each other.

Each that waits points to the one before it (`waits_for`), so when one is finished only its follower changes, whether
ten wait or ten thousand. `place` orders a line; who has one and points to nobody is its head, and the database lets a
line have one head only. `kanikojobs.concurrency` says who is lined up; here they are moved up.
"""

from collections.abc import Collection

from django.db import connection

# Keys of PostgreSQL advisory locks are numbers; this one is "kjl" in ASCII. Whoever lines up or finishes holds it until
# the commit: without it, one could be lined up behind another that is just being finished, and wait for ever.
LINE_LOCK = 0x6B6A6C


def lock() -> None:
    """Let nobody else change a line until this transaction ends. A statement of its own: the snapshots of the next
    ones are newer than the lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LINE_LOCK])


def move_up(finished: Collection[int]) -> int:
    """Whoever waited for one of these, which have just been finished, waits for the one before it, or for nobody.

    Return how many have moved up.
    """
    if not finished:
        return 0
    lock()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, waits_for_id FROM kanikojobs_kanikojob WHERE id = ANY (%s) AND waits_for_id IS NOT NULL",
            [list(finished)],
        )
        before: dict[int, int] = dict(cursor.fetchall())
        if before:
            # First, because two may not point to the same one, not even for a moment.
            cursor.execute("UPDATE kanikojobs_kanikojob SET waits_for_id = NULL WHERE id = ANY (%s)", [list(before)])
        targets = [_unfinished_before(id, before=before, finished=finished) for id in finished]
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob follower SET waits_for_id = step.target
            FROM unnest(%s::bigint[], %s::bigint[]) AS step (finished, target)
            WHERE follower.waits_for_id = step.finished
            """,
            [list(finished), targets],
        )
        return cursor.rowcount


def _unfinished_before(id: int, *, before: dict[int, int], finished: Collection[int]) -> int | None:
    """The next one up the line that is not finished as well."""
    target = before.get(id)
    while target is not None and target in finished:
        target = before.get(target)
    return target
