"""What became of a Kaniko Job, and why: a Job, its pods and the end of a log give a state and a reason. Pure.

A reason is CamelCase as in Kubernetes conditions; `kanikojobs.advice` has a sentence for each of what to do about it.
The words of logs are read only where they are kaniko's or git's own last ones: a build prints what it likes.

Whether the image was pushed decides over everything else. kaniko writes the digest before it pushes (executor.DoPush),
so a digest alone proves nothing: it counts when the container ended well, or when its log says `Pushed`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from kanikojobs.observed import Container, Job, Pod
from kanikojobs.redaction import redact
from kanikojobs.states import State

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_WAITS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_START_WAITS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
_LOST = ("DeletionByPodGC", "DeletionByTaintManager", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_MOST_MESSAGE = 2000


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
    pushed = next((digest for pod in pods if (digest := _pushed(pod))), None)
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
    pushed = next((digest for pod in pods if (digest := _pushed(pod))), None)
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
    if waits := _waits(pod):
        return Diagnosis(reason=waits[0], message=waits[1], node=pod.node)
    if (pod.over or pod.terminating) and (disruption := _disruption(pod)):
        return Diagnosis(reason=disruption[0], message=f"{disruption[1]} Kubernetes replaces the pod.", node=pod.node)
    return Diagnosis(node=pod.node)


def _waits(pod: Pod) -> tuple[str, str] | None:
    """Why a pod does not start."""
    if pod.unschedulable and not pod.node:
        return "Unschedulable", redact(pod.unschedulable)[:_MOST_MESSAGE]
    for container in pod.containers:
        if container.state != "waiting":
            continue
        if container.reason in _IMAGE_WAITS:
            reason = "InvalidImageName" if container.reason == "InvalidImageName" else "ImagePullBackOff"
            return reason, _text(container.message or f"{container.reason} of container {container.name}")
        if container.reason in _START_WAITS:
            return "ContainerCannotStart", _text(f"{container.reason}: {container.message}")
    return None


def _disruption(pod: Pod) -> tuple[str, str] | None:
    why, told = pod.disruption
    if pod.reason in _LOST or why in _LOST:
        return "NodeLost", _text(pod.message or told or "The node that ran the pod was lost.")
    if pod.reason in ("Evicted", "Preempting") or why:
        return "Evicted", _text(pod.message or told or "The pod was evicted.")
    return None


def _failed(job: Job, *, pods: Sequence[Pod], log: str | None, noted: tuple[str, str]) -> Diagnosis:
    node = _node(pods)
    if job.reason == "DeadlineExceeded":
        # If its time ran out before anything ran, what it waited for is the reason, not the clock. The pods are asked
        # last: the end that a kubelet writes for a container that never ran can look like that of one that did.
        never_ran = not any(pod.started for pod in pods)
        waits = noted if noted[0] else next((waits for pod in reversed(pods) if (waits := _waits(pod))), NOTHING)
        if waits[0] and (never_ran or noted[0]):
            return _as_failed(job, waits[0], f"It waited until its deadline passed. {waits[1]}".rstrip(), node=node)
        return _as_failed(job, "DeadlineExceeded", job.message or "Its deadline passed.", node=node)
    pod = pods[-1] if pods else None
    if pod is None:
        return _as_failed(job, _reason_of(job, noted=noted), job.message, node=node)
    if killed := next((c for c in pod.containers if c.reason == "OOMKilled"), None):
        message = f"Container {killed.name} used more memory than its limit and was killed."
        return _as_failed(job, "OOMKilled", message, node=node, container=killed)
    if disruption := _disruption(pod):
        return _as_failed(job, *disruption, node=node, container=_culprit(pod))
    if waiting_for := _waits(pod):
        return _as_failed(job, *waiting_for, node=node)
    culprit = _culprit(pod)
    if culprit is None:
        return _as_failed(job, _reason_of(job, noted=noted), job.message or pod.message, node=node)
    return _by_words(job, pod=pod, culprit=culprit, log=log, node=node)


def _by_words(job: Job, *, pod: Pod, culprit: Container, log: str | None, node: str) -> Diagnosis:
    """A container that ended with an error: what its last words say."""
    digest = _digest_in(culprit.message)
    if digest and log and _says_pushed(log, image=job.image, digest=digest):
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
        message=_text(message),
        at=job.ended_at,
        node=node,
        exit_code=container.exit_code if container else None,
    )


def _reason_of(job: Job, *, noted: tuple[str, str]) -> str:
    return noted[0] or (job.reason if job.reason not in ("", "BackoffLimitExceeded") else "BuildFailed")


def _culprit(pod: Pod) -> Container | None:
    """The container that ended with an error; the first one, because the others then have nothing to do."""
    return next((c for c in pod.containers if c.state == "terminated" and c.exit_code), None)


def _pushed(pod: Pod) -> str | None:
    """The digest if the pod's build ended well ("" if it left none), else None."""
    for container in pod.containers:
        if not container.init and container.state == "terminated" and container.exit_code == 0:
            digest = _digest_in(container.message)
            if digest or pod.phase == "Succeeded":
                return digest
    return None


def _digest_in(message: str) -> str:
    text = message.strip()
    return text if _DIGEST.fullmatch(text) else ""


def _says_pushed(log: str, *, image: str, digest: str) -> bool:
    """Whether kaniko itself wrote that it pushed this image. Layers of the cache are pushed too, under other names."""
    repository = image.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    pattern = rf"(?m)^INFO\[\d+\] Pushed {re.escape(repository)}(?::[\w.-]+)?@{digest}\s*$"
    return bool(repository) and re.search(pattern, log) is not None


