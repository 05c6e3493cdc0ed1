"""What became of a Kaniko Job, and why: a Job, its pods and the end of a log give a state and a reason. Pure.

A reason is CamelCase as in Kubernetes conditions; `kanikojobs.advice` has a sentence for each of what to do about it.
The parts are modules of their own: `pushes` (whether the image was pushed decides over everything else), `obstacles`
(what keeps a pod from running) and `log_words` (what a container's last words say).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from kanikojobs.log_words import last_words
from kanikojobs.observed import Container, Job, Pod, oldest_first
from kanikojobs.obstacles import disruption_of, quoted, wait_of
from kanikojobs.pushes import digest_in, pushed_by, says_pushed, unproven
from kanikojobs.states import State


@dataclass(frozen=True, slots=True)
class Read:
    """What was read besides the statuses: logs by (pod, container), and what the Events say kept pods from running.

    `complete` means that all was tried; what is not in it then cannot be had.
    """

    logs: Mapping[tuple[str, str], str] = field(default_factory=dict)
    refused: tuple[str, str] | None = None
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of a Kaniko Job now.

    `state` is None while it waits; then `reason` says what for. `needs_reading` means that the state would be told
    better by logs or Events. `at` is when it happened, by Kubernetes' clock.
    """

    state: State | None = None
    reason: str = ""
    message: str = ""
    at: datetime | None = None
    node: str = ""
    digest: str = ""
    exit_code: int | None = None
    needs_reading: bool = False


NOTHING = ("", "")
ENDING = "Ending"
_UNREAD = Read()
# What a process ends with that is told to end, or is killed: 128 and the number of the signal.
_SIGNALLED = (143, 137)


def diagnose(job: Job, *, pods: Sequence[Pod], read: Read = _UNREAD, noted: tuple[str, str] = NOTHING) -> Diagnosis:
    """What a Job, its pods (those that are gone too, as they were last seen) and what was read come to.

    `noted` is the reason and the message with which the Kaniko Job was known to wait until now, if nothing of it ran:
    for the case that its pods tell no more.
    """
    pods = oldest_first(pods)
    if not job.end:
        return _unfinished(job, pods)
    before = f"The image was pushed before the Job failed with {job.reason}."
    if pushed := _pushed(job, pods=pods, read=read, message="" if job.end == "Complete" else before):
        return pushed
    if job.end == "Complete":
        return Diagnosis(state=State.SUCCEEDED, at=job.ended_at, node=_node(pods))
    found = _failed(job, pods=pods, read=read, noted=noted)
    return replace(found, needs_reading=not read.complete and (found.needs_reading or _may_have_pushed(pods)))


_NO_JOB = Job(name="", uid="")


def vanished(job: Job = _NO_JOB, *, pods: Sequence[Pod] = (), read: Read = _UNREAD) -> Diagnosis:
    """What a Job that is gone without having ended came to: its image may have been pushed before."""
    pods = oldest_first(pods)
    if pushed := _pushed(job, pods=pods, read=read, message="The image was pushed before the Job was deleted."):
        return pushed
    left = [pod.name for pod in pods if pod.started and not pod.over and not pod.terminating]
    behind = f" Its pod {left[-1]} may be running still." if left else ""
    return Diagnosis(
        state=State.FAILED,
        reason="JobVanished",
        message=f"The Job is gone from Kubernetes, and nobody saw how it ended.{behind}",
        node=_node(pods),
        needs_reading=not read.complete and _may_have_pushed(pods),
    )


def _pushed(job: Job, *, pods: Sequence[Pod], read: Read, message: str) -> Diagnosis | None:
    """Success, if one of the pods is known to have pushed the image."""
    for pod in pods:
        if (digest := pushed_by(pod)) is not None:
            return _succeeded(job, pods=pods, digest=digest, exit_code=0, message=message)
    for pod, container, digest in unproven(pods):
        if says_pushed(read.logs.get((pod.name, container.name), ""), image=job.image, digest=digest):
            message = f"The image was pushed before the container ended with exit code {container.exit_code}."
            return _succeeded(job, pods=pods, digest=digest, exit_code=container.exit_code, message=message)
    return None


def _may_have_pushed(pods: Sequence[Pod]) -> bool:
    return next(unproven(pods), None) is not None


def _succeeded(job: Job, *, pods: Sequence[Pod], digest: str, exit_code: int | None, message: str) -> Diagnosis:
    return Diagnosis(
        state=State.SUCCEEDED,
        message=message,
        at=job.ended_at,
        node=_node(pods),
        digest=digest,
        exit_code=exit_code,
    )


