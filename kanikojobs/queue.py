"""Django-Q2's broker: its queue of Kaniko Jobs is the table of Kaniko Jobs.

`broker_class` is Django-Q2's documented extension point. Due rows are claimed from Postgres and handed to the
workers as tasks of a few primary keys; between claims it sleeps on LISTEN/NOTIFY. Plain Django-Q2 tasks and schedules
work beside it through Django-Q2's own ORM broker, of which this is a subclass.
"""

import time
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.signing import SignedPackage

from kanikojobs import claims, outages

log = structlog.get_logger(__name__)

# How long a queue sleeps at most when nothing wakes it, in seconds: the net under lost notifications, and how often
# it looks for expired leases.
SLOW_POLL = 1.0
# How often it looks into Django-Q2's own table for plain tasks, in seconds.
PLAIN_TASKS_POLL = 1.0
Package = tuple[Any, str]


class KanikoJobBroker(ORM):
    """Hands out Kaniko Jobs by claim, and everything else as Django-Q2's ORM broker does."""

    def __init__(self, list_key: str | None = None) -> None:
        super().__init__(list_key=list_key)
        self._listening_on: object = None
        self._plain_tasks_seen_at = 0.0

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._listening_on = None
        self._plain_tasks_seen_at = 0.0

    def info(self) -> str:
        return "Kaniko Jobs in PostgreSQL"

    def enqueue(self, task: str) -> int:
        id = super().enqueue(task)
        claims.notify()
        return id

    def acknowledge(self, task_id: int | None) -> None:
        """A plain task is done with. What became of a Kaniko Job is in its row already."""
        if task_id:
            super().acknowledge(task_id)

    def dequeue(self) -> list[Package]:
        """The next tasks, or none after a sleep that a notification, a due time or the slow poll ended."""
        try:
            # LISTEN before the look: what is committed after the look still wakes the sleep.
            self._listen()
            if packages := self._kaniko_jobs() + self._plain_tasks():
                return packages
            self._sleep()
        except (OperationalError, InterfaceError) as error:
            # Left to Django-Q2 this would cost ten seconds and the process.
            log.warning("database-away", error=f"{type(error).__name__}: {error}".splitlines()[0])
            connection.close()
            time.sleep(SLOW_POLL)
        return []

    def _kaniko_jobs(self) -> list[Package]:
        if outages.current() and not outages.probe_if_due():
            return []
        claim = claims.claim(most=settings.KANIKOJOBS_CLAIM_SIZE, lease=settings.KANIKOJOBS_LEASE)
        if not claim.kaniko_jobs:
            return []
        # Few rows are spread over all workers for speed, many are packed for throughput.
        size = min(settings.KANIKOJOBS_TASK_SIZE, -(-len(claim.kaniko_jobs) // settings.KANIKOJOBS_WORKER_COUNT))
        return [
            _package(claim, claim.kaniko_jobs[start : start + size]) for start in range(0, len(claim.kaniko_jobs), size)
        ]

    def _plain_tasks(self) -> list[Package]:
        if time.monotonic() - self._plain_tasks_seen_at < PLAIN_TASKS_POLL:
            return []
        if packages := super().dequeue():
            return packages
        self._plain_tasks_seen_at = time.monotonic()
        return []

    def _listen(self) -> None:
        connection.ensure_connection()
        if self._listening_on is not connection.connection:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {claims.CHANNEL}")
            self._listening_on = connection.connection

    def _sleep(self) -> None:
        seconds = SLOW_POLL
        if due := claims.next_due_at():
            seconds = min(seconds, max(0.001, (due - datetime.now(UTC)).total_seconds()))
        for _ in connection.connection.notifies(timeout=seconds, stop_after=1):
            # A plain task may be what woke us.
            self._plain_tasks_seen_at = 0.0


def _package(claim: claims.Claim, kaniko_jobs: tuple[int, ...]) -> Package:
    """A signed Django-Q2 task (as `django_q.tasks.async_task` makes them) that names its rows and their claim."""
    task = {
        "id": uuid4().hex,
        "name": f"create {len(kaniko_jobs)} from {kaniko_jobs[0]}",
        "func": "kanikojobs.tasks.create_jobs",
        "args": (str(claim.token), list(kaniko_jobs)),
        "kwargs": {},
        "started": timezone.now(),
        # Our rows are the truth; Django-Q2 keeps no second record of the tasks that succeed.
        "save": False,
    }
    return None, SignedPackage.dumps(task)
