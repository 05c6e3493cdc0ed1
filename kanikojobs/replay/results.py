"""What became of what a run has queued: counted, and a reason to stop when too many fail again.

A replayed dead letter has passed when it got past the point where it died before: a failed build must succeed, for
anything else its Job must be in Kubernetes.
"""

from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection

from kanikojobs.database_time import now
from kanikojobs.models import ReplayItem, ReplayRun

State = ReplayRun.State

# Besides the longest build: how long one may wait for its turn before it counts as one without a result.
WAITING_PATIENCE = timedelta(minutes=30)
LOOK_AGAIN_AFTER = timedelta(seconds=1)
# Fewer results than these say nothing about a rate, unless the probe is smaller.
FEWEST_JUDGED = 5
MOST_LOOKED_AT = 5000


def collect(run: ReplayRun) -> None:
    """Write down new results of queued items: of so many at a time, from where the last look ended, round and round.

    Else those that come first and take hours would hide what became of all that come after them.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH looked_at AS (
                SELECT id, letter_id, kaniko_job_id FROM kanikojobs_replayitem
                WHERE run_id = %(run)s AND outcome = 'queued' AND result = '' AND id > %(after)s
                ORDER BY id LIMIT %(most)s
            ), known AS (
                SELECT looked_at.id, CASE
                    WHEN job.id IS NULL OR job.state = 'cancelled' THEN 'cancelled'
                    WHEN job.state = 'failed' THEN 'failed-again'
                    WHEN job.state = 'succeeded' THEN 'passed'
                    WHEN letter.cause <> 'build-failed' AND job.state IN ('created', 'running') THEN 'passed'
                    END AS result
                FROM looked_at JOIN kanikojobs_deadletter letter ON letter.id = looked_at.letter_id
                LEFT JOIN kanikojobs_kanikojob job ON job.id = looked_at.kaniko_job_id
            ), written AS (
                UPDATE kanikojobs_replayitem item SET result = known.result
                FROM known WHERE known.result IS NOT NULL AND item.id = known.id
                RETURNING item.result
            )
            SELECT count(*) FILTER (WHERE result = 'passed'), count(*) FILTER (WHERE result = 'failed-again'),
                   (SELECT CASE WHEN count(*) = %(most)s THEN max(id) ELSE 0 END FROM looked_at)
            FROM written
            """,
            {"run": run.pk, "after": run.looked_up_to, "most": MOST_LOOKED_AT},
        )
        passed, failed, run.looked_up_to = cursor.fetchone()
    run.passed += passed
    run.failed_again += failed


def unknown(run: ReplayRun) -> int:
    """Of how many queued items it is not known yet what became of them."""
    return run.items.filter(outcome=ReplayItem.Outcome.QUEUED, result="").count()


def begin_to_probe(run: ReplayRun, *, at: datetime) -> None:
    """The first items are out: take no more until it is known what became of them."""
    run.state = State.PROBING
    run.settle_until = at + patience(run)
    run.next_step_at = at


def begin_to_settle(run: ReplayRun, *, at: datetime) -> None:
    """All items are out: what is left is to see what becomes of them."""
    run.state = State.SETTLING
    run.settle_until = at + patience(run)
    run.next_step_at = at


def patience(run: ReplayRun) -> timedelta:
    """How long a probe, and the end of a run, wait for results. A rule's next run waits for the end of its last: that
    one build hangs is not to keep it from going on."""
    longest_build = timedelta(seconds=settings.KANIKOJOBS_MAX_BUILD_TIMEOUT)
    return WAITING_PATIENCE if run.rule_id else WAITING_PATIENCE + longest_build


def is_probe_out(run: ReplayRun) -> bool:
    """Whether its first items are out, the rest is not, and nobody has said yet that the rest may follow."""
    return 0 < run.probe == run.handled < run.total and run.settle_until is not None


def look(run: ReplayRun) -> None:
    """A step of a run that waits for results."""
    collect(run)
    left, moment = unknown(run), now()
    impatient = run.settle_until is not None and moment >= run.settle_until
    run.next_step_at = moment + LOOK_AGAIN_AFTER
    if run.state == State.SETTLING:
        if not left or impatient:
            run.state, run.finished_at = State.FINISHED, moment
            run.note = f"{left} have no result yet." if left else run.note
    elif left and impatient:
        # Whoever resumes it has decided not to wait for the probe.
        run.state, run.settle_until = State.PAUSED, None
        run.note = f"{left} of the probe have no result after {patience(run)}. Resume it if that is well."
    elif not left and not stopped_by_failures(run, probed=True):
        run.state, run.settle_until, run.next_step_at = State.RUNNING, None, moment
    run.save()


def stopped_by_failures(run: ReplayRun, *, probed: bool = False) -> bool:
    """Pause a run of which more fail again than it allows; return whether it was paused."""
    if run.max_failure_rate is None:
        return False
    judged = run.judged - run.forgiven_judged
    failures = run.failures - run.forgiven_failures
    if not judged or (judged < FEWEST_JUDGED and not probed):
        return False
    percent = 100 * failures / judged
    if percent <= run.max_failure_rate:
        return False
    run.state = State.PAUSED
    run.note = (
        f"Stopped by itself: {failures} of {judged} failed again ({percent:.0f}%), "
        f"and {run.max_failure_rate:g}% may. Look at them before you resume it."
    )
    return True
