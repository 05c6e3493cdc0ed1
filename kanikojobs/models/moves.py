"""How a Kaniko Job goes from one state to the next: by compare-and-swap, many rows in one statement."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db import connection, models

from kanikojobs import lines, tracing
from kanikojobs.cursors import binding_cursor
from kanikojobs.models.outbox import OutcomeEvent
from kanikojobs.states import FINISHED, TRANSITIONS, UNFINISHED, State
from kanikojobs.storable import printable

if TYPE_CHECKING:
    from kanikojobs.models.jobs import KanikoJob  # noqa: F401 - in quotes below


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a Kaniko Job to another state, with what is learned on the way.

    `claim` restricts it to a row that is still claimed under that token: a worker whose lease ran out moves nothing.
    `run_at` is when a row that goes back to `queued` is due again. `spend_retry` counts it against MAX_RETRIES.
    `may_exist` says of one that goes back that its Job may be in the cluster all the same.
    `at` is when it happened in Kubernetes, which counts where we learn of it late. `ran_at` is when a Job that has
    ended began to run, for one that nobody saw run. `node` is where the pod runs.
    """

    id: int
    to: State
    reason: str = ""
    message: str = ""
    job_uid: UUID | None = None
    claim: UUID | None = None
    run_at: datetime | None = None
    spend_retry: bool = False
    may_exist: bool = False
    at: datetime | None = None
    ran_at: datetime | None = None
    node: str = ""


class KanikoJobQuerySet(models.QuerySet["KanikoJob"]):
    def unfinished(self) -> "KanikoJobQuerySet":
        return self.filter(state__in=UNFINISHED)

    def move(self, moves: Iterable[Move]) -> set[int]:
        """Move Kaniko Jobs by compare-and-swap, in one statement; return the ids of those that moved.

        A row that is missing from the answer was not in a state that allows the move (or not under the claim
        that was named): somebody else moved it first, and what they found stands.
        """
        # One order for everybody: two that move the same rows the other way round would deadlock.
        moves = sorted(moves, key=lambda move: move.id)
        if not moves:
            return set()
        allowed = [f"{old}>{new}" for old, targets in TRANSITIONS.items() for new in targets]
        with binding_cursor() as cursor:
            # The test of the old state is in the UPDATE's WHERE, not before it: two workers, a watcher and an
            # operator can all reach this row at once, and PostgreSQL rechecks WHERE after waiting for a lock.
            cursor.execute(
                """
                UPDATE kanikojobs_kanikojob job SET
                    state = move.new_state,
                    -- Why it is to be cancelled is not forgotten on the way there.
                    reason = CASE WHEN job.cancel_requested_at IS NOT NULL AND move.new_state <> ALL (%s::text[])
                        THEN job.reason ELSE move.reason END,
                    message = CASE WHEN job.cancel_requested_at IS NOT NULL AND move.new_state <> ALL (%s::text[])
                        THEN job.message ELSE move.message END,
                    job_uid = COALESCE(move.job_uid, job.job_uid),
                    retries_used = job.retries_used + move.spend_retry::int,
                    run_at = CASE WHEN move.new_state = 'queued' THEN move.run_at END,
                    may_exist = move.new_state = 'queued' AND (job.may_exist OR move.may_exist),
                    claim = CASE WHEN move.new_state = 'creating' THEN job.claim END,
                    leased_until = CASE WHEN move.new_state = 'creating' THEN job.leased_until END,
                    created_at = CASE
                        WHEN move.new_state IN ('created', 'running', 'succeeded')
                        THEN COALESCE(job.created_at, clock_timestamp()) ELSE job.created_at END,
                    node = COALESCE(NULLIF(move.node, ''), job.node),
                    running_at = CASE
                        WHEN job.running_at IS NOT NULL THEN job.running_at
                        WHEN move.new_state = 'running' THEN happened.at
                        -- Written in whole seconds, so it can seem to be before the Job was created.
                        WHEN move.ran_at IS NOT NULL THEN LEAST(happened.at, GREATEST(move.ran_at, job.created_at)) END,
                    finished_at = CASE
                        WHEN move.new_state IN ('succeeded', 'failed', 'cancelled') THEN happened.at END
                FROM unnest(
                    %s::bigint[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::uuid[],
                    %s::timestamptz[], %s::boolean[], %s::boolean[], %s::timestamptz[], %s::timestamptz[], %s::text[]
                ) AS move (
                    id, new_state, reason, message, job_uid, claim, run_at, spend_retry, may_exist, at, ran_at, node
                )
                -- Kubernetes writes whole seconds, so its time counts only where we learn of it later than that.
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN move.at < clock_timestamp() - interval '5 seconds'
                                THEN move.at ELSE clock_timestamp() END AS at
                ) happened
                WHERE job.id = move.id
                  AND job.state || '>' || move.new_state = ANY (%s::text[])
                  AND (move.claim IS NULL OR job.claim = move.claim)
                RETURNING job.id, job.finished_at IS NOT NULL, job.place > 0
                """,
                [
                    list(FINISHED),
                    list(FINISHED),
                    [move.id for move in moves],
                    [move.to.value for move in moves],
                    # Much of it is somebody else's words, of which one NUL would fail the moves of all.
                    [printable(move.reason)[:64] for move in moves],
                    [printable(move.message) for move in moves],
                    [move.job_uid for move in moves],
                    [move.claim for move in moves],
                    [move.run_at for move in moves],
                    [move.spend_retry for move in moves],
                    [move.may_exist for move in moves],
                    [move.at for move in moves],
                    [move.ran_at for move in moves],
                    [move.node for move in moves],
                    allowed,
                ],
            )
            rows = cursor.fetchall()
        lines.move_up({id for id, finished, in_a_line in rows if finished and in_a_line})
        if settings.KANIKOJOBS_OUTCOME_EVENTS:
            OutcomeEvent.objects.bulk_create([OutcomeEvent(kaniko_job_id=id) for id, finished, _ in rows if finished])
        tracing.finished([id for id, finished, _ in rows if finished])
        return {id for id, _, _ in rows}

    def note_waits(self, reasons: Mapping[int, tuple[str, str]]) -> None:
        """Say why Jobs that are in Kubernetes wait: a (reason, message) by id, both empty when they do no more."""
        ids = sorted(reasons)
        if not ids:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE kanikojobs_kanikojob job SET reason = why.reason, message = why.message
                FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS why (id, reason, message)
                WHERE job.id = why.id AND job.state IN ('created', 'running')
                """,
                [ids, [reasons[id][0] for id in ids], [reasons[id][1] for id in ids]],
            )
