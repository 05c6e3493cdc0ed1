"""What may go, and when: each kind of rows with its condition, and with what goes or is emptied along with it.

Nothing unfinished goes, and nothing that somebody may still act on: no open dead letter, no event with one, no outcome
that is not told yet, not the last word on whether consuming is paused. The counters of all time stay for ever.

An event's identity goes with it, and with that the knowledge that it was built. So it stays while the message may come
again: `kanikojobs.checks` holds KANIKOJOBS_KEEP_EVENTS against the broker's time to live, and a dead letter that can be
replayed keeps the event of its identity, whether it points to the row or only names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Along:
    """Rows of another table that go with those that they point to; with `of_jobs`, to those rows' Kaniko Jobs."""

    kind: str
    table: str
    column: str
    of_jobs: bool = False


@dataclass(frozen=True, slots=True)
class Emptied:
    """A column of rows that stay, which pointed to what goes."""

    table: str
    column: str
    of_jobs: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of rows. `goes` is the condition in SQL on the row `it`.

    `born` is a time in the row that rises with its id, as far as clocks do: where all rows are younger than the limit,
    so are those behind them, and nothing more is looked at. `kept` is its age's key in `kanikojobs.retention.ages`.
    """

    name: str
    kept: str
    table: str
    born: str
    goes: str
    along: Sequence[Along] = ()
    emptied: Sequence[Emptied] = ()


_OLD_LETTER = """
    {it}.state <> 'open' AND COALESCE({it}.settled_at, {it}.last_died_at) < %(dead_letters)s::timestamptz
    AND NOT EXISTS (
        SELECT FROM kanikojobs_replayitem item JOIN kanikojobs_replayrun run ON run.id = item.run_id
        WHERE item.letter_id = {it}.id AND run.finished_at IS NULL
    )
"""
# A discarded one can be restored, and then replayed.
_LETTER_TO_BE_REPLAYED = f"letter.state <> 'replayed' AND NOT ({_OLD_LETTER.format(it='letter')})"

_KANIKO_JOB_WITHOUT_OPEN_LETTER = """
    EXISTS (
        SELECT FROM kanikojobs_kanikojob job
        WHERE job.id = it.kaniko_job_id AND job.finished_at < %({kept})s::timestamptz
    )
    AND NOT EXISTS (
        SELECT FROM kanikojobs_deadletter letter WHERE letter.kaniko_job_id = it.kaniko_job_id AND letter.state = 'open'
    )
