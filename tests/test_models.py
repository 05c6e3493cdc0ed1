"""Moving Kaniko Jobs: by compare-and-swap, along the allowed transitions only, and once whoever else tries."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any
from uuid import uuid4

import pytest
from django.db import IntegrityError, connection

from kanikojobs.models import DeadLetter, JobAttempt, JobStartEvent, KanikoJob, Move
from kanikojobs.states import FINISHED, HAS_A_UID, TRANSITIONS, UNFINISHED, State
from tests.factories import a_dead_letter, a_kaniko_job, an_attempt, an_event

pytestmark = pytest.mark.django_db

# Only a claim makes a row `creating`, because only a claim gives it a lease: `move` cannot.
PAIRS = [(old, new) for old in State for new in State if new != State.CREATING]
ALLOWED = [(old, new) for old, new in PAIRS if new in TRANSITIONS[old]]
FORBIDDEN = [(old, new) for old, new in PAIRS if new not in TRANSITIONS[old]]


def move(job: KanikoJob, *, to: State, **what: Any) -> bool:
    """Move one row, with a uid where the state asks for it; return whether it moved."""
    if to in HAS_A_UID:
        what.setdefault("job_uid", uuid4())
    moved = KanikoJob.objects.move([Move(id=job.pk, to=to, **what)])
    job.refresh_from_db()
    return moved == {job.pk}


@pytest.mark.parametrize(("old", "new"), ALLOWED, ids=lambda state: state.value)
def test_it_moves_along_an_allowed_transition(old: State, new: State) -> None:
    job = a_kaniko_job(state=old)

    moved = move(job, to=new, reason="BecauseOfThis", message="a sentence")

    assert moved
    assert (job.state, job.reason, job.message) == (new, "BecauseOfThis", "a sentence")


@pytest.mark.parametrize(("old", "new"), FORBIDDEN, ids=lambda state: state.value)
def test_it_does_not_move_along_any_other(old: State, new: State) -> None:
    job = a_kaniko_job(state=old, reason="Before")
    before = row_of(job)

    moved = move(job, to=new, reason="After")

    assert not moved
    assert row_of(job) == before


def test_the_pairs_are_all_there_are() -> None:
    assert len(ALLOWED) + len(FORBIDDEN) == len(State) * (len(State) - 1)
    assert len(ALLOWED) == 18


def test_only_a_claim_makes_a_row_creating() -> None:
    job = a_kaniko_job(state=State.QUEUED)

    with pytest.raises(IntegrityError, match="kanikojob_creating_is_leased"):
        KanikoJob.objects.move([Move(id=job.pk, to=State.CREATING)])


TIMES = {
    State.QUEUED: set(),
    State.CREATED: {"created_at"},
    State.RUNNING: {"created_at", "running_at"},
    # It may have been over before anybody saw it run.
    State.SUCCEEDED: {"created_at", "finished_at"},
    State.FAILED: {"finished_at"},
    State.CANCELLED: {"finished_at"},
}


@pytest.mark.parametrize("new", TIMES, ids=lambda state: state.value)
def test_each_state_that_is_reached_gets_its_time(new: State) -> None:
    job = a_kaniko_job(state=State.CREATING)

    move(job, to=new)

    set_ = {name for name in ("created_at", "running_at", "finished_at") if getattr(job, name) is not None}
    assert set_ == TIMES[new]


def test_a_time_that_is_set_stays() -> None:
    created, running = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    job = a_kaniko_job(state=State.RUNNING, created_at=created, running_at=running)

    move(job, to=State.SUCCEEDED)

    assert (job.created_at, job.running_at) == (created, running)


CREATED = datetime(2024, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seen_at", "ran_at", "expected"),
    [
        pytest.param(None, CREATED + timedelta(seconds=3), CREATED + timedelta(seconds=3), id="learned afterwards"),
        pytest.param(None, CREATED - timedelta(seconds=1), CREATED, id="not before its Job was there"),
        pytest.param(CREATED, CREATED + timedelta(seconds=3), CREATED, id="what was seen stands"),
        pytest.param(None, None, None, id="never ran"),
    ],
)
def test_a_build_that_nobody_saw_run_has_the_time_that_its_pod_tells(
    seen_at: datetime | None, ran_at: datetime | None, expected: datetime | None
) -> None:
    job = a_kaniko_job(state=State.CREATED, created_at=CREATED, running_at=seen_at)

    KanikoJob.objects.move([Move(id=job.pk, to=State.SUCCEEDED, ran_at=ran_at)])

    job.refresh_from_db()
    assert job.running_at == expected


def test_the_uid_that_is_known_stays_unless_a_move_brings_one() -> None:
    job = a_kaniko_job(state=State.CREATED)
    known = job.job_uid

    KanikoJob.objects.move([Move(id=job.pk, to=State.RUNNING)])

    job.refresh_from_db()
    assert job.job_uid == known


@pytest.mark.parametrize("new", [State.CREATED, State.RUNNING, State.FAILED, State.CANCELLED, State.QUEUED])
def test_a_row_that_leaves_creating_is_no_longer_leased(new: State) -> None:
    job = a_kaniko_job(state=State.CREATING)

    move(job, to=new)

    assert (job.claim, job.leased_until) == (None, None)


def test_a_row_that_is_given_back_waits_until_it_is_due_and_has_spent_a_retry() -> None:
    job = a_kaniko_job(state=State.CREATING, retries_used=1)
    due = datetime.now(UTC) + timedelta(seconds=5)

    move(job, to=State.QUEUED, run_at=due, spend_retry=True)

    assert (job.run_at, job.retries_used) == (due, 2)


def test_only_a_row_that_goes_back_to_the_queue_waits() -> None:
    job = a_kaniko_job(state=State.QUEUED, run_at=datetime.now(UTC) + timedelta(hours=1))

    move(job, to=State.CANCELLED, run_at=datetime.now(UTC))

    assert (job.state, job.run_at, job.retries_used) == (State.CANCELLED, None, 0)


def test_a_worker_moves_what_it_holds() -> None:
    job = a_kaniko_job(state=State.CREATING)

    moved = move(job, to=State.FAILED, claim=job.claim)

    assert moved


@pytest.mark.parametrize("state", [State.CREATING, State.QUEUED])
def test_a_worker_that_lost_its_claim_moves_nothing(state: State) -> None:
    job = a_kaniko_job(state=state)

    moved = move(job, to=State.FAILED, claim=uuid4())

    assert not moved
    assert job.state == state


def test_of_several_moves_each_stands_for_itself() -> None:
    queued, running, finished = (a_kaniko_job(state=state) for state in ("queued", "running", "failed"))

    moved = KanikoJob.objects.move(
        [
            Move(id=finished.pk, to=State.CANCELLED),
            Move(id=running.pk, to=State.SUCCEEDED, reason="Completed"),
            Move(id=queued.pk, to=State.CANCELLED, reason="OperatorRequest"),
            Move(id=10**12, to=State.CANCELLED),
        ]
    )

    reasons = dict(KanikoJob.objects.values_list("pk", "reason"))
    assert moved == {queued.pk, running.pk}
    assert reasons == {queued.pk: "OperatorRequest", running.pk: "Completed", finished.pk: ""}


def test_no_moves_are_no_statement(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        moved = KanikoJob.objects.move([])

    assert moved == set()


@pytest.mark.django_db(transaction=True)
def test_of_two_that_move_the_same_row_at_once_one_wins() -> None:
    jobs = [a_kaniko_job(state=State.RUNNING).pk for _ in range(20)]

    outcomes = at_once(
        lambda: [bool(KanikoJob.objects.move([Move(id=id, to=State.SUCCEEDED, reason="A")])) for id in jobs],
        lambda: [bool(KanikoJob.objects.move([Move(id=id, to=State.FAILED, reason="B")])) for id in jobs],
    )

    reasons = [KanikoJob.objects.get(pk=id).reason for id in jobs]
    assert [first + second for first, second in zip(*outcomes, strict=True)] == [1] * 20
    assert reasons == ["A" if first else "B" for first in outcomes[0]]


@pytest.mark.django_db(transaction=True)
def test_two_that_move_the_same_rows_in_other_orders_do_not_lock_each_other_out() -> None:
    jobs = [a_kaniko_job(state=State.RUNNING).pk for _ in range(300)]

    def move_all(ids: list[int], to: State) -> set[int]:
        with connection.cursor() as cursor:
            # In a small table PostgreSQL would go through all rows in their own order. In a large one it does not.
            cursor.execute("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off")
        return KanikoJob.objects.move([Move(id=id, to=to) for id in ids])

    first, second = at_once(
        lambda: move_all(jobs, State.SUCCEEDED),
        lambda: move_all(jobs[::-1], State.FAILED),
    )

    assert first | second == set(jobs)
    assert not first & second


@pytest.mark.parametrize("state", State, ids=lambda state: state.value)
def test_unfinished_are_those_that_still_have_somewhere_to_go(state: State) -> None:
    job = a_kaniko_job(state=state)

    assert KanikoJob.objects.unfinished().contains(job) == (state in UNFINISHED)
    assert (state in FINISHED) == (not TRANSITIONS[state])


def test_the_database_fills_in_what_an_insert_of_its_own_leaves_out() -> None:
    event = an_event()

    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id)
            VALUES (%s, 'a-name', 'builds', 1, 't', 'p')
            """,
            [event.pk],
        )

    job = KanikoJob.objects.get()
    assert (job.state, job.number, job.retries_used, job.reason) == (State.QUEUED, 1, 0, "")
    assert job.queued_at is not None


