"""What was seen of Jobs becomes states of rows: many Jobs in one transaction, each by compare-and-swap.

Whoever else moves a row (a worker, an operator) may be first; then what they found stands. With the states go, in the
same transaction, what is known of the ends (`evidence`), the counts, and the news for the queue that a place is free.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from django.conf import settings
from django.db import DataError, IntegrityError, connection, transaction

from kanikojobs import claims, dead_letters, durations, evidence, sweeping, tallies
from kanikojobs.evidence import Note, Wanted
from kanikojobs.judging import Judgement, Row, judge
from kanikojobs.leader import Leadership
from kanikojobs.models import KanikoJob, Move
from kanikojobs.observed import Pod
from kanikojobs.states import FINISHED, State
from kanikojobs.tracking import Tracked

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Applied:
    """What came of a batch, and what is to be done next.

    `read_first` are Jobs whose log is needed to tell the reason; `ask_pods` such whose pods have not said how they
    ended; `again` such to be looked at once more; `captures` such whose logs are to be kept; `stop` such that run
    although their row is cancelled.
    `settled` need not be followed any more.
    """

    moved: Counter[State] = field(default_factory=Counter)
    settled: list[str] = field(default_factory=list)
    read_first: list[tuple[str, Wanted]] = field(default_factory=list)
    ask_pods: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)
    captures: list[tuple[int, Wanted]] = field(default_factory=list)
    stop: list[tuple[str, str]] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)


@dataclass(slots=True)
class _Plan:
    moves: dict[int, Move] = field(default_factory=dict)
    explain: dict[int, tuple[str, str]] = field(default_factory=dict)
    notes: dict[int, Note] = field(default_factory=dict)
    wanted: dict[int, Wanted] = field(default_factory=dict)
    tracked: dict[int, Tracked] = field(default_factory=dict)
    vanished: list[Row] = field(default_factory=list)
    unknown: list[Tracked] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)


def apply(batch: Mapping[str, Tracked], *, leadership: Leadership) -> Applied:
    """Bring the rows of these Jobs up to what was seen of them.

    Raises `LostLeadership`, and `OperationalError` or `InterfaceError` when the database is away; then nothing is
    written.
    """
    try:
        return _apply(batch, leadership=leadership)
    except (DataError, IntegrityError) as error:
        # Something in one of them cannot be stored. Its neighbours must not wait for it.
        if len(batch) == 1:
            log.exception("job-cannot-be-applied", kaniko_job=next(iter(batch)), error=type(error).__name__)
            return Applied(settled=list(batch))
        names = list(batch)
        applied = Applied()
        for half in (names[: len(names) // 2], names[len(names) // 2 :]):
            part = apply({name: batch[name] for name in half}, leadership=leadership)
            applied.moved += part.moved
            for name in ("settled", "read_first", "ask_pods", "again", "captures", "stop"):
                getattr(applied, name).extend(getattr(part, name))
            applied.rows |= part.rows
        return applied


def _apply(batch: Mapping[str, Tracked], *, leadership: Leadership) -> Applied:
    applied, plan = Applied(), _Plan()
    with transaction.atomic():
        leadership.check()
        applied.rows = rows_of(list(batch))
        for name, tracked in batch.items():
            row = applied.rows.get(name)
            if row is None:
                _without_row(name, tracked, plan=plan, applied=applied)
            elif row.state in FINISHED:
                _finished_already(row, tracked, applied=applied)
            else:
                _act_on(judge(row, tracked), row=row, tracked=tracked, plan=plan, applied=applied)
        tallies.add(_write(plan, applied=applied))
    for row in applied.rows.values():
        if row.id in plan.finished:
            move = plan.moves[row.id]
            log.info(
                "job-finished",
                event_id=row.event_id,
                correlation_id=row.correlation_id,
                trace_id=row.trace_id,
                kaniko_job=row.name,
                number=row.number,
                node=move.node,
                state=move.to.value,
                reason=move.reason,
            )
    return applied


def rows_of(names: Sequence[str]) -> dict[str, Row]:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT job.id, job.name, job.state, job.reason, job.message, job.job_uid, job.cancel_requested_at,
                   job.number, event.event_id, event.correlation_id, event.trace_id
            FROM kanikojobs_kanikojob job JOIN kanikojobs_jobstartevent event ON event.id = job.event_id
            WHERE job.namespace = %s AND job.name = ANY (%s)
            """,
            [settings.KANIKOJOBS_NAMESPACE, list(names)],
        )
        return {row[1]: Row(row[0], row[1], State(row[2]), *row[3:]) for row in cursor.fetchall()}


