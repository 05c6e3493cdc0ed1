"""Which rows are claimed: the urgent first, third parties in turn, as many as the caps allow, each by one worker."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from kanikojobs import claims, outages, tallies, waiting
from kanikojobs.errors import ClusterUnavailable
from kanikojobs.models import BuildProfile, KanikoJob
from kanikojobs.states import State
from tests.factories import a_kaniko_job, an_attempt, an_event

pytestmark = pytest.mark.django_db

LEASE = timedelta(seconds=60)
NOW = datetime.now(UTC)
PAST, FUTURE = NOW - timedelta(seconds=5), NOW + timedelta(hours=1)


def queued(third_party: str = "one", *, priority: int = 5, **fields: Any) -> KanikoJob:
    event = an_event(third_party_id=third_party, priority=priority)
    return a_kaniko_job(event=event, **fields)


def claim(most: int = 100) -> list[int]:
    return list(claims.claim(most=most, lease=LEASE).kaniko_jobs)


def third_parties(ids: list[int]) -> list[str]:
    names = dict(KanikoJob.objects.values_list("id", "third_party_id"))
    return [names[id] for id in ids]


def test_a_claimed_row_is_leased_under_its_token() -> None:
    job = queued()

    claim = claims.claim(most=1, lease=LEASE)

    job.refresh_from_db()
    assert claim.kaniko_jobs == (job.pk,)
    assert (job.state, job.claim) == ("creating", claim.token)
    assert job.leased_until is not None
    assert job.creating_at is not None
    assert job.leased_until - job.creating_at == LEASE or job.leased_until - job.creating_at - LEASE < timedelta(
        seconds=1
    )


def test_the_most_urgent_go_first_and_the_oldest_of_them() -> None:
    low, middle, first, second = queued(priority=9), queued(priority=5), queued(priority=1), queued(priority=1)

    assert claim(3) == [first.pk, second.pk, middle.pk]
    assert claim(3) == [low.pk]


def test_more_urgent_rows_of_one_third_party_are_not_passed_by_less_urgent_ones() -> None:
    for _ in range(6):
        queued("busy", priority=1)
    queued("other", priority=1)
    queued("third", priority=2)

    claimed = claim(7)

    assert third_parties(claimed).count("busy") == 6
    assert "third" not in third_parties(claimed)


def test_third_parties_of_equal_priority_take_turns() -> None:
    for _ in range(6):
        queued("many")
    for name in ("few", "one"):
        queued(name)

    assert third_parties(claim(4)) == ["few", "many", "one", "many"]


def test_the_next_claim_goes_on_with_whose_turn_it_is() -> None:
    for _ in range(4):
        for name in ("a", "b", "c"):
            queued(name)

    claimed = [third_parties(claim(2)) for _ in range(3)]

    assert claimed == [["a", "b"], ["c", "a"], ["b", "c"]]


def test_none_of_a_thousand_third_parties_starves() -> None:
    rows(third_parties=1000, each=2)

    claimed = [third_parties(claim(50)) for _ in range(20)]

    assert {len(set(names)) for names in claimed} == {50}
    assert Counter(name for names in claimed for name in names) == {f"tp-{n:04}": 1 for n in range(1000)}


def test_a_trickle_of_urgent_rows_stops_no_turn_of_the_others() -> None:
    rows(third_parties=20, each=2)
    claimed = []

    for _ in range(20):
        urgent = queued("urgent", priority=1)
        first, *rest = claim(2)
        assert first == urgent.pk
        claimed += third_parties(rest)

    assert sorted(claimed) == [f"tp-{n:04}" for n in range(20)]


def rows(*, third_parties: int, each: int, state: str = "queued") -> None:
    """Many rows at once, of third parties tp-0000, tp-0001, …"""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH event AS (
                INSERT INTO kanikojobs_jobstartevent (
                    event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id,
                    parser_id, correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout,
                    content_hash, origin
                )
                SELECT 'many-' || n || random(), 'tests', 'tests', '1.0', '', '', '', '{}',
                       'tp-' || lpad((n %% %(parties)s)::text, 4, '0'), 'parser-' || n, '', 'job', 5, 'container', '',
                       '', 60, '', 'queue'
                FROM generate_series(0, %(parties)s * %(each)s - 1) n
                RETURNING id, priority, third_party_id, parser_id
            )
            INSERT INTO kanikojobs_kanikojob (
                event_id, name, namespace, priority, third_party_id, parser_id, state, finished_at, job_uid
            )
            SELECT id, 'job-' || id, 'builds', priority, third_party_id, parser_id, %(state)s,
                CASE WHEN %(state)s = 'succeeded' THEN now() END,
                CASE WHEN %(state)s = 'succeeded' THEN gen_random_uuid() END
            FROM event
            """,
            {"parties": third_parties, "each": each, "state": state},
        )


