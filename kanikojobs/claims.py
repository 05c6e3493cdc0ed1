"""Claiming due Kaniko Jobs: which are next, for whom, and for how long they are leased.

The most urgent go first; the third parties that wait with one priority take turns, so that one's ten thousand events
do not starve another's only one; and no more are active than the caps allow. A claimed row is `creating` under a
lease. Whoever lost the lease moves nothing any more, and when it has run out the row is claimed again.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, transaction

from kanikojobs import concurrency, tallies
from kanikojobs.cursors import binding_cursor
from kanikojobs.models import HIGHEST_PRIORITY, BuildProfile, KanikoJob, Outage
from kanikojobs.states import State

# The channel on which the queue listens for due Kaniko Jobs.
CHANNEL = "kanikojobs_queued"

# Keys of PostgreSQL advisory locks are numbers; this one is "kjq" in ASCII.
CLAIM_LOCK = 0x6B6A71

UNLIMITED = 2**31 - 1

# As the index `kanikojob_due` has it: who is queued, has no time to wait for, has a place and nobody before them.
_DUE = "state = 'queued' AND run_at IS NULL AND place IS NOT NULL AND waits_for_id IS NULL"

# Within a claim rows are read in the order of the index that is made for it. Left to itself the planner believes,
# until autovacuum has seen a burst, that nothing is queued, and that it could as well sort all that is unfinished.
_PLANS_NOT_MADE = ["enable_seqscan", "enable_bitmapscan", "enable_sort", "enable_hashagg"]

# Two arms, because each has its own small index.
_PLACES_TAKEN = """
    SELECT third_party_id FROM kanikojobs_kanikojob WHERE state IN ('creating', 'created', 'running')
    UNION ALL SELECT third_party_id FROM kanikojobs_kanikojob WHERE state = 'queued' AND may_exist
"""


def notify() -> None:
    """Wake the queues. PostgreSQL delivers it when the transaction commits, and not at all if it does not."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


@dataclass(frozen=True, slots=True)
class Claim:
    """Kaniko Jobs that are held under one token, in the order in which they are to be created."""

    token: UUID
    kaniko_jobs: tuple[int, ...] = ()


def claim(*, most: int, lease: timedelta, token: UUID | None = None, on_trial: bool = False) -> Claim:
    """Claim up to so many due Kaniko Jobs for the length of a lease; none while an outage is going on.

    `on_trial` claims during an outage, to find out whether it is over.
    """
    token = token or uuid4()
    claimed: list[int] = []
    with transaction.atomic():
        with connection.cursor() as cursor:
            # One claim at a time: two that chose from the same rows would skip each other's and find too few, or
            # both take the last free place under a cap. A statement of its own, because the snapshots of the next
            # ones must be newer than the lock.
            cursor.execute(
                "SELECT pg_advisory_xact_lock(%s), set_config(name, 'off', true) FROM unnest(%s::text[]) AS name",
                [CLAIM_LOCK, _PLANS_NOT_MADE],
            )
        if not on_trial and Outage.objects.filter(ongoing=True).exists():
            return Claim(token)
        lost = _requeue_expired()
        _requeue_waited()
        concurrency.line_up()
        claimed += _claim_those_with_a_place(most=most, token=token, lease=lease)
        taken = active() if _there_are_caps() else Counter()
        cap = settings.KANIKOJOBS_MAX_ACTIVE_JOBS
        places = min(most - len(claimed), max(0, cap - taken.total()) if cap else UNLIMITED)
        priority = _most_urgent(HIGHEST_PRIORITY)
        while places > 0 and priority is not None:
            more = _claim_in_turn(priority, most=places, taken=taken, token=token, lease=lease)
            claimed += more
            taken.update(more.values())
            places -= len(more)
            # None taken of a priority means that all its third parties are at their cap: others pass them.
            priority = _most_urgent(priority if more else priority + 1)
        tallies.add(tallies.counts({"creation/lost": lost}))
    return Claim(token, tuple(claimed))


