"""What has to be read from the API server of Jobs that were seen: pods, logs and Events.

The calls are made by reader threads, because a kubelet can be slow or gone; what they come to is used in the main
thread. Some a state waits for, the others complete the record.
"""

from functools import partial

import structlog
from django.db import transaction

from kanikojobs import applying, evidence, kube_watch
from kanikojobs.desk import Desk, nothing
from kanikojobs.errors import CreationError
from kanikojobs.evidence import Captured, Wanted
from kanikojobs.feeds import Act
from kanikojobs.observed import read_pod
from kanikojobs.tracking import Tracked

log = structlog.get_logger(__name__)

POD_GRACE = 0.15  # seconds that a Job's end waits for the news of its pod's
MOST_TRIES = 4  # of asking for the pods of one Job, or for its evidence
MOST_RESCUED = 16_384  # characters held in memory of the log of a pod that is leaving
LONGEST_READING = 5.0  # seconds that a Job's end waits for a log; a kubelet that is gone with its node never answers
LATE_EVIDENCE = 60.0  # seconds after which evidence that nobody reads is read by whoever leads


class Readings:
    """The readings of one term."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._capturing: set[int] = set()

    # --- What a state waits for -------------------------------------------------------------------------------------

    def ask_pods(self, name: str) -> None:
        """Give the pods of a Job that has ended a moment to tell their end; then ask for them."""
        tracked = self._desk.tracker.jobs[name]
        tracked.asking = True

        def ask() -> None:
            if tracked.pods_are_told:
                self._asked(tracked, name=name)
            else:
                self._ask(tracked, name=name)

        self._desk.agenda.after(POD_GRACE, ask)

    def _ask(self, tracked: Tracked, *, name: str, tries: int = 1) -> None:
        call = partial(self._pods_of, tracked, name=name, tries=tries)
        self._desk.urgent.submit(call, otherwise=partial(self._asked, tracked, name=name))

    def _pods_of(self, tracked: Tracked, *, name: str, tries: int) -> Act:
        try:
            pods = [read_pod(obj) for obj in kube_watch.pods_of(name)]
        except CreationError as error:
            log.warning("pods-unknown", kaniko_job=name, reason=error.reason)
            if tries < MOST_TRIES:
                again = partial(self._ask, tracked, name=name, tries=tries + 1)
                return partial(self._desk.agenda.after, 0.25 * 2**tries, again)
            pods = []

        def told() -> None:
            for pod in pods:
                self._desk.tracker.pod_seen(pod)
            self._asked(tracked, name=name)

        return told

    def _asked(self, tracked: Tracked, *, name: str) -> None:
        tracked.asking, tracked.asked = False, True
        self._desk.tracker.mark(name)

    def read_first(self, name: str, wanted: Wanted) -> None:
        """Read what the reason of a Job's end cannot be told without; for so long as it can wait for that."""
        tracked = self._desk.tracker.jobs[name]
        tracked.reading = True
        mark = partial(self._desk.tracker.mark, name)

        def too_late() -> None:
            tracked.overdue = True
            mark()

        if not tracked.tries:
            self._desk.agenda.after(LONGEST_READING, too_late)

        def done(captured: Captured) -> None:
            tracked.reading = False
            tracked.tries += 1
            if captured.again and tracked.tries < MOST_TRIES:
                self._desk.agenda.after(0.2 * 2**tracked.tries, mark)
                return
            tracked.captured = captured
            mark()

        self._desk.urgent.submit(
            lambda: partial(done, evidence.capture(wanted)),
            otherwise=partial(done, Captured()),
        )

    # --- What completes the record ----------------------------------------------------------------------------------

    def capture(self, id: int, wanted: Wanted, *, tries: int = 1) -> None:
        """Keep the logs and Events of a Kaniko Job that is finished."""
        self._capturing.add(id)

        def done(captured: Captured) -> None:
            if captured.again and tries < MOST_TRIES:
                self._desk.agenda.after(2.0**tries, partial(self.capture, id, wanted, tries=tries + 1))
                return
            with transaction.atomic():
                self._desk.leadership.check()
                evidence.record(id, captured, final=True)
            self._capturing.discard(id)

        failed = Captured(missing=["logs and Events: could not be read"])
        self._desk.patient.submit(
            lambda: partial(done, evidence.capture(wanted)),
            otherwise=partial(done, failed),
        )

    def capture_what_was_left(self) -> None:
        """Keep what a watcher before this one had no time for."""
        for waiting in evidence.waiting(older_than=LATE_EVIDENCE, most=100):
            if waiting.kaniko_job not in self._capturing:
                self.capture(waiting.kaniko_job, waiting.wanted)

    def keep_logs_of_leaving(self) -> None:
        """Pods that are being removed take their logs with them: read those now, whatever will become of the Job."""
        tracker = self._desk.tracker
        leaving, tracker.leaving = tracker.leaving, []
        for name, pod in leaving:
            wanted = Wanted.of(name=name, uid="", pods=[pod])
            self._desk.rescue.submit(partial(self._read_of_leaving, name, wanted), otherwise=nothing)

    def _read_of_leaving(self, name: str, wanted: Wanted) -> Act:
        captured = evidence.capture(wanted)

        def done() -> None:
            if tracked := self._desk.tracker.jobs.get(name):
                tracked.rescued |= {place: tail.text[-MOST_RESCUED:] for place, tail in captured.logs.items()}
            with transaction.atomic():
                self._desk.leadership.check()
                if row := applying.rows_of([name]).get(name):
                    evidence.record(row.id, captured, final=False)

        return done
