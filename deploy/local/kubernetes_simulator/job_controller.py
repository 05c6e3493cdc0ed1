"""The Job controller: makes pods for Jobs and keeps each Job's status, as pkg/controller/job does since 1.31.

A Job ends in two writes: first what was decided (SuccessCriteriaMet, FailureTarget), then, when no pod is left
running, the end (Complete, Failed). Retries, podFailurePolicy, activeDeadlineSeconds, suspension and
ttlSecondsAfterFinished are honoured.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from deploy.local.kubernetes_simulator import clock, pod_status
from deploy.local.kubernetes_simulator.defaults import fill_pod
from deploy.local.kubernetes_simulator.deletion import delete
from deploy.local.kubernetes_simulator.identity import new_uid, suffix
from deploy.local.kubernetes_simulator.job_rules import is_finished
from deploy.local.kubernetes_simulator.kubelet import Kubelet
from deploy.local.kubernetes_simulator.outcomes import outcome_of
from deploy.local.kubernetes_simulator.recorder import Recorder
from deploy.local.kubernetes_simulator.resources import JOBS, PODS
from deploy.local.kubernetes_simulator.scripts import Scripts
from deploy.local.kubernetes_simulator.store import Change, Key, Record, Store

Json = dict[str, Any]

_COMPONENT = "job-controller"
_MAX_BACKOFF_SECONDS = 600.0
_NAME_BASE = 58
_DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_QUOTA = "exceeded quota: builds, requested: pods=1, used: pods=10, limited: pods=10"


@dataclass(slots=True)
class Course:
    """What the controller remembers of a Job. `retry_at` is on the loop's clock."""

    started: float
    succeeded: int = 0
    failed: int = 0
    made: int = 0
    counted: set[str] = field(default_factory=set)
    verdict: tuple[str, str] | None = None
    retry_at: float = 0.0
    refused: int = 0
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)


