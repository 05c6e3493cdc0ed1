"""Replays under fire: killed at any moment, driven by several at once, started twice, and raced by a person."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import Client

from kanikojobs import dead_letters, failure_groups, retry, tallies
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, FailureGroup, JobStartEvent, KanikoJob, ReplayItem, ReplayRun
from kanikojobs.replay import disposal, mending, running, runs
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import NothingToReplay, Pace
from kanikojobs.replay.selection import Selection
from tests.factories import a_message
from tests.replay_cases import AN_OPERATOR, a_failed_build, an_expired, every_case
from tests.stack_plugin import StartCommand

pytestmark = pytest.mark.django_db(transaction=True)

# With these the long version: 2000 letters, and as many clusters killed as you like.
MIXES = int(os.environ.get("MIXES_REPLAYED_UNDER_FIRE", "3"))
LETTERS = int(os.environ.get("REPLAYED_UNDER_FIRE", "60"))
CLUSTERS_KILLED = int(os.environ.get("CLUSTERS_KILLED", "1"))


def expired(count: int) -> None:
    dead_letters.record_from_broker([a_message() for _ in range(count)])


def started(selection: Selection | None = None, cut_off: datetime | None = None, **how: int) -> ReplayRun:
    return runs.start(
        selection=selection or Selection(),
        cut_off=cut_off or now(),
        pace=Pace(**how),
        author=AN_OPERATOR,
        reason="The registry is back.",
    )


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step whose worker was killed is due again after a moment, so that the test need not wait for it."""
    monkeypatch.setattr(running, "CLAIM_LEASE", timedelta(seconds=0.3))


@pytest.fixture
def driver() -> Iterator[Callable[[], int]]:
    """Starts a process that takes due steps until there is no unfinished run; returns its id."""
    started: list[int] = []

    def start() -> int:
        # The child must not speak, or end, on the connection of this process.
        connections.close_all()
        pid = os.fork()
        if pid == 0:
            try:
                while ReplayRun.objects.filter(state__in=["running", "probing"]).exists():
                    for due in running.claim_due():
                        running.step(due)
            finally:
                os._exit(0)
        started.append(pid)
        return pid

    yield start
    for pid in started:
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not condition():
        if time.monotonic() > until:
            pytest.fail("it did not come about within a minute")
        time.sleep(0.02)


def is_all_out(run: ReplayRun) -> bool:
    run.refresh_from_db()
    return run.state in ("settling", "finished")


def each_was_replayed_once(run: ReplayRun, *, letters: int) -> None:
    assert (run.total, run.handled, run.queued) == (letters, letters, letters)
    assert run.items.filter(outcome="queued").count() == letters
    assert JobStartEvent.objects.count() == KanikoJob.objects.count() == letters
    assert not DeadLetter.objects.exclude(state="replayed").exists()
    assert list(FailureGroup.objects.values_list("open_letters", "state")) == [(0, "settled")]
    assert tallies.totals(prefix="replay/")["replay/queued"].count == letters


@pytest.mark.usefixtures("short_leases")
def test_killed_at_any_moment_it_goes_on_and_what_the_plan_said_comes_true(driver: Callable[[], int]) -> None:
    for _ in range(MIXES):
        every_case()
        expired(40)
    planned = plan(selection=Selection())
    late = an_expired()
    before = KanikoJob.objects.count()
    run = started(cut_off=planned.cut_off, batch=2)
    killed_at: list[int] = []

    while len(killed_at) < 8 and not is_all_out(run):
        pid, reached = driver(), handled(run)
        wait_for(lambda reached=reached: handled(run) > reached)  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        killed_at.append(handled(run))
    driver()
    wait_for(lambda: is_all_out(run))

    items = Counter(ReplayItem.objects.values_list("outcome", flat=True))
    assert 0 < killed_at[0] < planned.total
    assert len(planned.outcomes) == 7
    assert items == Counter({str(outcome): count for outcome, count in planned.outcomes.items()})
    assert items == Counter({outcome: getattr(run, outcome.replace("-", "_")) for outcome in items})
    assert run.handled == run.total == planned.total == ReplayItem.objects.values("letter").distinct().count()
    assert KanikoJob.objects.count() == before + planned.of(ReplayItem.Outcome.QUEUED)
    assert {name: tallies.totals(prefix="replay/")[f"replay/{name}"].count for name in items} == dict(items)
    settled = DeadLetter.objects.filter(state="replayed")
    assert settled.count() == planned.total - planned.failing
    assert sum(FailureGroup.objects.values_list("open_letters", flat=True)) == planned.failing + 1
    late.refresh_from_db()
    assert late.state == "open"


