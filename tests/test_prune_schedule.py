"""The daily run: one schedule of Django-Q2, as the settings say, and tasks that never keep a worker for long."""

from datetime import UTC, datetime, time, timedelta

import pytest
from django.core.management import call_command
from django.utils import timezone
from django_q.models import OrmQ, Schedule
from django_q.scheduler import scheduler
from django_q.signing import SignedPackage
from pytest_django import Settings

from kanikojobs import tasks
from kanikojobs.models import JobStartEvent, PruneRun
from kanikojobs.queue import KanikoJobBroker
from kanikojobs.retention import pruning
from kanikojobs.retention.schedule import keep_schedule
from tests.creating import queue_events
from tests.old_rows import a_built_event

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def without_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "SHARE", 100.0)
    monkeypatch.setattr(pruning, "TASK_SECONDS", 600.0)


def test_migrating_makes_one_schedule_however_often_it_is_done() -> None:
    Schedule.objects.all().delete()
    before = datetime.now(UTC)

    for _ in range(2):
        call_command("migrate", verbosity=0)

    schedule = Schedule.objects.get()
    assert (schedule.name, schedule.func, schedule.schedule_type) == ("prune", "kanikojobs.tasks.prune", "D")
    assert schedule.next_run.astimezone(UTC).time() == time(3, 30)
    assert before < schedule.next_run <= datetime.now(UTC) + timedelta(days=1)


def test_another_time_of_the_day_is_taken_over_and_never_is_never(settings: Settings) -> None:
    keep_schedule()
    settings.KANIKOJOBS_PRUNE_AT = time(12, 0)

    keep_schedule()

    assert Schedule.objects.get().next_run.astimezone(UTC).time() == time(12, 0)
    settings.KANIKOJOBS_PRUNE_AT = None
    keep_schedule()
    assert not Schedule.objects.exists()


def test_a_schedule_that_is_right_keeps_the_time_of_its_next_run() -> None:
    schedule = keep_schedule()
    assert schedule is not None
    overdue = schedule.next_run - timedelta(days=3)
    Schedule.objects.update(next_run=overdue)

    keep_schedule()

    assert Schedule.objects.get().next_run == overdue


@pytest.mark.django_db(transaction=True)
def test_when_it_is_due_a_worker_gets_the_task() -> None:
    keep_schedule()
    Schedule.objects.update(next_run=timezone.now() - timedelta(minutes=1))

    scheduler(broker=KanikoJobBroker())

    task = SignedPackage.loads(OrmQ.objects.get().payload)
    assert task["func"] == "kanikojobs.tasks.prune"
    assert Schedule.objects.get().next_run > timezone.now()


def test_a_task_that_does_not_finish_leaves_the_rest_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    a_built_event()
    monkeypatch.setattr(pruning, "TASK_SECONDS", 0.0)
    tasks.prune()

    following = SignedPackage.loads(OrmQ.objects.get().payload)
    OrmQ.objects.all().delete()
    monkeypatch.setattr(pruning, "TASK_SECONDS", 600.0)
    told = tasks.prune(*following["args"])

    run = PruneRun.objects.get()
    assert (following["func"], following["args"]) == ("kanikojobs.tasks.prune", (run.pk,))
    assert told == f"pruning {run.pk} is finished"
    assert not OrmQ.objects.exists()
    assert not JobStartEvent.objects.exists()


def test_a_day_later_the_run_is_left_to_whoever_is_at_it_and_else_taken_up() -> None:
    a_built_event()
    run = pruning.begin()
    PruneRun.objects.update(last_batch_at=timezone.now())

    at_work = tasks.prune()
    PruneRun.objects.update(last_batch_at=timezone.now() - timedelta(hours=1))
    taken_up = tasks.prune()

    assert at_work == f"pruning {run.pk} is left to others"
    assert taken_up == f"pruning {run.pk} is finished"


def test_a_task_whose_run_is_finished_begins_no_other() -> None:
    run = PruneRun.objects.create(ongoing=False, finished_at=timezone.now())

    told = tasks.prune(run.pk)

    assert told == f"pruning {run.pk} is left to others"
    assert PruneRun.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_plain_task_has_its_turn_before_a_backlog_of_kaniko_jobs() -> None:
    queue_events(50)
    broker = KanikoJobBroker()
    broker.enqueue("a plain task")

    first = broker.dequeue()
    second = broker.dequeue()

    assert [package for _, package in first] == ["a plain task"]
    assert SignedPackage.loads(second[0][1])["func"] == "kanikojobs.tasks.create_jobs"