def _requeue_waited() -> None:
    """Rows whose time has come are due."""
    with binding_cursor() as cursor:
        # statement_timestamp(), not clock_timestamp(): what changes within a statement cannot be looked up in an index.
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob SET run_at = NULL WHERE id = ANY (ARRAY (
                SELECT id FROM kanikojobs_kanikojob WHERE run_at <= statement_timestamp() FOR UPDATE SKIP LOCKED
            ))
            """
        )


def _requeue_expired() -> int:
    """Rows of workers that are gone are due; return how many open attempts died with those."""
    with binding_cursor() as cursor:
        cursor.execute(
            # Arrays, not IN (SELECT …): of those the planner made a join that read every attempt there ever was, half
            # a second per claim at a million.
            """
            WITH expired AS (
                SELECT id FROM kanikojobs_kanikojob
                WHERE state = 'creating' AND leased_until <= statement_timestamp() FOR UPDATE SKIP LOCKED
            ), lost AS (
                UPDATE kanikojobs_jobattempt SET outcome = 'lost', finished_at = clock_timestamp(),
                    reason = 'WorkerLost', message = 'The lease ran out before an answer was recorded.'
                WHERE kaniko_job_id = ANY (ARRAY (SELECT id FROM expired)) AND outcome = 'started'
                RETURNING kaniko_job_id
            ), requeued AS (
                UPDATE kanikojobs_kanikojob SET state = 'queued', claim = NULL, leased_until = NULL,
                    may_exist = may_exist OR id IN (SELECT kaniko_job_id FROM lost)
                WHERE id = ANY (ARRAY (SELECT id FROM expired))
            )
            SELECT count(*) FROM lost
            """
        )
        return int(cursor.fetchone()[0])


def _claim_those_with_a_place(*, most: int, token: UUID, lease: timedelta) -> list[int]:
    """Claim due rows whose Jobs may be in the cluster already: they are counted there, so no cap keeps them."""
    with binding_cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob SET
                state = 'creating', claim = %s, creating_at = clock_timestamp(),
                leased_until = clock_timestamp() + make_interval(secs => %s)
            WHERE id IN (
                SELECT id FROM kanikojobs_kanikojob WHERE state = 'queued' AND may_exist AND run_at IS NULL
                ORDER BY priority, id LIMIT %s FOR UPDATE SKIP LOCKED
            ) RETURNING id
            """,
            [token, lease.total_seconds(), most],
        )
        return sorted(row[0] for row in cursor.fetchall())


