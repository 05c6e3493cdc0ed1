"""Claiming due Kaniko Jobs: which are next, for whom, and for how long they are leased.

A claim takes rows in one `FOR UPDATE SKIP LOCKED` statement: the most urgent first, and the third parties of one
urgency in turn, so that one's ten thousand events do not starve another's only one. A claimed row is `creating` under
a lease. Whoever lost the lease moves nothing any more, and when it has run out the row is claimed again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from django.db import connection, transaction

from kanikojobs import tallies

# The channel on which the queue listens for due Kaniko Jobs.
CHANNEL = "kanikojobs_queued"

# Keys of PostgreSQL advisory locks are numbers; this one is "kjq" in ASCII.
CLAIM_LOCK = 0x6B6A71


def notify() -> None:
    """Wake the queues. PostgreSQL delivers it when the transaction commits, and not at all if it does not."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_notify(%s, '')", [CHANNEL])


@dataclass(frozen=True, slots=True)
class Claim:
    """Kaniko Jobs that are held under one token, in the order in which they are to be created."""

    token: UUID
    kaniko_jobs: tuple[int, ...]


def claim(*, most: int, lease: timedelta) -> Claim:
    """Claim up to so many due Kaniko Jobs for the length of a lease."""
    token = uuid4()
    parameters: dict[str, Any] = {"most": most, "token": token, "lease": lease}
    with transaction.atomic(), connection.cursor() as cursor:
        # One claim at a time: two that chose from the same rows would skip each other's and find too few, or, with
        # caps, both take the last free place. A statement of its own, because the next ones' snapshots must be
        # newer than the lock.
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIM_LOCK])
        cursor.execute(
            # What waited for its time is due. The index is as small as what waits, mostly empty.
            """
            UPDATE kanikojobs_kanikojob SET run_at = NULL WHERE id IN (
                SELECT id FROM kanikojobs_kanikojob WHERE run_at <= clock_timestamp() FOR UPDATE SKIP LOCKED
            )
            """
        )
        lost = _requeue_expired_leases()
        cursor.execute(
            # `heads` hops from one (priority, third party) to the next in the index of due rows: as many steps as
            # there are third parties waiting, however many rows each has.
            """
            WITH RECURSIVE heads (priority, third_party_id) AS (
                (
                    SELECT priority, third_party_id FROM kanikojobs_kanikojob
                    WHERE state = 'queued' AND run_at IS NULL ORDER BY priority, third_party_id LIMIT 1
                )
                UNION ALL
                SELECT following.priority, following.third_party_id FROM heads CROSS JOIN LATERAL (
                    SELECT priority, third_party_id FROM kanikojobs_kanikojob job
                    WHERE state = 'queued' AND run_at IS NULL
                      AND (job.priority, job.third_party_id) > (heads.priority, heads.third_party_id)
                    ORDER BY priority, third_party_id LIMIT 1
                ) following
            ), candidates AS (
                SELECT first.id, heads.priority,
                       row_number() OVER (PARTITION BY heads.priority, heads.third_party_id ORDER BY first.id) AS turn
                FROM heads CROSS JOIN LATERAL (
                    SELECT id FROM kanikojobs_kanikojob job
                    WHERE state = 'queued' AND run_at IS NULL
                      AND job.priority = heads.priority AND job.third_party_id = heads.third_party_id
                    ORDER BY id LIMIT %(most)s
                ) first
            ), chosen AS (
                SELECT job.id, candidates.priority, candidates.turn
                FROM candidates JOIN kanikojobs_kanikojob job USING (id)
                WHERE job.state = 'queued'
                ORDER BY candidates.priority, candidates.turn, job.id LIMIT %(most)s
                FOR UPDATE OF job SKIP LOCKED
            ), claimed AS (
                UPDATE kanikojobs_kanikojob job SET
                    state = 'creating', claim = %(token)s, leased_until = clock_timestamp() + %(lease)s,
                    creating_at = clock_timestamp()
                FROM chosen WHERE job.id = chosen.id
                RETURNING job.id, chosen.priority, chosen.turn
            )
            SELECT id FROM claimed ORDER BY priority, turn, id
            """,
            parameters,
        )
        claimed = tuple(row[0] for row in cursor.fetchall())
        tallies.add(tallies.counts({"creation/lost": lost}))
    return Claim(token=token, kaniko_jobs=claimed)


def _requeue_expired_leases() -> int:
    """What dead workers held is due again; return how many open attempts are lost with them."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH expired AS (
                UPDATE kanikojobs_kanikojob SET state = 'queued', claim = NULL, leased_until = NULL WHERE id IN (
                    SELECT id FROM kanikojobs_kanikojob
                    WHERE state = 'creating' AND leased_until <= clock_timestamp() FOR UPDATE SKIP LOCKED
                ) RETURNING id
            )
            UPDATE kanikojobs_jobattempt SET outcome = 'lost', finished_at = clock_timestamp(),
                reason = 'WorkerLost', message = 'The lease ran out before an answer was recorded.'
            WHERE kaniko_job_id IN (SELECT id FROM expired) AND outcome = 'started'
            """
        )
        return cursor.rowcount


def next_due_at() -> datetime | None:
    """When the next Kaniko Job that waits for its time is due."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT min(run_at) FROM kanikojobs_kanikojob WHERE run_at IS NOT NULL")
        return cursor.fetchone()[0]


def release(*, token: UUID, kaniko_jobs: Sequence[int]) -> None:
    """Give claimed rows back unused: they are due again at once."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_kanikojob SET state = 'queued', claim = NULL, leased_until = NULL
            WHERE id = ANY (%s) AND claim = %s AND state = 'creating'
            """,
            [list(kaniko_jobs), token],
        )
