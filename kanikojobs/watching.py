"""The watcher: what Kubernetes says of Jobs and pods becomes states of rows, with the reasons and the evidence.

Two feeds (Jobs, pods) fill an inbox; the main thread empties it, applies what changed in batches, and does what is due
by the clock. It alone uses the database, over the connection that holds the leader's lock. Logs, Events and deletions
are calls of a few reader threads. A leader that loses its connection forgets everything and stands in line again;
whoever leads next begins with a fresh list, and compare-and-swap keeps what was written from being written twice.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from queue import Empty

import structlog
from django.db import InterfaceError, OperationalError, connection, transaction

from kanikojobs import applying, concurrency, dead_letters, diagnosis, evidence, kube_watch, retry, sweeping, tallies
from kanikojobs.errors import CreationError
from kanikojobs.evidence import Captured, Wanted
from kanikojobs.feeds import Act, Feed, Inbox
from kanikojobs.heartbeats import Pulse
from kanikojobs.leader import Leadership, LostLeadership
from kanikojobs.models import Heartbeat, KanikoJob, Move
from kanikojobs.observed import Job, Pod, read_job, read_pod
from kanikojobs.readers import Readers
from kanikojobs.states import State
from kanikojobs.sweeping import Suspect
from kanikojobs.tracking import Tracker

log = structlog.get_logger(__name__)

STANDBY = 1.0  # seconds between two tries to become the leader
TICK = 0.25  # seconds; how long the main thread sleeps at most
BATCH = 200  # Jobs per transaction
READERS = 4
POD_GRACE = 0.15  # seconds that a Job's end waits for the news of its pod's
MOST_TRIES = 4  # of reading the evidence of one Job
LATE_EVIDENCE = 60.0  # seconds after which evidence that nobody reads is read by whoever leads
FIRST_QUESTION = 2.0  # seconds without a pod, after which the Job's Events are asked why


def nothing() -> None:
    """What there is to do when a call has come to nothing."""


@dataclass(slots=True)
class Watching:
    """Leads or stands by until `stop` is set. `resync` is the time in seconds between two fresh lists."""

    resync: float = 300.0
    stop: threading.Event = field(default_factory=threading.Event)
    moved: Counter[State] = field(default_factory=Counter)
    leads: bool = False

    def run(self) -> None:
        """Watch until stopped."""
        leadership = Leadership()
        pulse = Pulse(Heartbeat.Role.WATCHER)
        said = False
        while not self.stop.is_set():
            try:
                if leadership.acquire():
                    log.info("watcher-leads")
                    said = False
                    self.leads = True
                    self._lead(leadership, pulse)
                else:
                    if not said:
                        log.info("watcher-stands-by")
                        said = True
                    pulse.beat({"leads": False})
            except (OperationalError, InterfaceError, LostLeadership) as error:
                log.warning("watcher-without-database", error=f"{type(error).__name__}: {error}".splitlines()[0])
                connection.close()
            finally:
                self.leads = False
                leadership.release()
            self.stop.wait(STANDBY)
        try:
            pulse.rest()
        except (OperationalError, InterfaceError):
            connection.close()

    def _lead(self, leadership: Leadership, pulse: Pulse) -> None:
        term = Term(leadership=leadership, resync=self.resync, moved=self.moved)
        try:
            while not self.stop.is_set():
                term.step()
                pulse.beat({"leads": True, "tracked": len(term.tracker.jobs), "lists": term.jobs.lists})
        finally:
            term.close()


class Term:
    """One term of a leader: begins with nothing known, ends with everything forgotten."""

    def __init__(self, *, leadership: Leadership, resync: float, moved: Counter[State]) -> None:
        self._leadership = leadership
        self._moved = moved
        self.tracker = Tracker()
        self._inbox: Inbox = Inbox()
        # The readings that a state waits for do not stand in line behind those that only fill the record.
        self._urgent = Readers(count=READERS, inbox=self._inbox, name="reader")
        self._patient = Readers(count=READERS, inbox=self._inbox, name="archivist")
        self._listed: set[str] = set()
        self._later: list[tuple[float, Act]] = []
        self._capturing: set[int] = set()
        self._deleting: set[str] = set()
        self._due: dict[str, float] = {}
        self.jobs: Feed[Job] = Feed(
            path=kube_watch.jobs_path(),
            inbox=self._inbox,
            read=read_job,
            seen=self.tracker.job_seen,
            gone=self.tracker.job_gone,
            listed=self._jobs_listed,
            resync=resync,
        )
        self.pods: Feed[Pod] = Feed(
            path=kube_watch.pods_path(),
            inbox=self._inbox,
            read=read_pod,
            seen=self.tracker.pod_seen,
            gone=self.tracker.pod_gone,
            listed=self._pods_listed,
            resync=resync,
        )
        self.jobs.start()
        self.pods.start()

    def close(self) -> None:
        for part in (self.jobs, self.pods, self._urgent, self._patient):
            part.close()
        for feed in (self.jobs, self.pods):
            feed.join(0.2)

    def step(self) -> None:
        """Wait a moment for news, apply what there is, and do what is due."""
        acts = 0
        try:
            self._inbox.get(timeout=TICK)()
            while acts < 5 * BATCH:
                acts += 1
                self._inbox.get_nowait()()
        except Empty:
            pass
        self._keep_logs_of_leaving()
        if self._listed == {"jobs", "pods"}:
            while names := self.tracker.take_changed(BATCH):
                self._apply(names)
        self._do_what_is_due()

    def _apply(self, names: list[str]) -> None:
        batch = {name: tracked for name in names if (tracked := self.tracker.jobs.get(name))}
        if not batch:
            return
        applied = applying.apply(batch, leadership=self._leadership)
        self._moved += applied.moved
        for name in applied.ask_pods:
            self._wait_for_pods(name)
        for name, wanted in applied.read_first:
            self._read_first(name, wanted)
        for id, wanted in applied.captures:
            self._capture(id, wanted)
        for name, uid in applied.stop:
            self._stop(applied.rows[name].id, name, uid)
        for name in applied.settled:
            self.tracker.forget(name)

    # --- Reading what a state or the record needs -------------------------------------------------------------------

    def _wait_for_pods(self, name: str) -> None:
        tracked = self.tracker.jobs[name]
        tracked.asked_for_pods = True

        def ask() -> None:
            if tracked.pods_are_told:
                self.tracker.mark(name)
            else:
                self._urgent.submit(partial(self._ask_pods, name), otherwise=partial(self.tracker.mark, name))

        self._later.append((time.monotonic() + POD_GRACE, ask))

    def _ask_pods(self, name: str) -> Act:
        try:
            pods = [read_pod(obj) for obj in kube_watch.pods_of(name)]
        except CreationError as error:
            log.warning("pods-unknown", kaniko_job=name, reason=error.reason)
            pods = []

        def told() -> None:
            for pod in pods:
                self.tracker.pod_seen(pod)
            self.tracker.mark(name)

        return told

    def _read_first(self, name: str, wanted: Wanted) -> None:
        tracked = self.tracker.jobs[name]
        tracked.reading = True

        def done(captured: Captured) -> None:
            tracked.reading = False
            tracked.tries += 1
            if captured.again and tracked.tries < MOST_TRIES:
                self._later.append((time.monotonic() + 0.2 * 2**tracked.tries, partial(self.tracker.mark, name)))
                return
            tracked.captured = captured
            self.tracker.mark(name)

        self._urgent.submit(lambda: partial(done, evidence.capture(wanted)), otherwise=partial(done, Captured()))

    def _capture(self, id: int, wanted: Wanted, *, tries: int = 1) -> None:
        self._capturing.add(id)

        def done(captured: Captured) -> None:
            if captured.again and tries < MOST_TRIES:
                again = partial(self._capture, id, wanted, tries=tries + 1)
                self._later.append((time.monotonic() + 2.0**tries, again))
                return
            with transaction.atomic():
                self._leadership.check()
                evidence.record(id, captured, final=True)
            self._capturing.discard(id)

        failed = Captured(missing=["logs and Events: could not be read"])
        self._patient.submit(lambda: partial(done, evidence.capture(wanted)), otherwise=partial(done, failed))

    def _keep_logs_of_leaving(self) -> None:
        """Pods that are being removed take their logs with them: read those now, whatever will become of the Job."""
        leaving, self.tracker.leaving = self.tracker.leaving, []
        for name, pod in leaving:
            wanted = Wanted.of(name=name, uid="", pods=[pod])
            read = partial(self._read_of_leaving, name, wanted)
            self._urgent.submit(read, otherwise=nothing)

    def _read_of_leaving(self, name: str, wanted: Wanted) -> Act:
        captured = evidence.capture(wanted)

        def done() -> None:
            with transaction.atomic():
                self._leadership.check()
                if row := applying.rows_of([name]).get(name):
                    evidence.record(row.id, captured, final=False)

        return done

    # --- Lists ------------------------------------------------------------------------------------------------------

    def _jobs_listed(self, names: set[str], began: float) -> None:
        self._listed.add("jobs")
        self.tracker.jobs_listed(names, began)
        before = datetime.now(UTC) - timedelta(seconds=time.monotonic() - began)
        for suspect in sweeping.suspects(names | self.tracker.jobs.keys(), before=before):
            self._urgent.submit(partial(self._ask_for, suspect), otherwise=nothing)
        seen = [tracked.job for tracked in self.tracker.jobs.values() if tracked.job]
        if repaired := sweeping.repair_creating(seen, leadership=self._leadership):
            log.warning("creating-repaired", count=repaired)

    def _pods_listed(self, names: set[str], began: float) -> None:
        self._listed.add("pods")
        self.tracker.pods_listed(names, began)

    def _ask_for(self, suspect: Suspect) -> Act:
        try:
            if kube_watch.job_exists(suspect.name, uid=suspect.job_uid):
                return nothing
        except CreationError as error:
            # The next list asks again.
            log.warning("suspect-unknown", kaniko_job=suspect.name, reason=error.reason)
            return nothing
        return partial(self._vanish, suspect)

    def _vanish(self, suspect: Suspect) -> None:
        tracked = self.tracker.jobs.get(suspect.name)
        if tracked is not None and tracked.job is not None and tracked.job.uid == suspect.job_uid:
            return
        with transaction.atomic():
            self._leadership.check()
            row = applying.rows_of([suspect.name]).get(suspect.name)
            if row is None:
                return
            found = diagnosis.vanished(())
            if row.cancel_requested_at is not None:
                move = retry.cancelled(id=row.id, reason=row.reason, message=row.message)
            else:
                move = Move(id=row.id, to=State.FAILED, reason=found.reason, message=found.message)
            moved = KanikoJob.objects.move([move])
            if not moved:
                return
            self._moved[move.to] += 1
            counts = Counter({f"finished/{move.to}/{move.reason}": 1})
            if move.to == State.FAILED:
                counts += sweeping.report_vanished([(row.id, row.name, row.job_uid)])
                dead_letters.record_failed_builds({row.id: move.message})
            applying.free_places()
            tallies.add(tallies.counts(counts))
        log.warning("job-vanished", kaniko_job=row.name, state=move.to)

    # --- By the clock -----------------------------------------------------------------------------------------------

    def _do_what_is_due(self) -> None:
        now = time.monotonic()
        if self._later:
            due = [act for at, act in self._later if at <= now]
            self._later = [(at, act) for at, act in self._later if at > now]
            for act in due:
                act()
        if self._is_due("cancel", every=0.5, now=now):
            self._cancel()
        if self._is_due("question", every=1.0, now=now):
            self._ask_why_no_pods(now)
        if self._is_due("evidence", every=15.0, now=now):
            for waiting in evidence.waiting(older_than=LATE_EVIDENCE, most=100):
                if waiting.kaniko_job not in self._capturing:
                    self._capture(waiting.kaniko_job, waiting.wanted)

    def _is_due(self, what: str, *, every: float, now: float) -> bool:
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + every
        return True

    def _ask_why_no_pods(self, now: float) -> None:
        for name, since in list(self.tracker.without_pods.items()):
            tracked = self.tracker.jobs.get(name)
            if tracked is None or tracked.job is None or tracked.job.suspended or now < since + FIRST_QUESTION:
                continue
            # Asked again after twice the time: an Event may come late, and a quota may stay full for hours.
            self.tracker.without_pods[name] = now + min(60.0, now - tracked.seen_at) - FIRST_QUESTION
            self._patient.submit(partial(self._ask_events, name, tracked.job.uid), otherwise=nothing)

    def _ask_events(self, name: str, uid: str) -> Act:
        try:
            events = kube_watch.events_about(uid)
        except CreationError as error:
            log.warning("events-unknown", kaniko_job=name, reason=error.reason)
            return nothing
        messages = [str(event.get("message")) for event in events if event.get("reason") == "FailedCreate"]
        why = diagnosis.of_refused_pods(messages)

        def told() -> None:
            tracked = self.tracker.jobs.get(name)
            if why is None or tracked is None or tracked.pods:
                return
            with transaction.atomic():
                self._leadership.check()
                if row := applying.rows_of([name]).get(name):
                    KanikoJob.objects.note_waits({row.id: why})

        return told

    def _cancel(self) -> None:
        concurrency.replace_active()
        for wish in sweeping.to_be_cancelled():
            if wish.name in self._deleting:
                continue
            tracked = self.tracker.jobs.get(wish.name)
            if tracked is not None and tracked.job is not None and (tracked.job.terminating or tracked.job.end):
                continue
            pods = tracked.pods_in_order() if tracked else []
            self._deleting.add(wish.name)
            self._urgent.submit(
                partial(self._delete, wish, [pod for pod in pods if not pod.over]),
                otherwise=partial(self._deleting.discard, wish.name),
            )

    def _delete(self, wish: Suspect, pods: list[Pod]) -> Act:
        """Delete the Job of a cancelled row, after its logs were read."""
        captured = evidence.capture(Wanted.of(name=wish.name, uid="", pods=pods)) if pods else Captured()
        try:
            there = kube_watch.delete_job(wish.name, uid=wish.job_uid)
        except CreationError as error:
            log.warning("cannot-delete", kaniko_job=wish.name, reason=error.reason)
            there = True

        def done() -> None:
            self._deleting.discard(wish.name)
            with transaction.atomic():
                self._leadership.check()
                evidence.record(wish.id, captured, final=False)
                if not there:
                    move = retry.cancelled(id=wish.id, reason=wish.reason, message=wish.message)
                    if KanikoJob.objects.move([move]):
                        self._moved[State.CANCELLED] += 1
                        applying.free_places()
                        tallies.add(tallies.counts({f"finished/cancelled/{move.reason}": 1}))

        return done

    def _stop(self, id: int, name: str, uid: str) -> None:
        """A Job that came to be after its row was cancelled: nobody wants it."""
        if name in self._deleting:
            return
        self._deleting.add(name)

        def delete() -> Act:
            try:
                kube_watch.delete_job(name, uid=uid)
            except CreationError as error:
                log.warning("cannot-delete", kaniko_job=name, reason=error.reason)
                return partial(self._deleting.discard, name)
            return done

        def done() -> None:
            self._deleting.discard(name)
            sweeping.report_cancelled_runs(id, name, uid)

        self._urgent.submit(delete, otherwise=partial(self._deleting.discard, name))