def test_a_row_that_waits_for_its_time_is_claimed_when_it_has_come() -> None:
    due, later = queued(run_at=PAST), queued(run_at=FUTURE)

    assert claim() == [due.pk]
    assert KanikoJob.objects.get(pk=later.pk).state == "queued"
    seconds = claims.seconds_until_due()
    assert seconds is not None
    assert 3000 < seconds <= 3600


def test_a_row_whose_lease_ran_out_is_claimed_again_and_its_open_attempt_is_lost() -> None:
    job = queued(state=State.CREATING, leased_until=PAST)
    attempt = an_attempt(kaniko_job=job)
    closed = an_attempt(kaniko_job=job, number=2, outcome="retry", finished_at=NOW)

    claimed = claims.claim(most=5, lease=LEASE)

    job.refresh_from_db()
    attempt.refresh_from_db()
    closed.refresh_from_db()
    assert claimed.kaniko_jobs == (job.pk,)
    assert job.claim == claimed.token
    assert (attempt.outcome, attempt.reason, closed.outcome) == ("lost", "WorkerLost", "retry")
    assert tallies.totals(prefix="creation/")["creation/lost"].count == 1


def test_a_row_under_lease_is_nobody_elses() -> None:
    queued(state=State.CREATING)

    assert claim() == []


@pytest.mark.parametrize("state", ["creating", "created", "running"])
def test_active_jobs_take_the_places_under_the_cap(settings: Settings, state: str) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 3
    queued(state=state)
    waits = [queued() for _ in range(4)]

    assert claim() == [job.pk for job in waits[:2]]
    assert claim() == []


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_finished_jobs_take_no_place(settings: Settings, state: str) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 1
    queued(state=state)
    job = queued()

    assert claim() == [job.pk]


