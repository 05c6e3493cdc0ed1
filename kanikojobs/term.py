"""One term of a leader: two feeds (Jobs, pods) fill an inbox; the main thread empties it and applies what changed.

The main thread alone uses the database, over the connection that holds the leader's lock; logs, Events and deletions
are calls of a few reader threads. A term begins with nothing known and ends with everything forgotten, and
compare-and-swap keeps what was written from being written twice.
"""

from collections import Counter
from functools import partial
from queue import Empty

import structlog

from kanikojobs import applying, kube_watch, sweeping
from kanikojobs.absences import Absences
from kanikojobs.deletions import Deletions
from kanikojobs.desk import Desk
from kanikojobs.feeds import Feed
from kanikojobs.leader import Leadership
from kanikojobs.observed import Job, Pod, read_job, read_pod
from kanikojobs.readings import Readings
from kanikojobs.refusals import Refusals
from kanikojobs.states import State

log = structlog.get_logger(__name__)

TICK = 0.25  # seconds; how long the main thread sleeps at most
LOOK_AGAIN = 0.5  # seconds after which a Job is looked at again whose row is not ready for what it has to say
BATCH = 200  # Jobs per transaction


class Term:
    """From the first list to the loss of the lead. `resync` is the time in seconds between two fresh lists."""

    def __init__(self, *, leadership: Leadership, resync: float, moved: Counter[State]) -> None:
        self._desk = Desk(leadership=leadership, moved=moved)
        self.tracker = self._desk.tracker
        self._readings = Readings(self._desk)
        self._absences = Absences(self._desk)
        self._deletions = Deletions(self._desk)
        self._refusals = Refusals(self._desk)
        self._listed: set[str] = set()
        self.jobs: Feed[Job] = Feed(
            path=kube_watch.jobs_path(),
            inbox=self._desk.inbox,
            read=read_job,
            seen=self.tracker.job_seen,
            gone=self.tracker.job_gone,
            listed=self._jobs_listed,
            resync=resync,
        )
        self.pods: Feed[Pod] = Feed(
            path=kube_watch.pods_path(),
            inbox=self._desk.inbox,
            read=read_pod,
            seen=self.tracker.pod_seen,
            gone=self.tracker.pod_gone,
            listed=self._pods_listed,
            resync=resync,
        )
        self.jobs.start()
        self.pods.start()

    def close(self) -> None:
        for part in (self.jobs, self.pods, self._desk):
            part.close()
        for feed in (self.jobs, self.pods):
            feed.join(0.2)

    def step(self) -> None:
        """Wait a moment for news, apply what there is, and do what is due.

        Raises `LostLeadership`, and `OperationalError` or `InterfaceError` when the database is away: the term is over.
        """
        self._take_news()
        self._readings.keep_logs_of_leaving()
        if self._listed == {"jobs", "pods"}:
            while names := self.tracker.take_changed(BATCH):
                self._apply(names)
        self._do_what_is_due()

    def _take_news(self) -> None:
        acts = 0
        try:
            self._desk.inbox.get(timeout=TICK)()
            while acts < 5 * BATCH:
                acts += 1
                self._desk.inbox.get_nowait()()
        except Empty:
            return

    def _apply(self, names: list[str]) -> None:
        batch = {name: tracked for name in names if (tracked := self.tracker.jobs.get(name))}
        if not batch:
            return
        applied = applying.apply(batch, leadership=self._desk.leadership)
        self._desk.moved += applied.moved
        for name in applied.ask_pods:
            self._readings.ask_pods(name)
        for name, wanted in applied.read_first:
            self._readings.read_first(name, wanted)
        for name in applied.again:
            self._desk.agenda.after(LOOK_AGAIN, partial(self.tracker.mark, name))
        for id, wanted in applied.captures:
            self._readings.capture(id, wanted)
        for name, uid in applied.stop:
            self._deletions.stop(applied.rows[name].id, name=name, uid=uid)
        for name in applied.settled:
            self.tracker.forget(name)

    def _jobs_listed(self, names: set[str], began: float) -> None:
        self._listed.add("jobs")
        self.tracker.jobs_listed(names, began)
        self._absences.look_for(names | self.tracker.jobs.keys(), began)
        seen = [tracked.job for tracked in self.tracker.jobs.values() if tracked.job]
        if repaired := sweeping.repair_creating(seen, leadership=self._desk.leadership):
            log.warning("creating-repaired", count=repaired)
        if lost := sweeping.close_lost_attempts(leadership=self._desk.leadership):
            log.warning("attempts-lost", count=lost)

    def _pods_listed(self, names: set[str], began: float) -> None:
        self._listed.add("pods")
        self.tracker.pods_listed(names, began)

    def _do_what_is_due(self) -> None:
        agenda = self._desk.agenda
        agenda.do_what_is_due()
        if agenda.is_time("cancel", every=0.5):
            self._deletions.cancel()
        if agenda.is_time("ask why no pods", every=1.0):
            self._refusals.ask_why_no_pods()
        if agenda.is_time("capture what was left", every=15.0):
            self._readings.capture_what_was_left()
