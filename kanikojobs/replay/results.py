"""What became of what a run has queued: counted, and a reason to stop when too many fail again.

A replayed dead letter has passed when it got past the point where it died before: a failed build must succeed, for
anything else its Job must be in Kubernetes.
"""

from datetime import datetime, timedelta

from django.db import connection

from kanikojobs.models import ReplayRun

State = ReplayRun.State

# How long a probe, and the end of a run, wait for results that do not come.
PROBE_PATIENCE = timedelta(minutes=30)
SETTLING_PATIENCE = timedelta(minutes=30)
LOOK_AGAIN_AFTER = timedelta(seconds=1)
# Fewer results than these say nothing about a rate, unless the probe is smaller.
FEWEST_JUDGED = 5
MOST_LOOKED_AT = 2000


def collect(run: ReplayRun) -> int:
    """Write down new results of queued items; return how many of those looked at have none yet."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH looked_at AS (
                SELECT id, letter_id, kaniko_job_id FROM kanikojobs_replayitem
                WHERE run_id = %(run)s AND outcome = 'queued' AND result = '' ORDER BY id LIMIT %(most)s
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
            SELECT (SELECT count(*) FROM looked_at), count(*),
                   count(*) FILTER (WHERE result = 'passed'), count(*) FILTER (WHERE result = 'failed-again')
            FROM written
            """,
            {"run": run.pk, "most": MOST_LOOKED_AT},
        )
        looked_at, known, passed, failed = cursor.fetchone()
    run.passed += passed
    run.failed_again += failed
    return int(looked_at - known)


def begin_to_probe(run: ReplayRun, *, now: datetime) -> None:
    """The first items are out: take no more until it is known what became of them."""
    run.state = State.PROBING
    run.settle_until = now + PROBE_PATIENCE
    run.next_step_at = now


def begin_to_settle(run: ReplayRun, *, now: datetime) -> None:
    """All items are out: what is left is to see what becomes of them."""
    run.state = State.SETTLING
    run.settle_until = now + SETTLING_PATIENCE
    run.next_step_at = now


def look(run: ReplayRun) -> None:
    """A step of a run that waits for results."""
    unknown = collect(run)
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    impatient = run.settle_until is not None and now >= run.settle_until
    run.next_step_at = now + LOOK_AGAIN_AFTER
    if run.state == State.SETTLING:
        if not unknown or impatient:
            run.state, run.finished_at = State.FINISHED, now
            run.note = f"{unknown} have no result yet." if unknown else run.note
    elif unknown and impatient:
        run.state = State.PAUSED
        run.note = f"{unknown} of the probe have no result after {PROBE_PATIENCE}. Resume it if that is well."
    elif not unknown and not stopped_by_failures(run, probed=True):
        run.state, run.next_step_at = State.RUNNING, now
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
