"""What was seen of a Job, held against its row: what the row becomes, or what has to be known before that. Pure.

Jobs and pods come in two streams that know nothing of each other, and what comes close together is looked at together.
So whatever a judgement rests on is either in the objects as they are now or remembered by `kanikojobs.tracking`: the
same things seen in another order come to the same end.
"""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from kanikojobs import diagnosis, obstacles, retry
from kanikojobs.diagnosis import ENDING, NOTHING, Diagnosis, Read
from kanikojobs.models import Move
from kanikojobs.states import FINISHED, State
from kanikojobs.tracking import Tracked


@dataclass(frozen=True, slots=True)
class Row:
    """A Kaniko Job as far as the watcher cares."""

    id: int
    name: str
    state: State
    reason: str
    message: str
    job_uid: UUID | None
    cancel_requested_at: datetime | None
    number: int
    event_id: str
    correlation_id: str
    trace_id: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What is to be done about a row: a `move`, or an explanation (reason, message) of why it stays.

    `ask_pods` and `read` say that its pods' ends, or logs and Events, have to be known first; `again` that the row is
    not its own Job's yet and should be looked at a moment later. `found` is the diagnosis that a move comes from.
    """

    move: Move | None = None
    explain: tuple[str, str] | None = None
    ask_pods: bool = False
    read: bool = False
    again: bool = False
    found: Diagnosis = field(default_factory=Diagnosis)


def judge(row: Row, tracked: Tracked) -> Judgement:
    """What an unfinished row comes to by what is known of its Job."""
    job, pods = tracked.job, tracked.pods_in_order()
    if job is None:
        return Judgement()
    if row.job_uid is not None and str(row.job_uid) != job.uid:
        # The name is taken by another Job, so the row's own is gone; what is there now is not the row's.
        return _judged(row, diagnosis.vanished(), tracked=tracked, removed=True)
    if not tracked.pods_are_told and not tracked.asked:
        return Judgement(ask_pods=not tracked.asking)
    read = _read_of(tracked)
    if tracked.gone and not job.end:
        found = diagnosis.vanished(job, pods=pods, read=read)
    else:
        found = diagnosis.diagnose(job, pods=pods, read=read, noted=_waited_for(row, tracked))
    if found.needs_reading and not read.complete:
        return Judgement(read=True)
    return _judged(row, found, tracked=tracked, removed=tracked.gone or job.terminating)


def _judged(row: Row, found: Diagnosis, *, tracked: Tracked, removed: bool) -> Judgement:
    if found.state == State.FAILED and row.cancel_requested_at is not None and removed:
        # However it looks: it was taken away because somebody wanted that.
        move = retry.cancelled(id=row.id, reason=row.reason, message=row.message)
        found = Diagnosis(state=move.to, reason=move.reason, message=move.message, node=found.node)
    if found.state is None or found.state == row.state:
        return _waiting(row, found, tracked=tracked)
    move = Move(
        id=row.id,
        to=found.state,
        reason=found.reason,
        message=found.message,
        job_uid=row.job_uid or (UUID(tracked.job.uid) if tracked.job else None),
        at=found.at,
        ran_at=_ran_at(row, tracked) if found.state in FINISHED else None,
        node=found.node,
    )
    return Judgement(move=move, found=found)


def _ran_at(row: Row, tracked: Tracked) -> datetime | None:
    """When a pod of the row's own Job first ran. One that is over within a moment is often not seen to run."""
    if tracked.job is None or (row.job_uid is not None and str(row.job_uid) != tracked.job.uid):
        return None
    containers = (container for pod in tracked.pods_in_order() for container in pod.containers)
    return min((container.started_at for container in containers if container.started_at), default=None)


def _waiting(row: Row, found: Diagnosis, *, tracked: Tracked) -> Judgement:
    if row.cancel_requested_at is not None or (found.reason, found.message) == (row.reason, row.message):
        return Judgement()
    if row.state not in (State.CREATED, State.RUNNING):
        # The Job was seen before its worker wrote that it is there. Until then there is nothing to explain it on.
        return Judgement(again=bool(found.reason))
    # A wait that ended says nothing any more. Silence takes nothing back, though: neither what only an Event told, nor
    # what held up a pod that is ending. Its end can come before the Job's, which then asks what it waited for.
    silent = not found.reason and all(pod.over or pod.terminating for pod in tracked.pods.values())
    if silent or (found.reason == ENDING and row.state == State.CREATED):
        return Judgement()
    return Judgement(explain=(found.reason, found.message))


def _waited_for(row: Row, tracked: Tracked) -> tuple[str, str]:
    """What it waited for, if nothing of it ever ran: as its pods have said last, or else as the row has it."""
    if tracked.ran or row.state == State.RUNNING:
        return NOTHING
    if tracked.wait is not None:
        return tracked.wait
    noted = row.state == State.CREATED and row.cancel_requested_at is None
    return (row.reason, row.message) if noted else NOTHING


def _read_of(tracked: Tracked) -> Read:
    captured = tracked.captured
    if captured is None:
        return Read(logs=tracked.rescued, complete=tracked.overdue)
    return Read(
        logs=tracked.rescued | {place: tail.text for place, tail in captured.logs.items()},
        refused=obstacles.told_by_events(captured.events),
        complete=True,
    )
