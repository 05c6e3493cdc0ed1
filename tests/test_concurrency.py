"""One parser at a time: the four policies, held by the database, exact under several clusters."""

import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, connections, transaction
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import claims, creation, retry
from kanikojobs.audit import Author
from kanikojobs.models import KanikoJob, Move, OperatorAction
from kanikojobs.states import FINISHED, State
from tests.factories import a_kaniko_job
from tests.watched_jobs import queued_job, wait_until, watching

ALICE = Author(name="alice", via=OperatorAction.Via.COMMAND)


def of_parser(parser: str, count: int, **fields: Any) -> list[KanikoJob]:
    return [queued_job(parser_id=parser, third_party_id="one", **fields) for _ in range(count)]


def claim(most: int = 40) -> list[int]:
    return sorted(claims.claim(most=most, lease=timedelta(minutes=1)).kaniko_jobs)


def finish(id: int, *, to: State = State.FAILED) -> None:
    assert KanikoJob.objects.move([Move(id=id, to=to, reason="Test")]) == {id}


def ids(jobs: list[KanikoJob]) -> list[int]:
    return [job.pk for job in jobs]


@pytest.mark.django_db
def test_queue_claims_the_next_when_the_one_before_it_is_finished() -> None:
    jobs = of_parser("a", 4)

    claimed = []
    for _ in jobs:
        found = claim()
        claimed.append(found)
        finish(found[0])

    assert claimed == [[id] for id in ids(jobs)]
    assert claim() == []


@pytest.mark.django_db
def test_queue_lets_other_parsers_pass() -> None:
    first, _ = of_parser("a", 2)
    (other,) = of_parser("b", 1)

    assert claim() == [first.pk, other.pk]


@pytest.mark.django_db
def test_queue_keeps_the_order_of_arrival_whatever_the_priority() -> None:
    (late,) = of_parser("a", 1, priority=10)
    (urgent,) = of_parser("a", 1, priority=1)

    assert claim() == [late.pk]
    finish(late.pk)
    assert claim() == [urgent.pk]


@pytest.mark.django_db
def test_a_later_arrival_stands_at_the_end_of_the_line() -> None:
    first, second = of_parser("a", 2)
    assert claim() == [first.pk]
    (third,) = of_parser("a", 1)

    claim()

    third.refresh_from_db()
    assert third.waits_for == second


@pytest.mark.django_db
def test_a_job_that_goes_back_to_the_queue_keeps_its_place_at_the_head() -> None:
    first, _ = of_parser("a", 2)
    held = claims.claim(most=10, lease=timedelta(minutes=1))

    claims.release(token=held.token)

    assert claim() == [first.pk]


@pytest.mark.django_db
@pytest.mark.parametrize("cancelled", [[1], [1, 2], [2, 1], [0], [0, 1], [3], [1, 3]], ids=str)
def test_those_behind_one_that_is_cancelled_move_up(cancelled: list[int]) -> None:
    jobs = of_parser("a", 5)
    claims.claim(most=0, lease=timedelta(minutes=1))

    for position in cancelled:
        retry.cancel(jobs[position].pk, author=ALICE, reason="not wanted")

    left = [job.pk for position, job in enumerate(jobs) if position not in cancelled]
    waits = dict(KanikoJob.objects.filter(id__in=left).values_list("id", "waits_for_id"))
    assert waits == dict(zip(left, [None, *left[:-1]], strict=True))


@pytest.mark.django_db
def test_several_of_a_line_that_finish_in_one_statement_leave_the_others_in_line() -> None:
    jobs = of_parser("a", 6)
    claim()

    gone = [jobs[position].pk for position in (0, 1, 3, 4)]
    moved = KanikoJob.objects.move([Move(id=id, to=State.CANCELLED) for id in gone])

    waits = dict(KanikoJob.objects.filter(state="queued").values_list("id", "waits_for_id"))
    assert len(moved) == 4
    assert waits == {jobs[2].pk: None, jobs[5].pk: jobs[2].pk}


@pytest.mark.django_db
def test_allow_claims_all_at_once(settings: Settings) -> None:
    settings.KANIKOJOBS_CONCURRENCY_POLICY = "Allow"
    jobs = of_parser("a", 4)

    assert claim() == ids(jobs)


@pytest.mark.django_db
def test_forbid_skips_the_later_one_and_says_why(settings: Settings) -> None:
    settings.KANIKOJOBS_CONCURRENCY_POLICY = "Forbid"
    first, *together = of_parser("a", 3)
    assert claim() == [first.pk]
    later = of_parser("a", 1)

    assert claim() == []

    skipped = KanikoJob.objects.filter(id__in=ids([*together, *later]))
    message = f"Skipped: {first.name} of the same parser was unfinished."
    assert {(job.state, job.reason, job.message) for job in skipped} == {("cancelled", "ConcurrencyForbidden", message)}
    finish(first.pk)
    (fourth,) = of_parser("a", 1)
    assert claim() == [fourth.pk]


@pytest.mark.django_db
def test_replace_cancels_earlier_ones_that_have_no_job(settings: Settings) -> None:
    settings.KANIKOJOBS_CONCURRENCY_POLICY = "Replace"
    jobs = of_parser("a", 3)

    assert claim() == [jobs[2].pk]

    jobs[0].refresh_from_db()
    assert (jobs[0].state, jobs[0].reason) == ("cancelled", "ConcurrencyReplaced")
    assert jobs[0].message == f"Replaced by {jobs[2].name}, a newer one of the same parser."