"""

_KINDS = (
    Kind(
        name="logs",
        kept="logs",
        table="kanikojobs_containerlog",
        born="captured_at",
        goes=f"it.captured_at < %(logs)s::timestamptz AND {_KANIKO_JOB_WITHOUT_OPEN_LETTER.format(kept='logs')}",
    ),
    Kind(
        name="attempts",
        kept="attempts",
        table="kanikojobs_jobattempt",
        born="started_at",
        goes=f"it.started_at < %(attempts)s::timestamptz AND {_KANIKO_JOB_WITHOUT_OPEN_LETTER.format(kept='attempts')}",
    ),
    Kind(
        name="outbox",
        kept="outbox",
        table="kanikojobs_outcomeevent",
        born="made_at",
        goes="it.published_at < %(outbox)s::timestamptz",
    ),
    Kind(
        name="dead-letters",
        kept="dead_letters",
        table="kanikojobs_deadletter",
        born="first_died_at",
        goes=_OLD_LETTER.format(it="it"),
        along=(Along("replay-items", "kanikojobs_replayitem", "letter_id"),),
    ),
    Kind(
        name="events",
        kept="events",
        table="kanikojobs_jobstartevent",
        born="received_at",
        goes=f"""
            it.last_seen_at < %(events)s::timestamptz
            AND NOT EXISTS (
                SELECT FROM kanikojobs_kanikojob job WHERE job.event_id = it.id
                  AND (job.finished_at IS NULL OR job.finished_at >= %(events)s::timestamptz)
            )
            AND NOT EXISTS (
                SELECT FROM kanikojobs_kanikojob job
                JOIN kanikojobs_outcomeevent outcome ON outcome.kaniko_job_id = job.id
                WHERE job.event_id = it.id AND outcome.published_at IS NULL
            )
            AND NOT EXISTS (
                SELECT FROM kanikojobs_deadletter letter WHERE letter.event_id = it.id AND {_LETTER_TO_BE_REPLAYED}
            )
            AND NOT EXISTS (
                SELECT FROM kanikojobs_deadletter letter
                WHERE letter.ce_id <> '' AND letter.ce_id = it.event_id AND letter.ce_source = it.source
                  AND {_LETTER_TO_BE_REPLAYED}
            )
        """,  # noqa: S608 - of the literals above
        emptied=(
            Emptied("kanikojobs_deadletter", "event_id"),
            Emptied("kanikojobs_deadletter", "replayed_as_id"),
            Emptied("kanikojobs_deadletter", "kaniko_job_id", of_jobs=True),
            Emptied("kanikojobs_deadletter", "replayed_as_job_id", of_jobs=True),
            Emptied("kanikojobs_replayitem", "event_id"),
            Emptied("kanikojobs_replayitem", "kaniko_job_id", of_jobs=True),
        ),
        along=(
            Along("attempts", "kanikojobs_jobattempt", "kaniko_job_id", of_jobs=True),
            Along("logs", "kanikojobs_containerlog", "kaniko_job_id", of_jobs=True),
            Along("evidence", "kanikojobs_jobevidence", "kaniko_job_id", of_jobs=True),
            Along("outbox", "kanikojobs_outcomeevent", "kaniko_job_id", of_jobs=True),
            Along("drift", "kanikojobs_drift", "kaniko_job_id", of_jobs=True),
            Along("kaniko-jobs", "kanikojobs_kanikojob", "event_id"),
        ),
    ),
    Kind(
        # What has a Kaniko Job goes with it.
        name="drift",
        kept="events",
        table="kanikojobs_drift",
        born="found_at",
        goes="it.found_at < %(events)s::timestamptz AND it.kaniko_job_id IS NULL",
    ),
    Kind(
        name="tallies",
        kept="tallies",
        table="kanikojobs_tally",
        # Those of all time are as old as the epoch, and stay: they are the counters.
        born="CASE WHEN it.span <> 'all' THEN it.since END",
        goes="it.span <> 'all' AND it.since < %(tallies)s::timestamptz",
    ),
    Kind(
        name="trends",
        kept="tallies",
        table="kanikojobs_failuregrouphour",
        born="hour",
        goes="it.hour < %(tallies)s::timestamptz",
    ),
    Kind(
        name="replays",
        kept="audit",
        table="kanikojobs_replayrun",
        born="started_at",
        goes=f"""
            it.finished_at < %(audit)s::timestamptz AND NOT EXISTS (
                SELECT FROM kanikojobs_replayitem item JOIN kanikojobs_deadletter letter ON letter.id = item.letter_id
                WHERE item.run_id = it.id AND NOT ({_OLD_LETTER.format(it="letter")})
            )
        """,
        along=(Along("replay-items", "kanikojobs_replayitem", "run_id"),),
    ),
    Kind(
        name="failure-groups",
        kept="audit",
        table="kanikojobs_failuregroup",
        born="first_seen_at",
        goes=f"""
            it.last_seen_at < %(audit)s::timestamptz AND it.open_letters = 0 AND NOT EXISTS (
                SELECT FROM kanikojobs_deadletter letter
                WHERE letter.fingerprint = it.fingerprint AND NOT ({_OLD_LETTER.format(it="letter")})
            )
        """,
        along=(Along("trends", "kanikojobs_failuregrouphour", "group_id"),),
    ),
    Kind(
        name="outages",
        kept="audit",
        table="kanikojobs_outage",
        born="started_at",
        goes="it.ended_at < %(audit)s::timestamptz",
    ),
    Kind(
        name="audit",
        kept="audit",
        table="kanikojobs_operatoraction",
        born="at",
        # The last pause or resumption is the state itself (`kanikojobs.pausing`).
        goes="""
            it.at < %(audit)s::timestamptz AND it.id IS DISTINCT FROM (
                SELECT max(id) FROM kanikojobs_operatoraction WHERE kind IN ('pause-consumer', 'resume-consumer')
            )
        """,
    ),
    Kind(
        name="prune-runs",
        kept="audit",
        table="kanikojobs_prunerun",
        born="started_at",
        goes="it.finished_at < %(audit)s::timestamptz",
    ),
)
# In the order in which they are pruned: what others wait for goes before them.
KINDS = {kind.name: kind for kind in _KINDS}

NAMES = tuple(dict.fromkeys(name for kind in _KINDS for name in (*(also.kind for also in kind.along), kind.name)))