def active() -> Counter[str]:
    """How many Jobs are in the cluster, or perhaps already there, by third party: what the caps count."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT third_party_id, count(*) FROM ({_PLACES_TAKEN}) AS taken GROUP BY third_party_id")  # noqa: S608
        return Counter(dict(cursor.fetchall()))


def _there_are_caps() -> bool:
    if settings.KANIKOJOBS_MAX_ACTIVE_JOBS or settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY:
        return True
    return BuildProfile.objects.filter(max_active_jobs__gt=0).exists()


def _most_urgent(least: int) -> int | None:
    """The most urgent priority from this one on with which something is due."""
    with binding_cursor() as cursor:
        cursor.execute(
            f"SELECT priority FROM kanikojobs_kanikojob WHERE {_DUE} AND priority >= %s ORDER BY priority LIMIT 1",  # noqa: S608
            [least],
        )
        row = cursor.fetchone()
        return row[0] if row else None


def _claim_in_turn(
    priority: int, *, most: int, taken: Mapping[str, int], token: UUID, lease: timedelta
) -> dict[int, str]:
    """Claim rows of one priority, the third parties in turn, each as far as its cap allows beside the places `taken`.

    Return the third party of each, in the order in which they are to be created.
    """
    with binding_cursor() as cursor:
        # `hop` walks the index of due rows from third party to third party, on from the one whose turn was last and
        # round to it again, until it has met as many with free places as rows are wanted. So a claim costs the same
        # whether ten rows wait or a million, and the partial index never holds one that is finished. Rows are locked
        # where that index finds them, not in a join with the table, for which the planner chose one of 40 ms.
        cursor.execute(
            f"""
            WITH RECURSIVE cap (third_party_id, most) AS (
                SELECT third_party_id, COALESCE(NULLIF(max_active_jobs, 0), %(unlimited)s)
                FROM kanikojobs_buildprofile WHERE max_active_jobs IS NOT NULL
            ), last (third_party_id) AS (
                SELECT COALESCE((SELECT third_party_id FROM kanikojobs_turn WHERE priority = %(priority)s), '')
            ), hop (third_party_id, round, position, met, free) AS (
                SELECT third_party_id, 0, 0, 0, 0::bigint FROM last
                UNION ALL
                SELECT following.third_party_id, following.round, hop.position + 1, hop.met + (room.free > 0)::int,
                       room.free
                FROM hop CROSS JOIN LATERAL (
                    (
                        SELECT third_party_id, hop.round AS round FROM kanikojobs_kanikojob job
                        WHERE {_DUE} AND priority = %(priority)s
                          AND job.third_party_id > hop.third_party_id
                        ORDER BY third_party_id LIMIT 1
                    ) UNION ALL (
                        SELECT third_party_id, 1 FROM kanikojobs_kanikojob job
                        WHERE {_DUE} AND priority = %(priority)s AND hop.round = 0
                        ORDER BY third_party_id LIMIT 1
                    )
                    ORDER BY round LIMIT 1
                ) following
                LEFT JOIN cap ON cap.third_party_id = following.third_party_id
                CROSS JOIN LATERAL (
                    SELECT COALESCE(cap.most, %(cap)s)
                        - COALESCE((%(taken)s::jsonb ->> following.third_party_id)::bigint, 0) AS free
                ) room
                WHERE hop.met < %(most)s
                  AND (following.round = 0 OR following.third_party_id <= (SELECT third_party_id FROM last))
            ), candidate AS (
                SELECT first.id, hop.position,
                       row_number() OVER (PARTITION BY hop.position ORDER BY first.id) AS turn
                FROM hop CROSS JOIN LATERAL (
                    SELECT id FROM kanikojobs_kanikojob job
                    WHERE {_DUE}
                      AND job.priority = %(priority)s AND job.third_party_id = hop.third_party_id
                    ORDER BY id LIMIT LEAST(hop.free, ceil(%(most)s::float / (SELECT max(met) FROM hop)))
                    FOR UPDATE SKIP LOCKED
                ) first
                WHERE hop.position > 0 AND hop.free > 0
            ), chosen AS (
                SELECT id, turn, position FROM candidate ORDER BY turn, position LIMIT %(most)s
            ), claimed AS (
                UPDATE kanikojobs_kanikojob job SET
                    state = 'creating', claim = %(token)s, creating_at = clock_timestamp(),
                    leased_until = clock_timestamp() + make_interval(secs => %(lease)s)
                FROM chosen WHERE job.id = chosen.id
                RETURNING job.id, job.third_party_id, chosen.turn, chosen.position
            ), moved_on AS (
                INSERT INTO kanikojobs_turn (priority, third_party_id)
                SELECT %(priority)s, third_party_id FROM claimed ORDER BY turn DESC, position DESC LIMIT 1
                ON CONFLICT (priority) DO UPDATE SET third_party_id = excluded.third_party_id
            )
            SELECT id, third_party_id FROM claimed ORDER BY turn, position
            """,  # noqa: S608 - a literal
            {
                "priority": priority,
                "most": most,
                "taken": json.dumps(taken),
                "cap": settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY or UNLIMITED,
                "unlimited": UNLIMITED,
                "token": str(token),
                "lease": lease.total_seconds(),
            },
        )
        return dict(cursor.fetchall())


def seconds_until_due() -> float | None:
    """How long until the next Kaniko Job that waits for its time is due, by the database's clock."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT extract(epoch FROM min(run_at) - clock_timestamp())::float8
            FROM kanikojobs_kanikojob WHERE run_at IS NOT NULL
            """
        )
        seconds = cursor.fetchone()[0]
        return None if seconds is None else max(0.0, seconds)


def release(*, token: UUID, kaniko_jobs: Sequence[int] | None = None) -> int:
    """Give claimed rows back unused, these or all of the claim: they are due again at once. Return how many."""
    rows = KanikoJob.objects.filter(state=State.CREATING, claim=token)
    if kaniko_jobs is not None:
        rows = rows.filter(id__in=kaniko_jobs)
    return rows.update(state=State.QUEUED, claim=None, leased_until=None)