class JobController:
    """Brings each Job towards its end, one step after each write that concerns it."""

    def __init__(
        self,
        *,
        store: Store,
        recorder: Recorder,
        kubelet: Kubelet | None,
        scripts: Scripts,
        loop: asyncio.AbstractEventLoop,
        backoff_seconds: float,
    ) -> None:
        self._store = store
        self._recorder = recorder
        self._kubelet = kubelet
        self._scripts = scripts
        self._loop = loop
        self._backoff = backoff_seconds
        self._courses: dict[str, Course] = {}
        self._due: dict[Key, None] = {}
        self._woken = False
        self._writing = False
        store.listeners.append(self._hear)

    def clear(self) -> None:
        for uid in list(self._courses):
            self._forget(uid)

    def _forget(self, uid: str) -> None:
        course = self._courses.pop(uid, None)
        for timer in course.timers.values() if course else ():
            timer.cancel()

    def _hear(self, change: Change) -> None:
        record = change.after
        if record.resource is JOBS:
            if change.kind == "DELETED":
                self._forget(record.uid)
            elif not self._writing:
                self.wake(record.key)
        elif record.resource is PODS and _matters(change):
            for owner in record.metadata.get("ownerReferences", []):
                if change.kind == "DELETED":
                    self._count_removed(record, owner_uid=owner["uid"])
                if not self._writing:
                    self.wake((record.key[0], owner["name"]))

    def _count_removed(self, pod: Record, *, owner_uid: str) -> None:
        """A pod that was removed while it ran has failed; the tracking finalizer sees to that on a real server."""
        course = self._courses.get(owner_uid)
        if course is not None and pod.uid not in course.counted:
            course.counted.add(pod.uid)
            if pod.obj["status"].get("phase") == "Succeeded":
                course.succeeded += 1
            else:
                course.failed += 1

    def wake(self, key: Key) -> None:
        self._due[key] = None
        if not self._woken:
            self._woken = True
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._woken = False
        due, self._due = self._due, {}
        for key in due:
            job = self._store.find(JOBS, namespace=key[0], name=key[1])
            if job is not None and not job.terminating and not job.obj["spec"].get("managedBy"):
                self._writing = True
                try:
                    self._sync(job)
                finally:
                    self._writing = False

    def _wake_later(self, course: Course, *, name: str, seconds: float, key: Key) -> None:
        if name not in course.timers:
            course.timers[name] = self._loop.call_later(seconds, self._ring, course, name, key)

    def _ring(self, course: Course, name: str, key: Key) -> None:
        course.timers.pop(name, None)
        self.wake(key)

    def pass_deadline(self, job: Record) -> None:
        """Lets a Job's deadline pass now, for those who cannot wait for it."""
        course = self._courses.get(job.uid)
        if course is not None and not is_finished(job.obj):
            course.verdict = course.verdict or _DEADLINE
            self.wake(job.key)

    def _sync(self, job: Record) -> None:
        course = self._courses.get(job.uid)
        if course is None:
            course = self._courses[job.uid] = Course(started=time.time())
        if is_finished(job.obj):
            self._expire(job, course)
            return
        spec = job.obj["spec"]
        pods = self._store.pods_of(job.uid)
        self._count(job, course=course, pods=pods)
        self._judge(job, course=course)
        active = [pod for pod in pods if not pod_status.is_over(pod.obj) and not pod.terminating]
        complete = course.succeeded >= (spec.get("completions") or 1)
        suspended = bool(spec.get("suspend"))
        if course.verdict or suspended or complete:
            for pod in active:
                if suspended:
                    # Pods that a suspension removes are not failures.
                    course.counted.add(pod.uid)
                self._recorder.tell(
                    job, reason="SuccessfulDelete", message=f"Deleted pod: {pod.key[1]}", component=_COMPONENT
                )
                delete(self._store, record=pod)
        else:
            self._make_pods(job, course=course, active=len(active))
        self._report(job, course=course, complete=complete and not course.verdict)

    def _count(self, job: Record, *, course: Course, pods: list[Record]) -> None:
        for pod in pods:
            if pod.uid in course.counted or not pod_status.is_over(pod.obj):
                continue
            course.counted.add(pod.uid)
            if pod.obj["status"]["phase"] == "Succeeded":
                course.succeeded += 1
                continue
            action, message = policy_action(job.obj["spec"].get("podFailurePolicy"), pod=pod)
            if action == "FailJob" and course.verdict is None:
                course.verdict = ("PodFailurePolicy", message)
            if action != "Ignore":
                course.failed += 1
                wait = min(self._backoff * 2 ** (course.failed - 1), _MAX_BACKOFF_SECONDS)
                course.retry_at = self._loop.time() + wait

    def _judge(self, job: Record, *, course: Course) -> None:
        spec = job.obj["spec"]
        if course.verdict is not None or spec.get("suspend"):
            return
        if course.failed > spec["backoffLimit"]:
            course.verdict = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
        elif (deadline := spec.get("activeDeadlineSeconds")) is not None:
            left = course.started + deadline - time.time()
            if left <= 0:
                course.verdict = _DEADLINE
            else:
                self._wake_later(course, name="deadline", seconds=left, key=job.key)

    def _make_pods(self, job: Record, *, course: Course, active: int) -> None:
        spec = job.obj["spec"]
        missing = min(spec["parallelism"], (spec.get("completions") or 1) - course.succeeded) - active
        if missing <= 0:
            return
        wait = course.retry_at - self._loop.time()
        if wait > 0:
            self._wake_later(course, name="retry", seconds=wait, key=job.key)
            return
        for _ in range(missing):
            if not self._make_pod(job, course=course):
                course.retry_at = self._loop.time() + max(self._backoff, 0.05) * 2 ** min(course.refused, 6)
                self._wake_later(course, name="retry", seconds=course.retry_at - self._loop.time(), key=job.key)
                return

    def _make_pod(self, job: Record, *, course: Course) -> bool:
        namespace, name = job.key
        outcome = outcome_of(self._scripts.script_for(job.obj), attempt=course.made)
        if not outcome.creates_pod:
            course.refused += 1
            message = f'Error creating: pods "{name[:_NAME_BASE]}-{suffix()}" is forbidden: {_QUOTA}'
            self._recorder.tell(job, reason="FailedCreate", message=message, component=_COMPONENT, kind="Warning")
            return False
        course.made += 1
        template = job.obj["spec"]["template"]
        metadata = template.get("metadata", {})
        uid = new_uid()
        pod: Json = {
            "metadata": {
                "name": f"{name}-"[:_NAME_BASE] + suffix(),
                "generateName": f"{name}-",
                "namespace": namespace,
                "uid": uid,
                "creationTimestamp": clock.now(),
                "generation": 1,
                "labels": metadata.get("labels", {}),
                "annotations": metadata.get("annotations", {}),
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": name,
                        "uid": job.uid,
                        "controller": True,
                        "blockOwnerDeletion": True,
                    }
                ],
            },
            "spec": dict(template["spec"]),
            "status": pod_status.pending(),
        }
        fill_pod(pod)
        if self._kubelet is not None:
            self._kubelet.plan(uid=uid, outcome=outcome, seconds=self._scripts.seconds_for(job.obj))
        self._store.add(PODS, obj=pod)
        if outcome.passes_deadline and self._kubelet is not None:
            wait = self._kubelet.pod_start_seconds + self._kubelet.run_seconds
            course.timers["outcome"] = self._loop.call_later(wait, self.pass_deadline, job)
        self._recorder.tell(
            job, reason="SuccessfulCreate", message=f"Created pod: {pod['metadata']['name']}", component=_COMPONENT
        )
        return True

    def _report(self, job: Record, *, course: Course, complete: bool) -> None:
        before = job.obj.get("status", {})
        moment = clock.now()
        pods = [pod for pod in self._store.pods_of(job.uid) if not pod_status.is_over(pod.obj)]
        active = [pod for pod in pods if not pod.terminating]
        status = {key: value for key, value in before.items() if key not in ("active", "succeeded", "failed")}
        suspended = bool(job.obj["spec"].get("suspend"))
        if suspended:
            status.pop("startTime", None)
        elif "startTime" not in status:
            status["startTime"] = moment
            course.started = time.time()
        numbers = {"active": len(active), "succeeded": course.succeeded, "failed": course.failed}
        status |= {name: number for name, number in numbers.items() if number}
        status["ready"] = sum(pod_status.is_ready(pod.obj) for pod in active)
        status["terminating"] = len(pods) - len(active)
        status["uncountedTerminatedPods"] = {}
        conditions = list(before.get("conditions", []))
        if suspended != _has(conditions, "Suspended") and (
            suspended or any(c["type"] == "Suspended" for c in conditions)
        ):
            reason = ("JobSuspended", "Job suspended") if suspended else ("JobResumed", "Job resumed")
            conditions = [found for found in conditions if found["type"] != "Suspended"]
            conditions.append(_condition("Suspended", why=reason, moment=moment, true=suspended))
        decided = self._decide(conditions, course=course, complete=complete, moment=moment)
        if conditions:
            status["conditions"] = conditions
        job = self._store.replace(job, obj={**job.obj, "status": status})
        if decided and not pods:
            self._end(job, moment=moment)
            self._expire(job, course)

    def _decide(self, conditions: list[Json], *, course: Course, complete: bool, moment: str) -> bool:
        """Adds the interim condition; says whether the Job's end is decided."""
        if course.verdict is not None:
            if not _has(conditions, "FailureTarget"):
                conditions.append(_condition("FailureTarget", why=course.verdict, moment=moment))
            return True
        if complete and not _has(conditions, "SuccessCriteriaMet"):
            why = ("CompletionsReached", "Reached expected number of succeeded pods")
            conditions.append(_condition("SuccessCriteriaMet", why=why, moment=moment))
        return complete

    def _end(self, job: Record, *, moment: str) -> None:
        status = dict(job.obj["status"])
        decided = next(c for c in status["conditions"] if c["type"] in ("FailureTarget", "SuccessCriteriaMet"))
        failed = decided["type"] == "FailureTarget"
        why = (decided["reason"], decided["message"])
        end = _condition("Failed" if failed else "Complete", why=why, moment=moment)
        status["conditions"] = [*status["conditions"], end]
        if failed:
            self._recorder.tell(job, reason=why[0], message=why[1], component=_COMPONENT, kind="Warning")
        else:
            status["completionTime"] = moment
            self._recorder.tell(job, reason="Completed", message="Job completed", component=_COMPONENT)
        self._store.replace(job, obj={**job.obj, "status": status})

    def _expire(self, job: Record, course: Course) -> None:
        """The TTL controller: removes finished Jobs with their pods."""
        for name in ("deadline", "outcome", "retry"):
            if timer := course.timers.pop(name, None):
                timer.cancel()
        course.counted.clear()
        lifetime = job.obj["spec"].get("ttlSecondsAfterFinished")
        if lifetime is not None and "ttl" not in course.timers:
            course.timers["ttl"] = self._loop.call_later(lifetime, self._remove, job.key, job.uid)

    def _remove(self, key: Key, uid: str) -> None:
        job = self._store.find(JOBS, namespace=key[0], name=key[1])
        if job is not None and job.uid == uid and not job.terminating:
            delete(self._store, record=job, policy="Foreground")


