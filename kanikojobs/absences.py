"""Rows whose Job a fresh list does not have: each is asked for by name, and fails as `JobVanished` if it is gone."""

import time
from collections import Counter
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from functools import partial

import structlog
from django.db import transaction

from kanikojobs import applying, dead_letters, diagnosis, kube_watch, retry, sweeping, tallies
from kanikojobs.desk import Desk, nothing
from kanikojobs.errors import CreationError
from kanikojobs.feeds import Act
from kanikojobs.models import KanikoJob, Move
from kanikojobs.states import State
from kanikojobs.sweeping import Suspect

log = structlog.get_logger(__name__)


class Absences:
    """The absences that one term finds."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def look_for(self, listed: Collection[str], began: float) -> None:
        """Ask for each Job that a list, begun at that monotonic time, should have had."""
        before = datetime.now(UTC) - timedelta(seconds=time.monotonic() - began)
        for suspect in sweeping.suspects(listed, before=before):
            self._desk.urgent.submit(partial(self._ask_for, suspect), otherwise=nothing)

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
        tracked = self._desk.tracker.jobs.get(suspect.name)
        if tracked is not None and tracked.job is not None and tracked.job.uid == suspect.job_uid:
            return
        with transaction.atomic():
            self._desk.leadership.check()
            row = applying.rows_of([suspect.name]).get(suspect.name)
            if row is None:
                return
            found = diagnosis.vanished()
            if row.cancel_requested_at is not None:
                move = retry.cancelled(id=row.id, reason=row.reason, message=row.message)
            else:
                move = Move(id=row.id, to=State.FAILED, reason=found.reason, message=found.message)
            moved = KanikoJob.objects.move([move])
            if not moved:
                return
            self._desk.moved[move.to] += 1
            counts = Counter({f"finished/{move.to}/{move.reason}": 1})
            if move.to == State.FAILED:
                counts += sweeping.report_vanished([(row.id, row.name, row.job_uid)])
                dead_letters.record_failed_builds({row.id: move.message})
            applying.free_places()
            tallies.add(tallies.counts(counts))
        log.warning("job-vanished", kaniko_job=row.name, state=move.to)