def _without_row(name: str, tracked: Tracked, *, plan: _Plan, applied: Applied) -> None:
    if tracked.job is None:
        return
    if not tracked.gone:
        plan.unknown.append(tracked)
    applied.settled.append(name)


def _finished_already(row: Row, tracked: Tracked, *, applied: Applied) -> None:
    job = tracked.job
    if row.state == State.CANCELLED and job and not job.end and not job.terminating and not tracked.gone:
        applied.stop.append((row.name, job.uid))
    applied.settled.append(row.name)


def _act_on(judgement: Judgement, *, row: Row, tracked: Tracked, plan: _Plan, applied: Applied) -> None:
    if judgement.ask_pods:
        applied.ask_pods.append(row.name)
    if judgement.again:
        applied.again.append(row.name)
    if judgement.read and not tracked.reading:
        applied.read_first.append((row.name, _wanted(row, tracked)))
    if judgement.explain is not None:
        plan.explain[row.id] = judgement.explain
    if judgement.move is not None:
        plan.moves[row.id] = judgement.move
        plan.tracked[row.id] = tracked
        if judgement.move.to in FINISHED:
            found = judgement.found
            plan.notes[row.id] = Note(row.id, found.digest, found.exit_code, _pods_of(row, tracked))
            plan.wanted[row.id] = _wanted(row, tracked)
        if judgement.move.reason == "JobVanished":
            plan.vanished.append(row)


def _pods_of(row: Row, tracked: Tracked) -> list[Pod]:
    """The pods of the row's own Job: another one can have taken its name."""
    own = tracked.job is None or row.job_uid is None or str(row.job_uid) == tracked.job.uid
    return tracked.pods_in_order() if own else []


def _wanted(row: Row, tracked: Tracked) -> Wanted:
    uid = row.job_uid or (tracked.job.uid if tracked.job else "")
    return Wanted.of(name=row.name, uid=str(uid), pods=_pods_of(row, tracked))


def _write(plan: _Plan, *, applied: Applied) -> dict[str, tallies.Increment]:
    counts: Counter[str] = Counter()
    moved = KanikoJob.objects.move(plan.moves.values())
    KanikoJob.objects.note_waits(plan.explain)
    plan.finished = finished = [id for id in moved if plan.moves[id].to in FINISHED]
    evidence.note(plan.notes[id] for id in finished)
    for id in finished:
        tracked, move = plan.tracked[id], plan.moves[id]
        counts[f"finished/{move.to}" + (f"/{move.reason}" if move.reason else "")] += 1
        if tracked.captured is not None:
            evidence.record(id, tracked.captured, final=True)
        else:
            applied.captures.append((id, plan.wanted[id]))
        if tracked.job is not None:
            applied.settled.append(tracked.job.name)
    for id in moved:
        applied.moved[plan.moves[id].to] += 1
    counts.update(
        sweeping.report_vanished([(row.id, row.name, row.job_uid) for row in plan.vanished if row.id in moved])
    )
    counts.update(sweeping.report_unknown([tracked.job for tracked in plan.unknown if tracked.job]))
    if finished:
        free_places()
        dead_letters.record_failed_builds(
            {id: plan.moves[id].message for id in finished if plan.moves[id].to == State.FAILED}
        )
    return tallies.counts(counts) | durations.builds(finished)


def free_places() -> None:
    """Tell the queue, when this transaction commits, that there are places under the caps again."""
    claims.notify()
