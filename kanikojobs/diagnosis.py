"""What became of a Kaniko Job, and why: a Job, its pods and the end of a log give a state and a reason. Pure.

A reason is CamelCase as in Kubernetes conditions; `kanikojobs.advice` has a sentence for each of what to do about it.
The parts are modules of their own: `pushes` (whether the image was pushed decides over everything else), `obstacles`
(what keeps a pod from running) and `log_words` (what a container's last words say).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kanikojobs.log_words import last_words
from kanikojobs.observed import Container, Job, Pod
from kanikojobs.obstacles import disruption_of, quoted, wait_of
from kanikojobs.pushes import digest_in, pushed_by, says_pushed
from kanikojobs.states import State


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is known of a Kaniko Job now.

    `state` is None while it waits; then `reason` says what for. `needs_log` means that the state would be told better
    by the log of the container `culprit`. `at` is when it happened, by Kubernetes' clock.
    """

    state: State | None = None
    reason: str = ""
    message: str = ""
    at: datetime | None = None
    node: str = ""
    digest: str = ""
    exit_code: int | None = None
    culprit: tuple[str, str] | None = None
    needs_log: bool = False


NOTHING = ("", "")


def diagnose(job: Job, *, pods: Sequence[Pod], log: str | None = None, noted: tuple[str, str] = NOTHING) -> Diagnosis:
    """What a Job, its pods (those that are gone too, as they were last seen) and the culprit's log come to.

    `log` is None while nobody has tried to read it, and empty if there is none. `noted` is the reason and the message
    with which the Kaniko Job was known to wait until now, for the case that its pods tell no more.
    """
    pods = sorted(pods, key=lambda pod: (pod.created_at is not None, pod.created_at, pod.name))
    if not job.end:
        return _unfinished(job, pods)
    pushed = next((digest for pod in pods if (digest := pushed_by(pod))), None)
    if job.end == "Complete" or pushed is not None:
        message = "" if job.end == "Complete" else f"The image was pushed before the Job failed with {job.reason}."
        return Diagnosis(
            state=State.SUCCEEDED,
            message=message,
            at=job.ended_at,
            node=_node(pods),
            digest=pushed or "",
            exit_code=0 if pushed is not None else None,
        )
    return _failed(job, pods=pods, log=log, noted=noted)


def vanished(pods: Sequence[Pod]) -> Diagnosis:
    """What a Job that is gone without having ended came to: its image may have been pushed before."""
    pushed = next((digest for pod in pods if (digest := pushed_by(pod))), None)
    if pushed is not None:
        message = "The image was pushed before the Job was deleted."
        return Diagnosis(state=State.SUCCEEDED, message=message, node=_node(pods), digest=pushed, exit_code=0)
    return Diagnosis(
        state=State.FAILED,
        reason="JobVanished",
        message="The Job is gone from Kubernetes, and nobody saw how it ended.",
        node=_node(pods),
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
    if (pod.over or pod.terminating) and (disruption := disruption_of(pod)):
        return Diagnosis(reason=disruption[0], message=f"{disruption[1]} Kubernetes replaces the pod.", node=pod.node)
    return Diagnosis(node=pod.node)


def _failed(job: Job, *, pods: Sequence[Pod], log: str | None, noted: tuple[str, str]) -> Diagnosis:
    node = _node(pods)
    if job.reason == "DeadlineExceeded":
        # If its time ran out before anything ran, what it waited for is the reason, not the clock. The pods are asked
        # last: the end that a kubelet writes for a container that never ran can look like that of one that did.
        never_ran = not any(pod.started for pod in pods)
        waits = noted if noted[0] else next((wait for pod in reversed(pods) if (wait := wait_of(pod))), NOTHING)
        if waits[0] and (never_ran or noted[0]):
            return _as_failed(job, waits[0], f"It waited until its deadline passed. {waits[1]}".rstrip(), node=node)
        return _as_failed(job, "DeadlineExceeded", job.message or "Its deadline passed.", node=node)
    pod = pods[-1] if pods else None
    if pod is None:
        return _as_failed(job, _reason_of(job, noted=noted), job.message, node=node)
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
    return _by_words(job, pod=pod, culprit=culprit, log=log, node=node)


def _by_words(job: Job, *, pod: Pod, culprit: Container, log: str | None, node: str) -> Diagnosis:
    """A container that ended with an error: what its last words say."""
    digest = digest_in(culprit.message)
    if digest and log and says_pushed(log, image=job.image, digest=digest):
        message = f"The image was pushed before the container ended with exit code {culprit.exit_code}."
        return Diagnosis(
            state=State.SUCCEEDED,
            message=message,
            at=job.ended_at,
            node=node,
            digest=digest,
            exit_code=culprit.exit_code,
        )
    words = log or ("" if digest else culprit.message)
    reason, message = last_words(words, init=culprit.init)
    if not message:
        message = f"Container {culprit.name} ended with exit code {culprit.exit_code}" + (
            f" ({culprit.reason})." if culprit.reason not in ("", "Error") else "."
        )
    found = _as_failed(job, reason, message, node=node, container=culprit)
    # With FallbackToLogsOnError the message holds the end of the log, unless kaniko had written the digest by then.
    untold = log is None and (reason == "BuildFailed" or bool(digest))
    return Diagnosis(
        state=found.state,
        reason=found.reason,
        message=found.message,
        at=found.at,
        node=node,
        exit_code=culprit.exit_code,
        culprit=(pod.name, culprit.name),
        needs_log=untold,
    )


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