def _node(pods: Sequence[Pod]) -> str:
    return next((pod.node for pod in reversed(pods) if pod.node), "")


def _text(text: str) -> str:
    return redact(text)[:_MOST_MESSAGE]


# --- Words ------------------------------------------------------------------------------------------------------------

_KANIKO_ERROR = re.compile(r"^(?:Error: |error |FATA\[\d+\] |kaniko should only be run )")
_GIT_ERROR = re.compile(r"^(?:fatal: |error: |remote: |fetch-source: |ERROR: )")
_AUTH = r"UNAUTHORIZED|DENIED|FORBIDDEN|authentication required|unauthorized|denied:|no basic auth|\b40[13] "
_NETWORK = (
    r"i/o timeout|TLS handshake timeout|connection refused|connection reset|no such host|no route to host"
    r"|Client\.Timeout|context deadline exceeded|Could not resolve host|Failed to connect|unexpected EOF|\b50[0234] "
    r"|Temporary failure in name resolution|Operation timed out|Connection timed out|x509:"
)
_RATE = r"TOOMANYREQUESTS|toomanyrequests|429 Too Many Requests|pull rate limit"

# In this order: the first that fits is the reason.
_KANIKO_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("RegistryRateLimited", re.compile(_RATE)),
    ("OOMKilled", re.compile(r"signal: killed|cannot allocate memory")),
    ("DiskFull", re.compile(r"no space left on device")),
    (
        "PushDenied",
        re.compile(rf"(?:checking push permission|failed to push to destination|pushing image).*?(?:{_AUTH})"),
    ),
    ("PushFailed", re.compile(r"checking push permission|failed to push to destination|error pushing image")),
    (
        "SourceUnavailable",
        re.compile(rf"(?:resolving source context|getting source context|resolving context).*?(?:{_NETWORK})"),
    ),
    ("SourceNotFound", re.compile(r"resolving source context|getting source context|resolving context")),
    (
        "DockerfileInvalid",
        re.compile(
            r"resolving dockerfile path|path to a Dockerfile|parsing dockerfile|dockerfile parse error"
            r"|unknown instruction|failed to parse (?:stage|Dockerfile)|parsing stages"
        ),
    ),
    ("BuildStepFailed", re.compile(r"failed to execute command|failed to get files used from context|copy failed")),
    ("BaseImageNotFound", re.compile(r"MANIFEST_UNKNOWN|NAME_UNKNOWN|manifest unknown|NOT_FOUND|\b404 Not Found")),
    ("RegistryAuthFailed", re.compile(_AUTH)),
    ("RegistryUnavailable", re.compile(_NETWORK)),
    ("BuildStepFailed", re.compile(r"error building (?:image: error building )?stage|exit status \d+")),
)
_SOURCE_WORDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("RegistryRateLimited", re.compile(_RATE)),
    ("DiskFull", re.compile(r"No space left on device")),
    (
        "SourceNotFound",
        re.compile(
            r"(?i)not found|could not read (?:username|password)|authentication failed|access denied|permission denied"
            r"|returned error: 40\d|does not exist|has no (?:branch|commit|folder|file)|no branch or tag|leads out of"
        ),
    ),
    ("DockerfileInvalid", re.compile(r"no Dockerfile in the source|is not a file")),
    ("SourceUnavailable", re.compile(rf"{_NETWORK}|returned error: 5\d\d|unable to access|cannot be (?:read|fetched)")),
)


def last_words(log: str, *, init: bool) -> tuple[str, str]:
    """The reason that the end of a log tells, and the line that tells it, with the step of the Dockerfile it was in."""
    lines = [line for line in log.splitlines() if line.strip()]
    if init:
        told = [line for line in lines if _GIT_ERROR.match(line)]
        for reason, pattern in _SOURCE_WORDS:
            if line := next((line for line in reversed(told) if pattern.search(line)), None):
                return reason, _text(line)
        return ("SourceNotFound", _text(told[-1])) if told else ("BuildFailed", _text(lines[-1]) if lines else "")
    told = [line for line in lines if _KANIKO_ERROR.match(line)]
    if not told:
        return "BuildFailed", _text(lines[-1]) if lines else ""
    line = told[-1]
    for reason, pattern in _KANIKO_WORDS:
        if pattern.search(line):
            step = _step(lines) if reason == "BuildStepFailed" else ""
            return reason, _text(f"{step}: {line}" if step else line)
    return "BuildFailed", _text(line)


def _step(lines: Sequence[str]) -> str:
    """The instruction of the Dockerfile that kaniko was at, as it logs it."""
    pattern = re.compile(r"^INFO\[\d+\] ((?:RUN|COPY|ADD) .*)")
    return next((match[1][:200] for line in reversed(lines) if (match := pattern.match(line))), "")


def of_refused_pods(messages: Sequence[str]) -> tuple[str, str] | None:
    """Why the Job controller could not create a pod, by its FailedCreate Events; the last one counts."""
    for message in reversed(messages):
        text = _text(message)
        if "exceeded quota" in message:
            return "QuotaExceeded", text
        if re.search(
            r"(?:maximum|minimum) (?:cpu|memory|ephemeral-storage|\S+) usage per|max limit to request", message
        ):
            return "LimitRangeExceeded", text
        if "violates PodSecurity" in message:
            return "PodSecurityViolated", text
        if "serviceaccount" in message and "not found" in message:
            return "ServiceAccountNotFound", text
        return "PodRefused", text
    return None