@pytest.mark.usefixtures("short_leases")
def test_several_that_drive_one_run_take_each_letter_once(driver: Callable[[], int]) -> None:
    expired(120)
    run = started(batch=2)

    for _ in range(3):
        driver()
    wait_for(lambda: is_all_out(run))

    each_was_replayed_once(run, letters=120)


def in_parallel(*calls: Callable[[], object]) -> list[object]:
    """Make the calls at once, each in a thread with a connection of its own; what they raise is their result."""
    barrier = Barrier(len(calls))

    def make(call: Callable[[], object]) -> object:
        barrier.wait()
        try:
            return call()
        except (NothingToReplay, AssertionError) as error:
            return error
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(make, calls))


def while_uncommitted(first: Callable[[], object], *, then: Callable[[], object]) -> object:
    """What `then` comes to when it has to wait for the commit of `first`."""
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            first()
            second = pool.submit(in_parallel, then)
            wait_for(somebody_waits_for_a_lock)
        (result,) = second.result()
    return result


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_locks WHERE NOT granted LIMIT 1")
        return cursor.fetchone() is not None


@pytest.mark.parametrize("round", range(3))
def test_of_overlapping_runs_that_are_started_at_once_each_letter_is_in_one(round: int) -> None:
    expired(60)
    ids = list(DeadLetter.objects.order_by("id").values_list("id", flat=True))

    found = in_parallel(
        lambda: started(),
        lambda: started(Selection(ids=tuple(ids[:40]))),
        lambda: started(Selection(ids=tuple(ids[20:]))),
        lambda: started(),
    )

    begun = [run for run in found if isinstance(run, ReplayRun)]
    assert sum(run.total for run in begun) == 60
    assert ReplayItem.objects.values("letter").distinct().count() == ReplayItem.objects.count() == 60
    assert len(begun) + sum(isinstance(error, NothingToReplay) for error in found) == 4


def test_a_retry_by_hand_at_the_same_moment_makes_one_kaniko_job_more_and_not_two() -> None:
    letters = [a_failed_build() for _ in range(8)]
    run = started()
    (due,) = running.claim_due(run_id=run.pk)

    in_parallel(
        lambda: running.step(due),
        *(
            lambda letter=letter: retry.retry(letter.kaniko_job_id, author=AN_OPERATOR, reason="By hand.")
            for letter in letters
        ),
    )

    run.refresh_from_db()
    assert KanikoJob.objects.filter(number=2, state="queued").count() == 8
    assert KanikoJob.objects.count() == 16
    assert run.queued + run.active + run.gone == run.handled == 8
    assert set(DeadLetter.objects.values_list("state", "replayed_as_job__number")) == {("replayed", 2)}
    assert FailureGroup.objects.get().open_letters == 0


def test_a_pause_and_a_step_at_the_same_moment_leave_a_paused_run_with_right_counts() -> None:
    for _ in range(6):
        an_expired()
    run = started(batch=2)
    (due,) = running.claim_due(run_id=run.pk)

    in_parallel(lambda: running.step(due), lambda: runs.pause(run_id=run.pk, author=AN_OPERATOR, reason="Stop."))

    run.refresh_from_db()
    assert run.state == "paused"
    assert run.handled == run.queued == KanikoJob.objects.count()