@pytest.mark.django_db(transaction=True)
def test_replace_removes_the_job_of_an_earlier_one_before_the_newer_is_created(
    simulator: Simulator, settings: Settings
) -> None:
    settings.KANIKOJOBS_CONCURRENCY_POLICY = "Replace"
    simulator.outcomes(default="hang")
    (first,) = of_parser("a", 1)
    create()
    (second,) = of_parser("a", 1)
    create()
    with watching():
        wait_until(lambda: KanikoJob.objects.filter(pk=first.pk, state="cancelled").exists())
    create()

    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.reason, second.state) == ("ConcurrencyReplaced", "created")
    assert max(simulator.stats()["max_active_by"]["parser"].values()) == 1


def create() -> int:
    held = claims.claim(most=8, lease=timedelta(minutes=1))
    return creation.create(token=held.token, kaniko_jobs=held.kaniko_jobs).created


@pytest.mark.django_db(transaction=True)
def test_nobody_is_lined_up_behind_one_that_is_just_being_finished() -> None:
    (first,) = of_parser("a", 1)
    claim()
    (second,) = of_parser("a", 1)

    with ThreadPoolExecutor(1) as cluster:
        with transaction.atomic():
            finish(first.pk)
            claiming = cluster.submit(claim_and_close)
            # It sees the first one as unfinished until this commits: so it has to wait for that.
            wait_until(lambda: claiming.done() or somebody_waits_for_a_lock())
        claiming.result()
    claim()

    second.refresh_from_db()
    assert (second.state, second.waits_for) == ("creating", None)


def claim_and_close() -> list[int]:
    try:
        return claim()
    finally:
        connections.close_all()


def somebody_waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        return bool(cursor.fetchone()[0])


@pytest.mark.django_db
@pytest.mark.parametrize("change", ["waits_for_id = NULL", "waits_for_id = {first}"], ids=["two heads", "a fork"])
def test_the_database_refuses_a_line_that_is_none(change: str) -> None:
    first, _, third = of_parser("a", 3)
    claim()

    with pytest.raises(IntegrityError), connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE kanikojobs_kanikojob SET {change.format(first=first.pk)} WHERE id = %s",  # noqa: S608
            [third.pk],
        )


@pytest.mark.django_db
def test_five_thousand_of_one_parser_cost_a_claim_of_another_nothing() -> None:
    a_kaniko_job(parser_id="long", place=1, state="running")
    head = KanikoJob.objects.get()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH event AS (
                INSERT INTO kanikojobs_jobstartevent (
                    event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id,
                    parser_id, correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout,
                    content_hash, origin
                ) SELECT 'long-' || n, 's', 't', '1.0', '', '', '', '{}', 'third-party', 'long', 'c', 'j', 5,
                         'container', '', '', 60, '', 'queue' FROM generate_series(1, 5000) n
                RETURNING id
            )
            INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id)
            SELECT id, 'long-' || id, 'builds', 5, 'third-party', 'long' FROM event
            """
        )
    for _ in range(3):
        assert claim() == []

    with connection.cursor() as cursor:
        cursor.execute("ANALYZE kanikojobs_kanikojob")
        due = "state = 'queued' AND run_at IS NULL AND place IS NOT NULL AND waits_for_id IS NULL"
        cursor.execute(f"SELECT count(*) FROM kanikojobs_kanikojob WHERE {due}")  # noqa: S608
        assert cursor.fetchone()[0] == 0
    assert KanikoJob.objects.filter(waits_for=head).count() == 1
    assert KanikoJob.objects.filter(waits_for__isnull=False).count() == 5000


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("policy", ["Queue", "Forbid", "Replace", "Allow"])
def test_three_clusters_never_run_two_of_a_parser_at_once(
    simulator: Simulator, settings: Settings, policy: str
) -> None:
    settings.KANIKOJOBS_CONCURRENCY_POLICY = policy
    # Where several may run at once they run for long enough to meet.
    simulator.settings(pod_start_seconds=0.0, run_seconds=0.5 if policy == "Allow" else 0.02)
    jobs = [queued_job(parser_id=f"parser-{n % 5}", third_party_id="one") for n in range(40)]

    with watching(), ThreadPoolExecutor(3) as clusters:
        for cluster in [clusters.submit(work_until_done, ids(jobs)) for _ in range(3)]:
            cluster.result()

    states = Counter(KanikoJob.objects.filter(id__in=ids(jobs)).values_list("state", "reason"))
    stats = simulator.stats()
    most = max(stats["max_active_by"]["parser"].values())
    if policy == "Allow":
        assert states == {("succeeded", ""): 40}
        assert most > 1
    else:
        assert most == 1
        reasons = {"Queue": set(), "Forbid": {"ConcurrencyForbidden"}, "Replace": {"ConcurrencyReplaced"}}
        assert {reason for state, reason in states if state != "succeeded"} == reasons[policy]
        assert {state for state, _ in states} <= {"succeeded", "cancelled"}
    if policy == "Queue":
        assert states == {("succeeded", ""): 40}
        made = defaultdict(list)
        for step in stats["sequence"]:
            if step["do"] == "create":
                made[step["parser"]].append(step["name"])
        wanted = defaultdict(list)
        for job in jobs:
            wanted[job.parser_id].append(job.name)
        assert made == wanted


def work_until_done(wanted: list[int]) -> None:
    """A cluster of its own, in a thread: claims and creates until all these are finished."""
    try:
        until = time.monotonic() + 60
        while KanikoJob.objects.filter(id__in=wanted).exclude(state__in=FINISHED).exists():
            assert time.monotonic() < until, "not finished in time"
            if not create():
                time.sleep(0.02)
    finally:
        connections.close_all()
