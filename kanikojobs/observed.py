"""What the API server says of Jobs and pods, reduced to what is asked of it: pure.

A watcher holds thousands of these at once, so each keeps only what a diagnosis or the evidence needs. Everything in
them was written by others, some of it by the build itself, so nothing is trusted to be there or to be short.
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from kanikojobs.colours import uncoloured
from kanikojobs.naming import PREFIX
from kanikojobs.storable import printable

Json = Mapping[str, Any]

# The kubelet itself keeps 4096 bytes of a termination message (kubelet/container, MaxPodTerminationMessageLogLength).
MOST_MESSAGE = 4096
MOST_WORD = 253
_JOB_NAME = "batch.kubernetes.io/job-name"


@dataclass(frozen=True, slots=True)
class Container:
    """The status of a container. `reason` and `message` are those of its present state."""

    name: str
    init: bool
    state: Literal["waiting", "running", "terminated"]
    reason: str = ""
    message: str = ""
    exit_code: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def started(self) -> bool:
        """Whether it is known to have run: a kubelet writes an end for containers that it cannot find, too."""
        lost = self.reason == "ContainerStatusUnknown" and self.started_at is None
        return self.state == "running" or (self.state == "terminated" and not lost)


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a Kaniko Job. `unschedulable` is the scheduler's message; `disruption` the reason and message of the
    condition DisruptionTarget. `version` says which of two observations is the later one; unknown is 0."""

    name: str
    uid: str
    job_name: str
    phase: str
    node: str = ""
    reason: str = ""
    message: str = ""
    terminating: bool = False
    unschedulable: str = ""
    disruption: tuple[str, str] = ("", "")
    created_at: datetime | None = None
    containers: tuple[Container, ...] = ()
    version: int = field(default=0, compare=False)

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def started(self) -> bool:
        return self.phase in ("Running", "Succeeded") or any(container.started for container in self.containers)

    def as_json(self) -> dict[str, Any]:
        """For the evidence."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Job:
    """A Kubernetes Job. `end` is "Complete" or "Failed" once it has ended, with that condition's reason and message.

    `ending` is the reason with which it will have failed, once its pods are gone. `failed` counts the pods that have,
    those that the podFailurePolicy ignores left out. `deleted_at` is when its deletion was asked for.
    """

    name: str
    uid: str
    event_id: str = ""
    source: str = ""
    number: str = ""
    image: str = ""
    end: str = ""
    ending: str = ""
    failed: int = 0
    reason: str = ""
    message: str = ""
    ended_at: datetime | None = None
    suspended: bool = False
    terminating: bool = False
    deleted_at: datetime | None = None
    created_at: datetime | None = None


def read_job(obj: Json) -> Job:
    """A Job from the API server's JSON."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    conditions = {
        condition.get("type"): condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == "True"
    }
    end: Json = conditions.get("Complete") or conditions.get("Failed") or {}
    # Decided, but not in force until the last pod has gone (Kubernetes 1.31 and later).
    ending: Json = conditions.get("FailureTarget") or {}
    return Job(
        name=metadata["name"],
        uid=metadata["uid"],
        event_id=annotations.get(f"{PREFIX}event-id", ""),
        source=sys.intern(annotations.get(f"{PREFIX}source", "")),
        number=sys.intern(labels.get(f"{PREFIX}number", "")),
        image=annotations.get(f"{PREFIX}image", ""),
        end=sys.intern(end.get("type", "")),
        ending="" if end else _word(ending.get("reason")),
        failed=status.get("failed") or 0,
        reason=_word(end.get("reason")),
        message=_short(end.get("message")),
        ended_at=_time(end.get("lastTransitionTime")),
        suspended=bool((obj.get("spec") or {}).get("suspend")),
        terminating=bool(metadata.get("deletionTimestamp")),
        deleted_at=_time(metadata.get("deletionTimestamp")),
        created_at=_time(metadata.get("creationTimestamp")),
    )


def read_pod(obj: Json) -> Pod:
    """A pod from the API server's JSON."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    conditions = {
        condition.get("type"): condition
        for condition in status.get("conditions") or ()
        if condition.get("status") == ("False" if condition.get("type") == "PodScheduled" else "True")
    }
    scheduled: Json = conditions.get("PodScheduled", {})
    disruption: Json = conditions.get("DisruptionTarget", {})
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        job_name=_job_of(metadata),
        phase=_word(status.get("phase")) or "Pending",
        node=_word((obj.get("spec") or {}).get("nodeName")),
        reason=_word(status.get("reason")),
        message=_short(status.get("message")),
        terminating=bool(metadata.get("deletionTimestamp")),
        unschedulable=_short(scheduled.get("message") or scheduled.get("reason")),
        # The policy that ignores disruptions asks for the condition alone, so it counts without a reason as well.
        disruption=(_word(disruption.get("reason") or disruption.get("type")), _short(disruption.get("message"))),
        created_at=_time(metadata.get("creationTimestamp")),
        containers=tuple(
            _container(container, init=init)
            for kind, init in (("initContainerStatuses", True), ("containerStatuses", False))
            for container in status.get(kind) or ()
        ),
        version=_number(metadata.get("resourceVersion")),
    )


def _container(status: Json, *, init: bool) -> Container:
    name = _word(status.get("name"))
    state = status.get("state") or {}
    for kind in ("terminated", "running"):
        if kind in state:
            found = state[kind] or {}
            return Container(
                name=name,
                init=init,
                state="terminated" if kind == "terminated" else "running",
                reason=_word(found.get("reason")),
                message=uncoloured(_short(found.get("message"))),
                exit_code=found.get("exitCode"),
                started_at=_time(found.get("startedAt")),
                finished_at=_time(found.get("finishedAt")),
            )
    waiting = state.get("waiting") or {}
    return Container(
        name=name,
        init=init,
        state="waiting",
        reason=_word(waiting.get("reason")),
        message=_short(waiting.get("message")),
    )


def _job_of(metadata: Json) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") == "Job" and owner.get("controller"):
            return str(owner.get("name") or "")
    return str((metadata.get("labels") or {}).get(_JOB_NAME, ""))


def oldest_first(pods: Iterable[Pod]) -> list[Pod]:
    """Kubernetes counts in whole seconds; in one of them, who was put out was there before who took its place."""
    return sorted(pods, key=lambda pod: (str(pod.created_at or ""), not pod.disruption[0], pod.name))


def _short(text: Any) -> str:
    return printable(str(text)[:MOST_MESSAGE]) if text else ""


def _word(text: Any) -> str:
    """A name or a reason: the same few come again and again, so each is held once."""
    return sys.intern(printable(str(text)[:MOST_WORD])) if text else ""


def _number(text: Any) -> int:
    return int(text) if isinstance(text, str) and text.isdecimal() else 0


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None
