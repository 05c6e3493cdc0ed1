"""What is known of the Jobs that are not finished with: each Job with its pods, as the feeds have told it last.

Only in memory, and only as much as a diagnosis needs: a Job whose row is finished is forgotten, so the memory follows
the number of active Jobs and not what lies about in the cluster until its time to live ends.
"""

import time
from dataclasses import dataclass, field

from kanikojobs.evidence import Captured
from kanikojobs.observed import Job, Pod, oldest_first
from kanikojobs.obstacles import wait_of

MOST_GONE_PODS = 5


@dataclass(slots=True)
class Tracked:
    """A Job and its pods. `job` is None while only a pod was seen; `gone` says that the Job was deleted.

    `ran` says that a pod of it was seen to have run; `wait` is what its pods have last said to wait for, ("", "") for
    nothing, and None while no pod has said anything. Both outlast the pods, whose last words do not tell it any more.
    `asking` says that the pods of an ended Job are being waited for or asked for, `asked` that this came to something.
    `captured` holds what was read for the diagnosis, `rescued` the ends of the logs of pods that were leaving;
    `reading` says that something is being read, `overdue` that a state cannot wait for it any longer.
    """

    job: Job | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    gone_pods: set[str] = field(default_factory=set)
    gone: bool = False
    ran: bool = False
    wait: tuple[str, str] | None = None
    reading: bool = False
    overdue: bool = False
    captured: Captured | None = None
    rescued: dict[tuple[str, str], str] = field(default_factory=dict)
    tries: int = 0
    asking: bool = False
    asked: bool = False
    seen_at: float = field(default_factory=time.monotonic)

    def pods_in_order(self) -> list[Pod]:
        return oldest_first(self.pods.values())

    def remember(self, pod: Pod) -> None:
        """Take note of what a pod says now and will not say at its end."""
        if pod.started:
            self.ran = True
        if wait := wait_of(pod):
            self.wait = wait
        elif not pod.over and not pod.terminating:
            self.wait = ("", "")

    @property
    def pods_are_told(self) -> bool:
        """Whether the pods' ends are known, as far as the Job's end says that there must be some.

        The two feeds are separate streams: a Job's end can arrive before the end of its pod, and so can its removal.
        """
        if self.job is None or not (self.job.end or self.gone):
            return True
        if self.job.end == "Complete":
            return any(pod.phase == "Succeeded" for pod in self.pods.values())
        # Those that were put out do not count: the Job went on without them, so there is another pod to hear of.
        counted = sum(not pod.disruption[0] for pod in self.pods.values())
        over = all(pod.over or uid in self.gone_pods for uid, pod in self.pods.items())
        return bool(self.pods) and over and counted >= self.job.failed


class Tracker:
    """Takes what the feeds say; `take_changed` gives the names of the Jobs that something was said of since."""

    def __init__(self) -> None:
        self.jobs: dict[str, Tracked] = {}
        self._pod_names: dict[str, tuple[str, str]] = {}
        self._changed: dict[str, None] = {}
        self.without_pods: dict[str, float] = {}
        self.leaving: list[tuple[str, Pod]] = []

    def mark(self, name: str) -> None:
        """Have a Job looked at again."""
        self._changed[name] = None

    def take_changed(self, most: int) -> list[str]:
        """The names of Jobs to be looked at, the longest waiting first."""
        names = list(self._changed)[:most]
        for name in names:
            del self._changed[name]
        return names

    def forget(self, name: str) -> None:
        if tracked := self.jobs.pop(name, None):
            for pod in tracked.pods.values():
                self._pod_names.pop(pod.name, None)
        self.without_pods.pop(name, None)

    def job_seen(self, job: Job) -> None:
        tracked = self.jobs.setdefault(job.name, Tracked())
        if tracked.job == job:
            return
        if tracked.job is not None and tracked.job.uid != job.uid:
            # Another Job of the same name: the former one is gone, and its pods are not this one's.
            self.forget(job.name)
            tracked = self.jobs.setdefault(job.name, Tracked())
        tracked.job = job
        tracked.gone = False
        if not tracked.pods and not job.end:
            self.without_pods.setdefault(job.name, time.monotonic())
        else:
            self.without_pods.pop(job.name, None)
        self.mark(job.name)

    def job_gone(self, job: Job) -> None:
        tracked = self.jobs.setdefault(job.name, Tracked())
        if tracked.job is not None and tracked.job.uid != job.uid:
            return
        tracked.job, tracked.gone = job, True
        self.mark(job.name)

    def jobs_listed(self, names: set[str], began: float) -> list[str]:
        """Jobs that a fresh list does not have any more are gone; return their names."""
        gone = [
            name
            for name, tracked in self.jobs.items()
            if name not in names and not tracked.gone and (tracked.job is not None or tracked.seen_at < began)
        ]
        for name in gone:
            tracked = self.jobs[name]
            if tracked.job is None:
                self.forget(name)
            else:
                tracked.gone = True
                self.mark(name)
        return gone

    def pod_seen(self, pod: Pod) -> None:
        if not pod.job_name:
            return
        tracked = self.jobs.setdefault(pod.job_name, Tracked())
        before = tracked.pods.get(pod.uid)
        if before is not None and pod.version < before.version:
            # What was asked for can be older than what the watch has brought since.
            return
        if before == pod and pod.uid not in tracked.gone_pods:
            return
        tracked.remember(pod)
        tracked.pods[pod.uid] = pod
        tracked.gone_pods.discard(pod.uid)
        self._pod_names[pod.name] = (pod.job_name, pod.uid)
        self.without_pods.pop(pod.job_name, None)
        if pod.started and _is_leaving(pod) and not (before and _is_leaving(before)):
            self.leaving.append((pod.job_name, pod))
        self.mark(pod.job_name)

    def pod_gone(self, pod: Pod) -> None:
        self.pod_seen(pod)
        tracked = self.jobs.get(pod.job_name)
        if tracked is None:
            return
        tracked.gone_pods.add(pod.uid)
        if tracked.job is None and len(tracked.gone_pods) == len(tracked.pods):
            self.forget(pod.job_name)
            return
        if len(tracked.gone_pods) > MOST_GONE_PODS:
            oldest = next(found for found in tracked.pods_in_order() if found.uid in tracked.gone_pods)
            tracked.gone_pods.discard(oldest.uid)
            del tracked.pods[oldest.uid]
            self._pod_names.pop(oldest.name, None)
        self.mark(pod.job_name)

    def pods_listed(self, names: set[str], began: float) -> None:
        """Pods that a fresh list does not have any more are gone."""
        for name, (job_name, uid) in list(self._pod_names.items()):
            if name in names:
                continue
            tracked = self.jobs.get(job_name)
            if tracked is not None and uid in tracked.pods and uid not in tracked.gone_pods:
                tracked.gone_pods.add(uid)
                self.mark(job_name)


def _is_leaving(pod: Pod) -> bool:
    """Whether its log will go soon: it is being ended, or its node has put it out and the pod will be replaced."""
    return (pod.terminating and not pod.over) or (pod.phase == "Failed" and bool(pod.disruption[0]))