def test_two_who_cancel_at_once_cancel_once() -> None:
    expired(5)
    run = started()

    done = in_parallel(*(lambda: runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="Enough.") for _ in range(3)))

    run.refresh_from_db()
    assert sorted(done) == [False, False, True]  # type: ignore[type-var]
    assert (run.state, run.withdrawn) == ("cancelled", 5)


def test_who_mends_a_letter_while_a_run_with_it_is_being_started_is_told_so() -> None:
    letter = an_expired()
    body = a_message().body

    told = while_uncommitted(
        started, then=lambda: mending.replay(letter=letter, body=body, author=AN_OPERATOR, reason="Mended.")
    )

    assert isinstance(told, NothingToReplay)
    assert [item.run for item in ReplayItem.objects.all()] == [ReplayRun.objects.get()]


def test_what_dies_anew_while_its_twin_is_being_restored_leaves_the_twin_discarded() -> None:
    message = a_message()
    letter = an_expired(message)
    only = Selection(ids=(letter.pk,))
    disposal.discard(selection=only, author=AN_OPERATOR, reason="A load test.")

    restored = while_uncommitted(
        lambda: an_expired(message),
        then=lambda: disposal.restore(selection=only, author=AN_OPERATOR, reason="It was none."),
    )

    assert restored == disposal.Disposal(done=0, left=1)
    assert Counter(DeadLetter.objects.values_list("state", flat=True)) == {"open": 1, "discarded": 1}


def test_a_note_and_an_assignee_that_come_at_the_same_moment_are_both_kept() -> None:
    an_expired()
    group = FailureGroup.objects.get()
    root = User.objects.create_superuser("root")
    client = Client()
    client.force_login(root)

    answer: Any = while_uncommitted(
        lambda: failure_groups.take_note(group, note="Known.", assignee=None, author=AN_OPERATOR, reason="Seen."),
        then=lambda: client.patch(
            f"/async-jobs/failure-groups/{group.fingerprint}", '{"assignee": "root"}', content_type="application/json"
        ),
    )

    group.refresh_from_db()
    assert answer.status_code == 200
    assert (group.note, group.assignee) == ("Known.", root)


def test_what_is_being_written_while_a_plan_is_made_stays_out_of_its_run() -> None:
    expired(3)
    written, planned_ = Barrier(2, timeout=30), Barrier(2, timeout=30)

    def die_late() -> None:
        with transaction.atomic():
            an_expired()
            written.wait()
            planned_.wait()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(in_parallel, die_late)
        written.wait()
        planned = plan(selection=Selection())
        planned_.wait()
        late.result()
    run = runs.start(
        selection=Selection(), cut_off=planned.cut_off, pace=Pace(), author=AN_OPERATOR, reason="As planned."
    )

    assert DeadLetter.objects.count() == 4
    assert run.total == planned.total == 3


@pytest.mark.usefixtures("simulator")
def test_a_cluster_that_is_killed_is_replaced_and_the_run_goes_on(start_command: StartCommand) -> None:
    expired(LETTERS)
    run = started(batch=max(2, LETTERS // 100))
    killed_at: list[int] = []

    for _ in range(CLUSTERS_KILLED):
        cluster = start_command("qcluster")
        before = handled(run)
        cluster.wait_until(lambda before=before: handled(run) > before, seconds=60)  # type: ignore[misc]
        time.sleep(random.uniform(0, 0.2))
        cluster.kill()
        killed_at.append(handled(run))
    start_command("qcluster").wait_until(lambda: is_all_out(run), seconds=120)

    assert 0 < killed_at[0] < LETTERS
    each_was_replayed_once(run, letters=LETTERS)


def handled(run: ReplayRun) -> int:
    run.refresh_from_db()
    return run.handled