def _matters(change: Change) -> bool:
    """Whether a pod's write can change what its Job counts."""
    if change.kind != "MODIFIED" or change.before is None:
        return True
    before, after = change.before, change.after
    return (
        before.terminating != after.terminating
        or before.obj["status"].get("phase") != after.obj["status"].get("phase")
        or pod_status.is_ready(before.obj) != pod_status.is_ready(after.obj)
    )


def _has(conditions: list[Json], kind: str) -> bool:
    return any(found["type"] == kind and found["status"] == "True" for found in conditions)


def _condition(kind: str, *, why: tuple[str, str], moment: str, true: bool = True) -> Json:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "lastProbeTime": moment,
        "lastTransitionTime": moment,
        "reason": why[0],
        "message": why[1],
    }


def policy_action(policy: Json | None, *, pod: Record) -> tuple[str, str]:
    """The action and message of the first rule of a podFailurePolicy that a failed pod matches."""
    status = pod.obj["status"]
    where = "/".join(pod.key)
    for index, rule in enumerate((policy or {}).get("rules", [])):
        tail = f"matching {rule['action']} rule at index {index}"
        for pattern in rule.get("onPodConditions", []):
            wanted = (pattern["type"], pattern.get("status", "True"))
            if any((found["type"], found["status"]) == wanted for found in status.get("conditions", [])):
                return rule["action"], f"Pod {where} has condition {pattern['type']} {tail}"
        codes = rule.get("onExitCodes")
        for container in [*status.get("containerStatuses", []), *status.get("initContainerStatuses", [])]:
            code = container["state"].get("terminated", {}).get("exitCode", 0)
            named = codes is not None and codes.get("containerName") in (None, container["name"])
            if code and named and (code in codes["values"]) == (codes["operator"] == "In"):
                return rule[
                    "action"
                ], f"Container {container['name']} for pod {where} failed with exit code {code} {tail}"
    return "Count", ""