def _unfinished(job: Job, pods: Sequence[Pod]) -> Diagnosis:
    running = [pod for pod in pods if not pod.over and not pod.terminating and pod.started]
    if running:
        pod = running[-1]
        since = [container.started_at for container in pod.containers if container.started_at]
        return Diagnosis(state=State.RUNNING, at=min(since, default=None), node=pod.node)
    if job.suspended:
        return Diagnosis(reason="Suspended", message="The Job is suspended until a queue, or a person, lets it run.")
    if not pods:
        return Diagnosis()
    pod = pods[-1]
    if wait := wait_of(pod):
        return Diagnosis(reason=wait[0], message=wait[1], node=pod.node)
    if job.ending or job.terminating:
        why = f"fails with {job.ending}" if job.ending else "is being deleted"
        return Diagnosis(reason=ENDING, message=f"The Job {why}, once its pods are gone.", node=pod.node)
    if (pod.over or pod.terminating) and (disruption := disruption_of(pod)):
        return Diagnosis(reason=disruption[0], message=f"{disruption[1]} Kubernetes replaces the pod.", node=pod.node)
    return Diagnosis(node=pod.node)


def _failed(job: Job, *, pods: Sequence[Pod], read: Read, noted: tuple[str, str]) -> Diagnosis:
    if job.reason == "DeadlineExceeded":
        return _too_late(job, pods=pods, read=read, noted=noted)
    node = _node(pods)
    pod = pods[-1] if pods else None
    if pod is None:
        return _never_seen(job, read=read, noted=noted)
    if killed := next((c for c in pod.containers if c.reason == "OOMKilled"), None):
        message = f"Container {killed.name} used more memory than its limit and was killed."
        return _as_failed(job, "OOMKilled", message, node=node, container=killed)
    if disruption := disruption_of(pod):
        return _as_failed(job, *disruption, node=node, container=_culprit(pod))
    if waiting_for := wait_of(pod):
        return _as_failed(job, *waiting_for, node=node)
    culprit = _culprit(pod)
    if culprit is None:
        return _as_failed(job, _reason_of(job, noted=noted), job.message or pod.message, node=node)
    if culprit.exit_code in _SIGNALLED and _was_deleted_first(job):
        message = f"The Job was deleted while it ran, so container {culprit.name} was ended."
        return _as_failed(job, "JobVanished", message, node=node, container=culprit)
    return _by_words(job, pod=pod, culprit=culprit, read=read, node=node)


def _was_deleted_first(job: Job) -> bool:
    """Whether it failed after its deletion was asked for: the Job controller counts the pods that the deletion ends.

    Kubernetes writes whole seconds, and a pod can be gone within the one in which it is told to end.
    """
    return bool(job.deleted_at and job.ended_at and job.deleted_at <= job.ended_at)


def _too_late(job: Job, *, pods: Sequence[Pod], read: Read, noted: tuple[str, str]) -> Diagnosis:
    """If its time ran out before anything ran, what it waited for is the reason, not the clock."""
    node = _node(pods)
    if any(pod.started for pod in pods):
        return _as_failed(job, "DeadlineExceeded", job.message or "Its deadline passed.", node=node)
    waits = noted if noted[0] else next((wait for pod in reversed(pods) if (wait := wait_of(pod))), NOTHING)
    waits = waits if waits[0] else read.refused or NOTHING
    if waits[0]:
        return _as_failed(job, waits[0], f"It waited until its deadline passed. {waits[1]}".rstrip(), node=node)
    found = _as_failed(job, "DeadlineExceeded", job.message or "Its deadline passed.", node=node)
    return replace(found, needs_reading=True)


def _never_seen(job: Job, *, read: Read, noted: tuple[str, str]) -> Diagnosis:
    """No pod of it is known: if there never was one, an Event says why."""
    waits = noted if noted[0] else read.refused or NOTHING
    found = _as_failed(job, _reason_of(job, noted=waits), waits[1] or job.message, node="")
    return replace(found, needs_reading=not waits[0])


def _by_words(job: Job, *, pod: Pod, culprit: Container, read: Read, node: str) -> Diagnosis:
    """A container that ended with an error: what its last words say."""
    log = read.logs.get((pod.name, culprit.name), "")
    words = log or ("" if digest_in(culprit.message) else culprit.message)
    reason, message = last_words(words, init=culprit.init)
    if not message:
        message = f"Container {culprit.name} ended with exit code {culprit.exit_code}" + (
            f" ({culprit.reason})." if culprit.reason not in ("", "Error") else "."
        )
    found = _as_failed(job, reason, message, node=node, container=culprit)
    # With FallbackToLogsOnError the message holds the end of the log, unless kaniko had written the digest by then.
    return replace(found, needs_reading=not log and reason == "BuildFailed")


def _as_failed(job: Job, reason: str, message: str, *, node: str, container: Container | None = None) -> Diagnosis:
    return Diagnosis(
        state=State.FAILED,
        reason=reason[:64],
        message=quoted(message),
        at=job.ended_at,
        node=node,
        exit_code=container.exit_code if container else None,
    )


def _reason_of(job: Job, *, noted: tuple[str, str]) -> str:
    return noted[0] or (job.reason if job.reason not in ("", "BackoffLimitExceeded") else "BuildFailed")


def _culprit(pod: Pod) -> Container | None:
    """The container that ended with an error; the first one, because the others then have nothing to do."""
    return next((c for c in pod.containers if c.state == "terminated" and c.exit_code), None)


def _node(pods: Sequence[Pod]) -> str:
    return next((pod.node for pod in reversed(pods) if pod.node), "")
