"""Django-Q2's broker: its queue of Kaniko Jobs is the table of Kaniko Jobs.

`broker_class` is Django-Q2's documented extension point. Due rows are claimed from Postgres and handed to the
workers as tasks of a few primary keys; between claims it sleeps on LISTEN/NOTIFY. Plain Django-Q2 tasks and schedules
work beside it through Django-Q2's own ORM broker, of which this is a subclass.
"""

import time
from collections import deque
from dataclasses import dataclass
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from queue import Empty
from typing import Any
from uuid import UUID, uuid4

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection
from django.utils import timezone
from django_q.brokers.orm import ORM
from django_q.queues import Queue
from django_q.signing import SignedPackage

from kanikojobs import claims, kube, outages, stopping
from kanikojobs.heartbeats import Pulse
from kanikojobs.models import Heartbeat
from kanikojobs.replay import rules, running

log = structlog.get_logger(__name__)

# Django-Q2 imports this module before it forks its workers.
kube.import_client()

# How long a queue sleeps at most when nothing wakes it, in seconds: the net under lost notifications, and how often
# it looks for expired leases.
SLOW_POLL = 1.0
# How often it looks for due steps of replays when nothing wakes it, in seconds.
REPLAYS_POLL = 0.1
# How often it looks for standing rules that are due, in seconds.
RULES_POLL = 5.0
# How often it looks into Django-Q2's own table for plain tasks, in seconds.
PLAIN_TASKS_POLL = 1.0
Package = tuple[Any, str]


