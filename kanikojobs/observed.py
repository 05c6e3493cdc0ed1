"""What the API server says of Jobs and pods, reduced to what is asked of it: pure.

A watcher holds thousands of these at once, so each keeps only what a diagnosis or the evidence needs. Everything in
them was written by others, some of it by the build itself, so nothing is trusted to be there or to be short.
"""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from kanikojobs.naming import PREFIX

Json = Mapping[str, Any]

# The kubelet itself keeps 4096 bytes of a termination message (kubelet/container, MaxPodTerminationMessageLogLength).
MOST_MESSAGE = 4096
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
        return self.state != "waiting"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a Kaniko Job. `unschedulable` is the scheduler's message; `disruption` the reason and message of the
    condition DisruptionTarget."""

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

    @property
    def over(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def started(self) -> bool:
        return any(container.started for container in self.containers)

    def as_json(self) -> dict[str, Any]:
        """For the evidence."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Job:
    """A Kubernetes Job. `end` is "Complete" or "Failed" once it has ended, with that condition's reason and message."""

    name: str
    uid: str
    event_id: str = ""
    source: str = ""
    number: str = ""
    image: str = ""
    end: str = ""
    reason: str = ""
    message: str = ""
    ended_at: datetime | None = None
    suspended: bool = False
    terminating: bool = False
    created_at: datetime | None = None


def read_job(obj: Json) -> Job:
    """A Job from the API server's JSON."""
    metadata, status = obj["metadata"], obj.get("status") or {}
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    end: Json = {}
    for condition in status.get("conditions") or ():
        if condition.get("type") in ("Complete", "Failed") and condition.get("status") == "True":
            end = condition
    return Job(
        name=metadata["name"],
        uid=metadata["uid"],
        event_id=annotations.get(f"{PREFIX}event-id", ""),
        source=sys.intern(annotations.get(f"{PREFIX}source", "")),
        number=sys.intern(labels.get(f"{PREFIX}number", "")),
        image=annotations.get(f"{PREFIX}image", ""),
        end=sys.intern(end.get("type", "")),
        reason=sys.intern(end.get("reason") or ""),
        message=_short(end.get("message")),
        ended_at=_time(end.get("lastTransitionTime")),
        suspended=bool((obj.get("spec") or {}).get("suspend")),
        terminating=bool(metadata.get("deletionTimestamp")),
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
        phase=sys.intern(status.get("phase") or "Pending"),
        node=sys.intern((obj.get("spec") or {}).get("nodeName") or ""),
        reason=sys.intern(status.get("reason") or ""),
        message=_short(status.get("message")),
        terminating=bool(metadata.get("deletionTimestamp")),
        unschedulable=_short(scheduled.get("message")) if scheduled.get("reason") == "Unschedulable" else "",
        disruption=(sys.intern(disruption.get("reason") or ""), _short(disruption.get("message"))),
        created_at=_time(metadata.get("creationTimestamp")),
        containers=tuple(
            _container(container, init=init)
            for field, init in (("initContainerStatuses", True), ("containerStatuses", False))
            for container in status.get(field) or ()
        ),
    )


def _container(status: Json, *, init: bool) -> Container:
    name = sys.intern(status.get("name") or "")
    state = status.get("state") or {}
    for kind in ("terminated", "running"):
        if kind in state:
            found = state[kind] or {}
            return Container(
                name=name,
                init=init,
                state="terminated" if kind == "terminated" else "running",
                reason=sys.intern(found.get("reason") or ""),
                message=_short(found.get("message")),
                exit_code=found.get("exitCode"),
                started_at=_time(found.get("startedAt")),
                finished_at=_time(found.get("finishedAt")),
            )
    waiting = state.get("waiting") or {}
    return Container(
        name=name,
        init=init,
        state="waiting",
        reason=sys.intern(waiting.get("reason") or ""),
        message=_short(waiting.get("message")),
    )


def _job_of(metadata: Json) -> str:
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("kind") == "Job" and owner.get("controller"):
            return str(owner.get("name") or "")
    return str((metadata.get("labels") or {}).get(_JOB_NAME, ""))


def _short(text: Any) -> str:
    # NUL and lone surrogates can be in JSON, and not in PostgreSQL's text.
    return str(text)[:MOST_MESSAGE].replace("\x00", "\\x00").encode("utf-8", "replace").decode() if text else ""


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except (TypeError, ValueError):
        return None
