"""What keeps a pod from running to its end, other than the build: as Kubernetes says it. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from kanikojobs.observed import Pod
from kanikojobs.redaction import redact
from kanikojobs.storable import printable

_IMAGE_WAITS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_START_WAITS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff")
_LOST = ("DeletionByPodGC", "DeletionByTaintManager", "NodeLost", "NodeShutdown", "Shutdown", "Terminated")
_MOST_MESSAGE = 2000


def quoted(text: str) -> str:
    """Somebody else's words as a message may hold them: without secrets, storable, and not without end."""
    return redact(printable(text))[:_MOST_MESSAGE]


def wait_of(pod: Pod) -> tuple[str, str] | None:
    """Why a pod does not start."""
    if pod.unschedulable and not pod.node and not pod.started:
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
    """Why a pod was put out by its node, the scheduler or an eviction, if it was; or never let in by its node."""
    why, told = pod.disruption
    if pod.reason in _LOST or why in _LOST:
        return "NodeLost", quoted(pod.message or told or "The node that ran the pod was lost.")
    if pod.reason in ("Evicted", "Preempting") or why:
        return "Evicted", quoted(pod.message or told or "The pod was evicted.")
    if pod.phase == "Failed" and pod.reason and not pod.started:
        # The kubelet's own admission: OutOfcpu, NodeAffinity, UnexpectedAdmissionError and more.
        return "NodeRefused", quoted(f"{pod.reason}: {pod.message}")
    return None


def refusal_of(messages: Sequence[str]) -> tuple[str, str] | None:
    """Why the Job controller could not create a pod, by its FailedCreate Events; the last one counts."""
    for message in reversed(messages):
        text = quoted(message)
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


# What Events about a pod come to that its status does not say, or does not say any more once it is gone.
_POD_EVENTS = {
    "FailedScheduling": "Unschedulable",
    "FailedMount": "ContainerCannotStart",
    "FailedAttachVolume": "ContainerCannotStart",
    "FailedCreatePodSandBox": "ContainerCannotStart",
    "InspectFailed": "InvalidImageName",
}


def told_by_events(events: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Why nothing of a Job ran, by the Events about it and its pods, in their order; the last one that tells it."""
    for event in reversed(events):
        reason, message = str(event.get("reason")), str(event.get("message"))
        if reason == "FailedCreate":
            return refusal_of([message])
        if reason == "Failed" and "pull image" in message:
            return "ImagePullBackOff", quoted(message)
        if reason in _POD_EVENTS:
            return _POD_EVENTS[reason], quoted(message)
    return None