def test_rows_go_with_their_event_and_dead_letters_outlive_it() -> None:
    job = a_kaniko_job()
    an_attempt(kaniko_job=job)
    letter = a_dead_letter(event=job.event, kaniko_job=job, replayed_as=job.event)

    job.event.delete()

    letter.refresh_from_db()
    assert (KanikoJob.objects.count(), JobAttempt.objects.count()) == (0, 0)
    assert (letter.event, letter.kaniko_job, letter.replayed_as) == (None, None, None)


def test_rows_are_told_by_what_people_know_them_by() -> None:
    event = an_event(event_id="the-event")
    job = a_kaniko_job(event=event, name="the-job")

    assert str(event) == "the-event"
    assert str(job) == "the-job"
    assert str(an_attempt(kaniko_job=job)) == "attempt 1: started"
    assert str(a_dead_letter(reason="x" * 200)) == "invalid event: " + "x" * 80


def test_the_choices_are_those_that_the_constraints_know() -> None:
    for cause in DeadLetter.Cause:
        a_dead_letter(cause=cause)
    for origin in JobStartEvent.Origin:
        an_event(origin=origin)
    for number, outcome in enumerate(JobAttempt.Outcome, start=1):
        finished = None if outcome == JobAttempt.Outcome.STARTED else datetime.now(UTC)
        an_attempt(number=number, outcome=outcome, finished_at=finished)

    assert DeadLetter.objects.count() == len(DeadLetter.Cause)


def at_once(*calls: Any) -> list[Any]:
    """Run each call in a thread with a connection of its own, all from one moment on; return their results."""
    start = Barrier(len(calls))

    def run(call: Any) -> Any:
        connection.ensure_connection()
        start.wait(timeout=60)
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(run, calls))


def row_of(job: KanikoJob) -> dict[str, Any]:
    return {field.attname: getattr(job, field.attname) for field in job._meta.concrete_fields}


@pytest.mark.django_db
def test_words_that_postgresql_refuses_fail_no_other_move() -> None:
    bad, good = a_kaniko_job(state=State.CREATING), a_kaniko_job(state=State.CREATING)
    hostile = Move(id=bad.pk, to=State.FAILED, reason="R" * 100, message="nul \x00 and half a pair \ud800")

    moved = KanikoJob.objects.move([hostile, Move(id=good.pk, to=State.FAILED, reason="Refused")])

    bad.refresh_from_db()
    assert moved == {bad.pk, good.pk}
    assert (bad.reason, bad.message) == ("R" * 64, "nul \\x00 and half a pair \\ud800")
