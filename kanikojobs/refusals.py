"""Jobs without a pod: the Job controller says why in Events only, because there is no pod that could have a status."""

import time
from functools import partial

import structlog
from django.db import transaction

from kanikojobs import applying, kube_watch
from kanikojobs.desk import Desk, nothing
from kanikojobs.errors import CreationError
from kanikojobs.feeds import Act
from kanikojobs.models import KanikoJob
from kanikojobs.obstacles import refusal_of

log = structlog.get_logger(__name__)

FIRST_QUESTION = 2.0  # seconds without a pod, after which the Job's Events are asked why


class Refusals:
    """The questions of one term: asked again and again, ever less often, while a Job has no pod."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def ask_why_no_pods(self) -> None:
        now = time.monotonic()
        tracker = self._desk.tracker
        for name, since in list(tracker.without_pods.items()):
            tracked = tracker.jobs.get(name)
            if tracked is None or tracked.job is None or tracked.job.suspended or now < since + FIRST_QUESTION:
                continue
            # Asked again after twice the time: an Event may come late, and a quota may stay full for hours.
            tracker.without_pods[name] = now + min(60.0, now - tracked.seen_at) - FIRST_QUESTION
            self._desk.patient.submit(partial(self._ask_events, name, tracked.job.uid), otherwise=nothing)

    def _ask_events(self, name: str, uid: str) -> Act:
        try:
            events = kube_watch.events_about(uid)
        except CreationError as error:
            log.warning("events-unknown", kaniko_job=name, reason=error.reason)
            return nothing
        messages = [str(event.get("message")) for event in events if event.get("reason") == "FailedCreate"]
        why = refusal_of(messages)

        def note() -> None:
            tracked = self._desk.tracker.jobs.get(name)
            if why is None or tracked is None or tracked.pods:
                return
            with transaction.atomic():
                self._desk.leadership.check()
                if row := applying.rows_of([name]).get(name):
                    KanikoJob.objects.note_waits({row.id: why})

        return note
