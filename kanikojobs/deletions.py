"""Jobs that nobody wants any more are deleted: those of cancelled rows, and those that came to be after that."""

from functools import partial

import structlog
from django.db import transaction

from kanikojobs import applying, concurrency, evidence, kube_watch, retry, sweeping, tallies
from kanikojobs.desk import Desk
from kanikojobs.errors import CreationError
from kanikojobs.evidence import Captured, Wanted
from kanikojobs.feeds import Act
from kanikojobs.models import KanikoJob
from kanikojobs.observed import Pod
from kanikojobs.states import State
from kanikojobs.sweeping import Suspect

log = structlog.get_logger(__name__)


class Deletions:
    """The deletions of one term: each Job's once at a time."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._deleting: set[str] = set()

    def cancel(self) -> None:
        """Delete the Jobs of all rows whose cancellation was asked for, by a person or by the policy `Replace`."""
        concurrency.replace_active()
        for wish in sweeping.to_be_cancelled():
            if wish.name in self._deleting:
                continue
            tracked = self._desk.tracker.jobs.get(wish.name)
            if tracked is not None and tracked.job is not None and (tracked.job.terminating or tracked.job.end):
                continue
            pods = tracked.pods_in_order() if tracked else []
            self._deleting.add(wish.name)
            self._desk.removal.submit(
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
                self._desk.leadership.check()
                evidence.record(wish.id, captured, final=False)
                if not there:
                    move = retry.cancelled(id=wish.id, reason=wish.reason, message=wish.message)
                    if KanikoJob.objects.move([move]):
                        self._desk.moved[State.CANCELLED] += 1
                        applying.free_places()
                        tallies.add(tallies.counts({f"finished/cancelled/{move.reason}": 1}))

        return done

    def stop(self, id: int, *, name: str, uid: str) -> None:
        """Delete a Job that came to be after its row was cancelled: nobody wants it."""
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

        self._desk.removal.submit(delete, otherwise=partial(self._deleting.discard, name))