def test_who_is_at_its_cap_is_passed_by_others(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = 2
    queued("busy", state=State.RUNNING)
    busy = [queued("busy", priority=1) for _ in range(5)]
    lone = queued("lone", priority=9)

    assert claim() == [busy[0].pk, lone.pk]
    assert claim() == []


def test_both_caps_hold_together(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 7
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = 3
    for name in ("a", "b", "c"):
        for _ in range(5):
            queued(name)

    claimed = Counter(third_parties(claim()))

    assert claimed.total() == 7
    assert max(claimed.values()) == 3


@pytest.mark.parametrize(
    ("setting", "profile", "claimed"),
    [
        pytest.param(2, None, 2, id="as-the-setting"),
        pytest.param(2, 4, 4, id="more"),
        pytest.param(2, 0, 6, id="none"),
        pytest.param(0, 3, 3, id="a-cap-where-there-was-none"),
    ],
)
def test_a_third_party_can_have_a_cap_of_its_own(
    settings: Settings, setting: int, profile: int | None, claimed: int
) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = setting
    BuildProfile.objects.create(third_party_id="special", max_active_jobs=profile)
    for _ in range(6):
        queued("special")

    assert len(claim()) == claimed
    assert claim() == []


def test_a_job_that_may_be_there_keeps_its_place_while_it_waits(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 1
    waits = queued(may_exist=True, run_at=FUTURE)
    queued()

    assert claim() == []
    KanikoJob.objects.filter(pk=waits.pk).update(run_at=PAST)
    assert claim() == [waits.pk]


def test_a_job_whose_worker_was_lost_in_a_call_keeps_its_place(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 1
    lost = queued(state=State.CREATING, leased_until=PAST, priority=9)
    an_attempt(kaniko_job=lost)
    queued(priority=1)

    assert claim() == [lost.pk]


def test_rows_that_are_given_back_are_due_at_once() -> None:
    jobs = [queued() for _ in range(3)]
    claim = claims.claim(most=3, lease=LEASE)

    released = claims.release(token=claim.token, kaniko_jobs=[jobs[0].pk])
    rest = claims.release(token=claim.token)

    assert (released, rest) == (1, 2)
    assert set(KanikoJob.objects.values_list("state", "claim", "leased_until")) == {("queued", None, None)}


def test_rows_of_another_claim_are_not_given_back() -> None:
    job = queued()
    stale = claims.claim(most=1, lease=LEASE)
    KanikoJob.objects.update(leased_until=PAST)
    claims.claim(most=1, lease=LEASE)

    assert claims.release(token=stale.token) == 0
    assert KanikoJob.objects.get(pk=job.pk).state == "creating"


@pytest.mark.django_db(transaction=True)
def test_clusters_that_claim_at_once_share_the_rows_and_keep_to_the_caps(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 50
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = 10
    rows(third_parties=12, each=20)
    claimed: list[int] = []

    def cluster() -> None:
        for _ in range(6):
            claimed.extend(claim(7))
        connection.close()

    threads = [threading.Thread(target=cluster) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(claimed) == len(set(claimed)) == 50
    assert max(Counter(third_parties(claimed)).values()) <= 10


@pytest.mark.parametrize("caps", [0, 500])
@pytest.mark.parametrize("statistics", ["none", "from-before-the-burst", "fresh"])
def test_a_claim_reads_what_waits_and_not_what_is_over_whatever_the_statistics_say(
    settings: Settings, statistics: str, caps: int
) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = caps
    rows(third_parties=50, each=200, state="succeeded")
    give_each_its_attempt()
    if statistics == "from-before-the-burst":
        analyze()
    rows(third_parties=50, each=20)
    if statistics == "fresh":
        analyze()
    claim(10)

    scanned = [rows_read(node) for plan in plans_of_a_claim() for node in nodes(plan)]

    # A claim looks at each row that it takes and at one of each third party. Ten thousand rows are over.
    assert max(scanned) < 1_500


def give_each_its_attempt() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, outcome, finished_at)"
            " SELECT id, 1, 'created', now() FROM kanikojobs_kanikojob"
        )


def analyze() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE kanikojobs_kanikojob, kanikojobs_jobattempt")


def plans_of_a_claim() -> list[dict[str, Any]]:
    """How PostgreSQL carries out each statement of a claim, with the rows that it really reads."""
    with CaptureQueriesContext(connection) as captured:
        claim(10)
    plans = []
    with connection.cursor() as cursor:
        for query in captured.captured_queries:
            if query["sql"].lstrip().startswith(("SELECT", "WITH", "UPDATE")) and "advisory" not in query["sql"]:
                cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {query['sql']}")
                (plan,) = cursor.fetchone()
                plans.append((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])
    return plans


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def rows_read(node: dict[str, Any]) -> int:
    read = node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Join Filter", 0)
    return int(read * node["Actual Loops"]) if "Scan" in node["Node Type"] or "Join" in node["Node Type"] else 0


def test_a_row_says_why_it_waits(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = 1
    queued("busy", state=State.RUNNING)
    capped, turn = queued("busy"), queued("other")
    later = queued("third", run_at=FUTURE, reason="TooManyRequests")
    first = queued("fourth", state=State.RUNNING)
    behind = queued("fifth", waits_for=first, place=2)

    said = [waiting.why_waiting(job) for job in (capped, turn, later, behind, first)]

    assert said[0] == "Of its third party's Jobs, 1 are active, as many as its cap of 1 allows."
    assert said[1].startswith("It waits for a worker")
    assert said[2].endswith("after TooManyRequests.")
    assert said[3].startswith(first.name)
    assert said[4] == ""
    assert waiting.counts() == {
        "outage": 0,
        "retry": 1,
        "line": 1,
        "cap": 0,
        "third-party-cap": 1,
        "turn": 1,
    }


def test_a_row_names_the_cap_or_the_outage_that_it_waits_for(settings: Settings) -> None:
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 1
    queued(state=State.RUNNING)
    job = queued()

    capped = waiting.why_waiting(job), waiting.counts()["cap"]
    outages.begin(ClusterUnavailable(reason="ConnectionFailed", message="refused"))
    away = waiting.why_waiting(job), waiting.counts()["outage"]

    assert capped == ("Of all Jobs, 1 are active, as many as KANIKOJOBS_MAX_ACTIVE_JOBS=1 allows.", 1)
    assert away[0].startswith("Kubernetes cannot be used since ")
    assert away[1] == 1