class KanikoJobBroker(ORM):
    """Hands out Kaniko Jobs by claim, and everything else as Django-Q2's ORM broker does."""

    def __init__(self, list_key: str | None = None) -> None:
        super().__init__(list_key=list_key)
        self._start()

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._start()

    def _start(self) -> None:
        self._listening_on: object = None
        self._plain_tasks_seen_at = self._plain_task_turn_at = 0.0
        self._replays_seen_at = self._rules_seen_at = 0.0
        self._claimed: deque[Portion] = deque()
        self._took_all_it_may = False
        # A claim of which we never heard whether it was committed.
        self._unheard_of: UUID | None = None
        self._pulse = Pulse(Heartbeat.Role.WORKERS)
        self._farewell: Finalize | None = None

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
        """The next task, or none after a sleep that a notification, a due time or the slow poll ended.

        One at a time, because Django-Q2 looks only between two calls whether it is to stop.
        """
        if self._farewell is None and parent_process() is not None:
            # Django-Q2's process may stop calling between any two calls, while rows are held here.
            self._farewell = Finalize(None, self._leave, exitpriority=1)
        try:
            if stopping.is_asked_for():
                self._give_back()
                return []
            if self._unheard_of:
                claims.release(token=self._unheard_of)
                self._unheard_of = None
            self._pulse.beat({"workers": settings.KANIKOJOBS_WORKER_COUNT})
            # LISTEN before the look: what is committed after the look still wakes the sleep.
            self._listen()
            # First, because they are few: behind a long backlog a replay would not begin, nor a plain task ever be
            # taken, of which one a second goes before.
            if packages := self._replay_steps() or self._plain_task_in_turn():
                return packages
            if self._claimed or self._claim():
                return [_package(self._claimed.popleft())]
            if packages := self._plain_tasks():
                return packages
            self._sleep()
        except Exception as error:
            # Whatever it is, raised it would cost Django-Q2 ten seconds and the process.
            if isinstance(error, OperationalError | InterfaceError):
                log.warning("database-away", error=f"{type(error).__name__}: {error}".splitlines()[0])
            else:
                log.exception("dequeue-failed")
            connection.close()
            time.sleep(SLOW_POLL)
        return []

    def _claim(self) -> bool:
        """Claim Kaniko Jobs, if any are due and the API server is there; return whether there are some to hand out."""
        on_trial = False
        if outages.current():
            if not outages.probe_if_due():
                return False
            on_trial = True
        self._unheard_of = token = uuid4()
        most = 1 if on_trial else settings.KANIKOJOBS_CLAIM_SIZE
        claim = claims.claim(most=most, lease=settings.KANIKOJOBS_LEASE, token=token, on_trial=on_trial)
        self._unheard_of = None
        if on_trial and not claim.kaniko_jobs:
            # The API server answers, and there is nothing to try it with.
            outages.end()
        size = self._task_size(len(claim.kaniko_jobs))
        for start in range(0, len(claim.kaniko_jobs), size):
            self._claimed.append(Portion(token, claim.kaniko_jobs[start : start + size], on_trial))
        return bool(self._claimed)

    def _task_size(self, claimed: int) -> int:
        """Few rows are spread over all workers for speed; a backlog, of which a claim takes all that it may twice in
        a row, is packed for throughput."""
        behind, self._took_all_it_may = self._took_all_it_may, claimed == settings.KANIKOJOBS_CLAIM_SIZE
        if behind and self._took_all_it_may:
            return int(settings.KANIKOJOBS_TASK_SIZE)
        return max(1, min(settings.KANIKOJOBS_TASK_SIZE, -(-claimed // settings.KANIKOJOBS_WORKER_COUNT)))

    def _give_back(self) -> None:
        while self._claimed:
            portion = self._claimed[0]
            claims.release(token=portion.token, kaniko_jobs=portion.kaniko_jobs)
            self._claimed.popleft()
        claims.notify()
        self._pulse.rest()

    def _replay_steps(self) -> list[Package]:
        if time.monotonic() - self._replays_seen_at < REPLAYS_POLL:
            return []
        self._replays_seen_at = time.monotonic()
        tasks = [
            _task(
                "kanikojobs.tasks.replay_step",
                step.run_id,
                step.token.isoformat(),
                step.due_at.isoformat(),
                name=f"replay {step.run_id}",
            )
            for step in running.claim_due()
        ]
        if time.monotonic() - self._rules_seen_at >= RULES_POLL:
            self._rules_seen_at = time.monotonic()
            tasks += [_task("kanikojobs.tasks.apply_rule", id, name=f"rule {id}") for id in rules.claim_due()]
        return tasks

    def _leave(self) -> None:
        try:
            self._give_back()
        except (OperationalError, InterfaceError) as error:
            log.warning("database-away", error=f"{type(error).__name__}: {error}".splitlines()[0])

    def _plain_tasks(self) -> list[Package]:
        if time.monotonic() - self._plain_tasks_seen_at < PLAIN_TASKS_POLL:
            return []
        if packages := super().dequeue():
            return packages
        self._plain_tasks_seen_at = time.monotonic()
        return []

    def _plain_task_in_turn(self) -> list[Package]:
        if time.monotonic() - self._plain_task_turn_at < PLAIN_TASKS_POLL:
            return []
        self._plain_task_turn_at = time.monotonic()
        return self._plain_tasks()

    def _listen(self) -> None:
        connection.ensure_connection()
        if self._listening_on is not connection.connection:
            with connection.cursor() as cursor:
                cursor.execute(f"LISTEN {claims.CHANNEL}")
            self._listening_on = connection.connection

    def _sleep(self) -> None:
        until_due = outages.seconds_until_probe()
        if until_due is None:
            until_due = claims.seconds_until_due()
        until_step = running.seconds_until_due()
        if until_step is not None:
            # One that is due and could not be claimed is being taken at this moment, by a step that takes long.
            until_step = max(REPLAYS_POLL, until_step)
        waits = [until for until in (until_due, until_step) if until is not None]
        seconds = max(0.001, min([SLOW_POLL, *waits]))
        with connection.wrap_database_errors:
            for _ in connection.connection.notifies(timeout=seconds, stop_after=1):
                # A plain task may be what woke us.
                self._plain_tasks_seen_at = 0.0
        self._replays_seen_at = 0.0


@dataclass(frozen=True, slots=True)
class Portion:
    """The part of a claim that becomes one task."""

    token: UUID
    kaniko_jobs: tuple[int, ...]
    on_trial: bool


def _package(portion: Portion) -> Package:
    """The task that creates the Jobs of a portion: its rows and their claim."""
    return _task(
        "kanikojobs.tasks.create_jobs",
        str(portion.token),
        list(portion.kaniko_jobs),
        portion.on_trial,
        name=f"create {len(portion.kaniko_jobs)} from {portion.kaniko_jobs[0]}",
    )


def _task(function: str, *arguments: Any, name: str) -> Package:
    """A signed Django-Q2 task, as `django_q.tasks.async_task` makes them."""
    task = {
        "id": uuid4().hex,
        "name": name,
        "func": function,
        "args": arguments,
        "kwargs": {},
        "started": timezone.now(),
        # Our rows are the truth; Django-Q2 keeps no second record of the tasks that succeed.
        "save": False,
    }
    return None, SignedPackage.dumps(task)


class TaskQueue(Queue):
    """Django-Q2's queue between its processes, whose waiting reader can be killed without harm.

    The standard library's holds a lock while it waits. A worker that is killed there, by the kernel for its memory
    say, takes the lock with it, and no worker of the cluster ever gets another task.
    """

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not block or timeout is not None:
            return super().get(block, timeout)
        while True:
            self._reader.poll(None)
            try:
                return super().get(block=False)
            except Empty:
                # Another worker was faster.
                continue
