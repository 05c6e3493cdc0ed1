"""Taking the next items of a run, in steps: each is one transaction that makes what it says it made.

A step is due at the run's `next_step_at`, which is also its token: whoever claims a due step moves that time, and the
step is taken only under the time that its claimer wrote. A process that dies between the two leaves the run due again
a few seconds later; one that dies within the transaction leaves nothing. So it does not matter who drives, how many
at once, or how often they are killed.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.db import connection, transaction

from kanikojobs import claims
from kanikojobs.database_time import now
from kanikojobs.models import ReplayRun
from kanikojobs.replay import handling, results
from kanikojobs.replay.forecast import Outcome

log = structlog.get_logger(__name__)

State = ReplayRun.State

# How long a claimed step may wait for a worker before it is due again.
CLAIM_LEASE = timedelta(seconds=5)
# A run with a rate is handed over in this many steps per second at most: smooth, and not a transaction per item.
STEPS_PER_SECOND = 2
# A run that fell behind (a restart, a slow database) catches up by no more than this.
MOST_CATCHING_UP = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class DueStep:
    """A claimed step of a run, the time that proves the claim, and the time that it was due at."""

    run_id: int
    token: datetime
    due_at: datetime


def claim_due(*, most: int = 10, run_id: int | None = None) -> list[DueStep]:
    """Claim the steps that are due, or the one of this run."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            UPDATE kanikojobs_replayrun run SET next_step_at = clock_timestamp() + %(lease)s::interval FROM (
                SELECT id, next_step_at FROM kanikojobs_replayrun
                WHERE state IN ('running', 'probing', 'settling') AND next_step_at <= clock_timestamp()
                  AND (%(run)s::bigint IS NULL OR id = %(run)s)
                ORDER BY next_step_at LIMIT %(most)s FOR UPDATE SKIP LOCKED
            ) due WHERE run.id = due.id RETURNING run.id, run.next_step_at, due.next_step_at
            """,
            {"lease": f"{CLAIM_LEASE.total_seconds()} seconds", "run": run_id, "most": most},
        )
        return [DueStep(*claimed) for claimed in cursor.fetchall()]


def seconds_until_due() -> float | None:
    """How long until the next step of any run is due; None if no run is going."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT EXTRACT(epoch FROM min(next_step_at) - clock_timestamp())::float8 FROM kanikojobs_replayrun
            WHERE state IN ('running', 'probing', 'settling')
            """
        )
        seconds: float | None = cursor.fetchone()[0]
        return seconds


def advance(due: DueStep, *, seconds: float = 0.0) -> ReplayRun | None:
    """Take a claimed step, and those that are due right after it for so many seconds; return the run after them.

    None if the claim was lost: somebody else goes on, or the run is paused, cancelled or finished.
    """
    stop_at = time.monotonic() + seconds
    run = step(due)
    while run is not None and run.is_live and time.monotonic() < stop_at:
        following = claim_due(run_id=run.pk)
        if not following:
            break
        run = step(following[0]) or run
    return run


def first_step(run: ReplayRun) -> ReplayRun:
    """Take the first step of a run at once, for whoever waits for a short one; the rest is the cluster's."""
    for due in claim_due(run_id=run.pk):
        run = step(due) or run
    return run


def step(due: DueStep) -> ReplayRun | None:
    """Take the next items of a run, or look what became of them: one transaction."""
    with transaction.atomic():
        run = (
            ReplayRun.objects.select_for_update()
            .filter(pk=due.run_id, state__in=ReplayRun.LIVE, next_step_at=due.token)
            .first()
        )
        if run is None:
            return None
        if run.state == State.RUNNING:
            _take(run, due_at=due.due_at)
        else:
            results.look(run)
    return run


def _take(run: ReplayRun, *, due_at: datetime) -> None:
    size = _size(run)
    items = list(run.items.filter(outcome=Outcome.PENDING).order_by("position")[:size])
    counted = handling.handle(run, items)
    run.handled += len(items)
    for outcome, count in counted.items():
        name = outcome.value.replace("-", "_")
        setattr(run, name, getattr(run, name) + count)
    results.collect(run)
    moment = now()
    if len(items) < size or run.handled >= run.total:
        results.begin_to_settle(run, at=moment)
    elif run.handled == run.probe:
        results.begin_to_probe(run, at=moment)
    elif not results.stopped_by_failures(run):
        pause = timedelta(seconds=len(items) / run.rate) if run.rate else timedelta()
        # From when it was due, not from when somebody came for it: else every step would be a little later.
        run.next_step_at = max(due_at + pause, moment - MOST_CATCHING_UP)
    run.save()
    log.info("replay-step", run=run.pk, state=run.state, **{str(outcome): n for outcome, n in counted.items()})
    if run.is_live:
        claims.notify()


def _size(run: ReplayRun) -> int:
    """How many items the next step takes: within the batch, the rate, and what is left of the probe."""
    size = run.batch
    if run.rate:
        size = min(size, max(1, round(run.rate / STEPS_PER_SECOND)))
    if run.handled < run.probe:
        size = min(size, run.probe - run.handled)
    return size
