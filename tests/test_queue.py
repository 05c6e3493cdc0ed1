"""`manage.py qcluster` as real processes: what it takes, what it survives, and what it leaves behind."""

import os
import signal
import time
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.utils import timezone
from django_q.models import OrmQ, Schedule, Task
from django_q.scheduler import scheduler
from django_q.signing import SignedPackage
from django_q.tasks import async_task, schedule
from pytest_django import Settings

from deploy.local.process_tree import tree
from deploy.local.processes import Child
from deploy.local.simulator import Simulator
from deploy.local.stack import LocalStack
from kanikojobs import claims, queue
from kanikojobs.models import Heartbeat, JobAttempt, KanikoJob
from kanikojobs.queue import KanikoJobBroker
from tests.creating import queue_events
from tests.database_away import database_away
from tests.stack_plugin import StartCommand

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("simulator")]

WORKERS = 2


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, list(KanikoJob.objects.values("state", "reason")[:5])
        time.sleep(0.05)


def all_created() -> bool:
    return not KanikoJob.objects.exclude(state="created").exists()


@pytest.fixture
def cluster(start_command: StartCommand) -> Child:
    """A cluster that waits for work."""
    child = start_command("qcluster", env={"KANIKOJOBS_WORKER_COUNT": str(WORKERS)})
    until(lambda: Heartbeat.objects.filter(role="workers").exists())
    return child


def workers_of(cluster: Child) -> set[int]:
    """The processes that wait for tasks: they have no child, and are not the pusher, the monitor or the guardian."""
    sentinel = min(tree(cluster.pid) - {cluster.pid})
    children = sorted(tree(cluster.pid) - {cluster.pid, sentinel})
    # Django-Q2's sentinel starts its workers first, then the monitor, then the pusher.
    return set(children[:WORKERS])


def test_queued_rows_become_jobs_and_plain_tasks_and_schedules_run_beside_them(
    cluster: Child, simulator: Simulator
) -> None:
    broker = KanikoJobBroker()
    schedule("math.gcd", 12, 18, schedule_type=Schedule.ONCE, next_run=timezone.now() - timedelta(minutes=1))

    queue_events(20)
    async_task("math.factorial", 5)
    # What the cluster itself does every half a minute.
    scheduler(broker=broker)
    until(lambda: Task.objects.filter(success=True).count() == 2)
    until(all_created)

    assert sorted(Task.objects.values_list("func", "result")) == [("math.factorial", 120), ("math.gcd", 6)]
    assert simulator.stats()["creates"]["total"] == 20
    until(lambda: not OrmQ.objects.exists())


def test_a_plain_task_that_fails_is_kept_and_not_run_again(cluster: Child) -> None:
    async_task("math.factorial", -1)

    until(lambda: Task.objects.filter(success=False).exists())
    until(lambda: not OrmQ.objects.exists())

    assert "ValueError" in Task.objects.get().result


def test_workers_that_are_killed_while_they_wait_take_nothing_with_them(cluster: Child) -> None:
    killed = workers_of(cluster)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(tree(cluster.pid)) >= WORKERS + 4 and not killed & tree(cluster.pid))

    queue_events(20)

    until(all_created)


def test_a_cluster_that_is_asked_to_stop_gives_back_what_it_holds(cluster: Child, simulator: Simulator) -> None:
    simulator.faults([{"do": "latency", "seconds": 0.4, "verb": "create"}])
    queue_events(90)
    until(lambda: KanikoJob.objects.filter(state="creating").count() > 40)

    code = cluster.stop()

    states = set(KanikoJob.objects.values_list("state", flat=True))
    assert code == 0, cluster.log_tail()
    assert states <= {"queued", "created"}
    assert not KanikoJob.objects.filter(claim__isnull=False).exists()
    assert not JobAttempt.objects.filter(outcome="started").exists()
    assert JobAttempt.objects.filter(outcome="created").count() == simulator.stats()["creates"]["total"]


def test_a_cluster_outlives_a_restart_of_postgresql(
    cluster: Child, local_stack: LocalStack, simulator: Simulator
) -> None:
    from django.db import connection

    simulator.faults([{"do": "latency", "seconds": 0.05, "verb": "create"}])
    queue_events(60)
    until(lambda: KanikoJob.objects.filter(state="created").exists())

    connection.close()
    local_stack.postgres.restart()  # type: ignore[union-attr]
    queue_events(20, first=60)

    # Sooner than any lease runs out: what was claimed is given back or settled, not waited for.
    until(all_created)
    assert cluster.running
    assert simulator.stats()["creates"]["total"] == simulator.stats()["creates"]["identities"] == 80


def test_a_look_into_the_queue_that_fails_costs_a_moment_and_not_the_process(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "SLOW_POLL", 0.01)
    queue_events(1)
    broker = KanikoJobBroker(list_key="tests")

    with database_away():
        away = [broker.dequeue(), broker.dequeue()]
    back = broker.dequeue()

    assert away == [[], []]
    assert len(back) == 1


def test_rows_of_a_claim_of_which_nothing_was_heard_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.db import OperationalError

    monkeypatch.setattr(queue, "SLOW_POLL", 0.01)
    queue_events(3)
    broker = KanikoJobBroker(list_key="tests")
    whole = claims.claim

    def committed_unheard(**arguments: object) -> claims.Claim:
        whole(**arguments)  # type: ignore[arg-type]
        raise OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(claims, "claim", committed_unheard)
    lost = broker.dequeue()
    stranded = KanikoJob.objects.filter(state="creating").count()
    monkeypatch.setattr(claims, "claim", whole)
    handed_out = [broker.dequeue() for _ in range(3)]

    assert (lost, stranded) == ([], 3)
    assert [len(packages) for packages in handed_out] == [1, 1, 1]


def test_a_broker_holds_no_more_in_memory_than_the_setting_says(settings: Settings) -> None:
    queue_events(150)
    broker = KanikoJobBroker(list_key="tests")

    broker.dequeue()

    held = KanikoJob.objects.filter(state="creating").count()
    in_queue = settings.Q_CLUSTER["queue_limit"] * settings.KANIKOJOBS_TASK_SIZE
    assert held == settings.KANIKOJOBS_CLAIM_SIZE
    assert held + in_queue <= settings.KANIKOJOBS_MAX_QUEUE_SIZE


def test_few_rows_are_spread_over_the_workers_and_a_backlog_is_packed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "SLOW_POLL", 0.01)
    claim, task = settings.KANIKOJOBS_CLAIM_SIZE, settings.KANIKOJOBS_TASK_SIZE
    queue_events(2 * claim + 3)
    broker = KanikoJobBroker(list_key="tests")

    sizes = []
    while packages := broker.dequeue():
        sizes.append(len(SignedPackage.loads(packages[0][1])["args"][1]))

    spread = -(-claim // settings.KANIKOJOBS_WORKER_COUNT)
    first = [spread] * (claim // spread) + ([claim % spread] if claim % spread else [])
    assert sizes == [*first, task, task, 1, 1, 1]
