"""Scheduler and kubelet in one: a pod is placed, starts, and ends as its outcome says. Also the logs of containers."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from deploy.local.kubernetes_simulator import clock, pod_status
from deploy.local.kubernetes_simulator.deletion import delete
from deploy.local.kubernetes_simulator.outcomes import Outcome, log_lines, main_container
from deploy.local.kubernetes_simulator.recorder import Recorder
from deploy.local.kubernetes_simulator.resources import PODS
from deploy.local.kubernetes_simulator.store import Change, Key, Record, Store

Json = dict[str, Any]

_NODE = "build-node-1"
_SCHEDULER = "default-scheduler"
_KUBELET = "kubelet"


@dataclass(slots=True)
class Life:
    """What the kubelet knows of a pod. Times are seconds since 1970; `seconds` is how long the containers run."""

    outcome: Outcome
    seconds: float
    started: float = 0.0
    ended: float = 0.0
    timer: asyncio.TimerHandle | None = None
    written: list[str] = field(default_factory=list)


class Kubelet:
    """Runs the pods that were planned for it; others (no plan, or another scheduler) stay Pending."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        loop: asyncio.AbstractEventLoop,
        pod_start_seconds: float,
        run_seconds: float,
        termination_seconds: float,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._loop = loop
        self.pod_start_seconds = pod_start_seconds
        self.run_seconds = run_seconds
        self.termination_seconds = termination_seconds
        self._lives: dict[str, Life] = {}
        store.listeners.append(self._hear)

    def plan(self, *, uid: str, outcome: Outcome, seconds: float | None = None) -> None:
        """Says what will become of the pod with this uid, before it is created."""
        self._lives[uid] = Life(outcome=outcome, seconds=self.run_seconds if seconds is None else seconds)

    def clear(self) -> None:
        for life in self._lives.values():
            if life.timer:
                life.timer.cancel()
        self._lives.clear()

    def _hear(self, change: Change) -> None:
        pod = change.after
        if pod.resource is not PODS:
            return
        life = self._lives.get(pod.uid)
        if change.kind == "DELETED":
            if life and life.timer:
                life.timer.cancel()
            self._lives.pop(pod.uid, None)
        elif change.kind == "ADDED":
            if life and pod.obj["spec"].get("schedulerName") == _SCHEDULER:
                self._after(0, life=life, step=self._schedule, pod=pod)
        elif pod.terminating and change.before is not None and not change.before.terminating and life:
            self._after(self.termination_seconds, life=life, step=self._kill, pod=pod)

    def _after(self, seconds: float, *, life: Life, step: Any, pod: Record) -> None:
        if life.timer:
            life.timer.cancel()
        life.timer = self._loop.call_later(seconds, self._take_step, step, pod.key, pod.uid)

    def _take_step(self, step: Any, key: Key, uid: str) -> None:
        pod = self._store.find(PODS, namespace=key[0], name=key[1])
        life = self._lives.get(uid)
        if pod is not None and life is not None and pod.uid == uid:
            step(pod, life)

    def _tell(self, pod: Record, *, reason: str, message: str, component: str = _KUBELET, kind: str = "Normal") -> None:
        host = _NODE if component == _KUBELET else ""
        self._recorder.tell(pod, reason=reason, message=message, component=component, kind=kind, host=host)

    def _write(self, pod: Record, *, status: Json, spec: Json | None = None) -> Record:
        return self._store.replace(pod, obj={**pod.obj, "spec": spec or pod.obj["spec"], "status": status})

    def _schedule(self, pod: Record, life: Life) -> None:
        moment = clock.now()
        if life.outcome.waits == "Unschedulable":
            pod = self._write(pod, status=pod_status.unschedulable(pod.obj, moment=moment))
            message = pod_status.UNSCHEDULABLE
            self._tell(pod, reason="FailedScheduling", message=message, component=_SCHEDULER, kind="Warning")
            return
        namespace, name = pod.key
        placed = {**pod.obj["spec"], "nodeName": _NODE}
        reason = "ErrImagePull" if life.outcome.waits else "ContainerCreating"
        image = main_container(pod.obj)["image"]
        why = f'failed to pull and unpack image "{image}": not found' if life.outcome.waits else ""
        status = pod_status.waiting(pod.obj, moment=moment, reason=reason, message=why)
        pod = self._write(pod, status=status, spec=placed)
        self._tell(
            pod,
            reason="Scheduled",
            message=f"Successfully assigned {namespace}/{name} to {_NODE}",
            component=_SCHEDULER,
        )
        self._tell(pod, reason="Pulling", message=f'Pulling image "{image}"')
        if life.outcome.waits:
            self._tell(pod, reason="Failed", message=f'Failed to pull image "{image}": {why}', kind="Warning")
            self._tell(pod, reason="Failed", message="Error: ErrImagePull", kind="Warning")
            self._after(self.pod_start_seconds, life=life, step=self._back_off, pod=pod)
        else:
            self._after(self.pod_start_seconds, life=life, step=self._run, pod=pod)

    def _back_off(self, pod: Record, life: Life) -> None:
        image = main_container(pod.obj)["image"]
        status = pod_status.waiting(
            pod.obj, moment=clock.now(), reason="ImagePullBackOff", message=f'Back-off pulling image "{image}"'
        )
        pod = self._write(pod, status=status)
        self._tell(pod, reason="BackOff", message=f'Back-off pulling image "{image}"')
        self._tell(pod, reason="Failed", message="Error: ImagePullBackOff", kind="Warning")

    def _run(self, pod: Record, life: Life) -> None:
        life.started = time.time()
        pod = self._write(pod, status=pod_status.running(pod.obj, moment=clock.now()))
        container = main_container(pod.obj)
        self._tell(pod, reason="Pulled", message=f'Successfully pulled image "{container["image"]}"')
        self._tell(pod, reason="Created", message=f"Created container: {container['name']}")
        self._tell(pod, reason="Started", message=f"Started container {container['name']}")
        if life.outcome.ends:
            self._after(life.seconds, life=life, step=self._finish, pod=pod)

    def _finish(self, pod: Record, life: Life) -> None:
        outcome = life.outcome
        life.ended = time.time()
        pod = self._write(pod, status=pod_status.finished(pod.obj, moment=clock.now(), outcome=outcome))
        if outcome.pod_reason == "Evicted":
            self._tell(pod, reason="Evicted", message=outcome.pod_message, kind="Warning")
        elif outcome.pod_reason == "NodeLost":
            self._tell(
                pod,
                reason="NodeNotReady",
                message="Node is not ready",
                component="node-controller",
                kind="Warning",
            )
            self._after(self.termination_seconds, life=life, step=self._collect, pod=pod)

    def _collect(self, pod: Record, life: Life) -> None:
        """The pod garbage collector removes pods of nodes that are gone."""
        delete(self._store, record=pod, grace_seconds=0)

    def _kill(self, pod: Record, life: Life) -> None:
        life.ended = time.time()
        if not pod_status.is_over(pod.obj):
            self._tell(pod, reason="Killing", message=f"Stopping container {main_container(pod.obj)['name']}")
            pod = self._write(pod, status=pod_status.killed(pod.obj, moment=clock.now()))
        delete(self._store, record=pod, grace_seconds=0)

    def decide(self, pod: Record, *, outcome: Outcome) -> None:
        """Ends a running pod now with this outcome; one that has not started yet will end so."""
        life = self._lives.setdefault(pod.uid, Life(outcome=outcome, seconds=self.run_seconds))
        life.outcome = outcome
        if pod.obj["status"].get("phase") == "Running":
            if outcome.ends:
                self._finish(pod, life)
            elif life.timer:
                life.timer.cancel()
        elif life.started == 0 and not pod_status.is_over(pod.obj):
            self._after(0, life=life, step=self._schedule, pod=pod)

    def write_log(self, pod: Record, *, lines: list[str]) -> None:
        """Adds lines to what the pod's containers have written."""
        life = self._lives.setdefault(pod.uid, Life(outcome=Outcome(name="hang", ends=False), seconds=0))
        life.written.extend(lines)

    def log(self, pod: Record, *, container: Json) -> list[tuple[float, str]]:
        """What a container has written so far: each line with its moment. The lines are spread over its run."""
        life = self._lives.get(pod.uid)
        if life is None:
            return []
        lines = log_lines(pod.obj, container=container, outcome=life.outcome) if life.started else []
        step = life.seconds / max(len(lines), 1)
        moments = [(life.started + index * step, line) for index, line in enumerate(lines)]
        until = life.ended or time.time()
        over = bool(life.ended) and life.outcome.ends
        shown = [(moment, line) for moment, line in moments if over or moment <= until]
        return shown + [(until, line) for line in life.written]
