"""What keeps a pod from running to its end, other than the build: as scheduler and kubelet say it of the pod. Pure."""

from kanikojobs.observed import Pod
from kanikojobs.redaction import redact

_IMAGE_WAITS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_START_WAITS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
_LOST = ("DeletionByPodGC", "DeletionByTaintManager", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_MOST_MESSAGE = 2000


def quoted(text: str) -> str:
    """Somebody else's words as a message may hold them: without secrets, and not without end."""
    return redact(text)[:_MOST_MESSAGE]


def wait_of(pod: Pod) -> tuple[str, str] | None:
    """Why a pod does not start."""
    if pod.unschedulable and not pod.node:
        return "Unschedulable", quoted(pod.unschedulable)
    for container in pod.containers:
        if container.state != "waiting":
            continue
        if container.reason in _IMAGE_WAITS:
            reason = "InvalidImageName" if container.reason == "InvalidImageName" else "ImagePullBackOff"
            return reason, quoted(container.message or f"{container.reason} of container {container.name}")
        if container.reason in _START_WAITS:
            return "ContainerCannotStart", quoted(f"{container.reason}: {container.message}")
    return None


def disruption_of(pod: Pod) -> tuple[str, str] | None:
    """Why a pod was put out by its node, the scheduler or an eviction, if it was."""
    why, told = pod.disruption
    if pod.reason in _LOST or why in _LOST:
        return "NodeLost", quoted(pod.message or told or "The node that ran the pod was lost.")
    if pod.reason in ("Evicted", "Preempting") or why:
        return "Evicted", quoted(pod.message or told or "The pod was evicted.")
    return None
