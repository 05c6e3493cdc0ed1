"""The two flows compared: an event that comes by both ways is built once, and it is told who still comes one way."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import F
from django.test import Client
from pytest_django import Settings

from kanikojobs import flows, intake, tallies
from kanikojobs.flows import NextStep
from kanikojobs.messages import Message
from kanikojobs.models import JobStartEvent, KanikoJob
from kanikojobs.overview import WINDOWS
from tests.factories import an_event
from tests.sample_events import sample_event

pytestmark = pytest.mark.django_db

Origin = JobStartEvent.Origin
QUEUE, DIRECT, REPLAY = Origin.QUEUE, Origin.DIRECT, Origin.REPLAY


def message(n: int, **changes: Any) -> Message:
    return Message(json.dumps(sample_event(n) | changes).encode(), "application/cloudevents+json", {})


def send(*numbers: int, origin: Origin) -> None:
    intake.record([message(n) for n in numbers], origin=origin)


# --- What is noted on the event ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ways", "noted"),
    [
        ([QUEUE], False),
        ([QUEUE, QUEUE], False),
        ([DIRECT, DIRECT], False),
        ([QUEUE, DIRECT], True),
        ([DIRECT, QUEUE], True),
        ([DIRECT, DIRECT, QUEUE, QUEUE], True),
        ([QUEUE, REPLAY], False),
        ([REPLAY, QUEUE, DIRECT], False),
    ],
    ids=lambda ways: " ".join(ways) if isinstance(ways, list) else None,
)
def test_that_an_event_came_both_ways_is_noted_once(ways: list[Origin], noted: bool) -> None:
    for origin in ways:
        send(1, origin=origin)

    event = JobStartEvent.objects.get()
    both = tallies.totals(prefix="both-ways/")
    assert (event.origin, event.times_seen) == (ways[0], len(ways))
    assert (event.other_way_at is not None) == noted
    assert {series: total.count for series, total in both.items()} == ({f"both-ways/{ways[0]}": 1} if noted else {})
    assert KanikoJob.objects.count() == 1


def test_the_time_of_the_first_is_kept_and_the_delay_is_counted_from_it() -> None:
    send(1, 2, origin=DIRECT)
    JobStartEvent.objects.update(received_at=F("received_at") - timedelta(seconds=40))

    send(1, 2, origin=QUEUE)
    noted = dict(JobStartEvent.objects.values_list("event_id", "other_way_at"))
    send(1, 2, origin=QUEUE)

    total = tallies.totals(prefix="both-ways/")["both-ways/direct"]
    assert dict(JobStartEvent.objects.values_list("event_id", "other_way_at")) == noted
    assert total.count == 2
    assert 80 <= total.seconds < 100


def test_a_duplicate_behind_a_conflict_in_one_batch_is_noted_too() -> None:
    send(1, origin=DIRECT)
    other = message(1, subject="of something else")

    intake.record([other, message(1)], origin=QUEUE)

    assert JobStartEvent.objects.get().other_way_at is not None
    assert tallies.totals(prefix="both-ways/")["both-ways/direct"].count == 1


# --- The comparison ---------------------------------------------------------------------------------------------------


@pytest.fixture
def a_day_of_both() -> None:
    """1 to 4 came both ways, first directly but for 4; 5 came by the queue only, 6 and 7 directly only."""
    send(1, 2, 3, 6, 7, origin=DIRECT)
    send(1, 2, 3, 4, 5, origin=QUEUE)
    send(4, origin=DIRECT)
    intake.record([message(5, subject="of something else")], origin=DIRECT)
    JobStartEvent.objects.update(received_at=F("received_at") - timedelta(minutes=10))


@pytest.mark.usefixtures("a_day_of_both")
@pytest.mark.parametrize("window", WINDOWS, ids=lambda window: window.key)
def test_each_way_is_counted_with_what_came_by_it_alone(window: Any) -> None:
    found = flows.comparison(window=window)

    queue, direct = found.ways
    assert (queue.origin, queue.messages, queue.recorded, queue.both, queue.only) == (QUEUE, 5, 2, 1, 1)
    assert (direct.origin, direct.messages, direct.recorded, direct.both, direct.only) == (DIRECT, 7, 5, 3, 2)
    assert found.conflicts == 1
    assert isinstance(direct.mean_delay, float)
    assert found.only_direct == 2
    assert {event.event_id for event in found.newest} == {sample_event(6)["id"], sample_event(7)["id"]}
    assert sum(found.senders.values()) == 2
    assert not found.next_step.ready


def test_an_event_that_may_still_come_through_the_queue_speaks_against_nothing() -> None:
    send(1, 2, origin=DIRECT)
    send(1, origin=QUEUE)

    found = flows.comparison()

    assert found.ways[1].only == 1
    assert found.only_direct == 0


def test_what_is_older_than_a_day_speaks_against_nothing() -> None:
    an_event(origin=DIRECT, received_at=datetime.now(UTC) - timedelta(hours=25, minutes=1))
    an_event(origin=DIRECT, received_at=datetime.now(UTC) - timedelta(hours=23))

    assert flows.comparison().only_direct == 1


@pytest.mark.parametrize(
    ("switch", "numbers", "phase", "ready", "says"),
    [
        ("accept", {"direct": 5}, 1, False, "For phase 2 let the senders publish to the RabbitMQ queue kaniko-jobs"),
        ("accept", {"direct": 5, "queue": 4, "only_direct": 1}, 2, False, "1 event of the last 24 hours came only"),
        ("accept", {"direct": 9, "queue": 9, "only_direct": 10_000}, 2, False, "10000+ events"),
        ("accept", {"direct": 5, "queue": 5}, 2, True, "set KANIKOJOBS_DIRECT_EVENTS=reject"),
        ("accept", {"direct": 5, "queue": 5, "not_judged": 1}, 2, False, "1 event came directly within the last five"),
        ("accept", {"queue": 5}, 2, True, "Nothing came directly within 24 hours"),
        ("accept", {}, 1, False, "Nothing came within 24 hours, by either way"),
        ("reject", {"queue": 5, "refused": 3}, 3, False, "3 direct requests were refused within 24 hours"),
        ("reject", {"queue": 5, "refused": 1}, 3, False, "1 direct request was refused within 24 hours"),
        ("reject", {"queue": 5}, 3, True, "take its parts down"),
    ],
)
def test_what_to_do_next_is_said(
    settings: Settings, switch: str, numbers: dict[str, int], phase: int, ready: bool, says: str
) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = switch
    settings.KANIKOJOBS_QUEUE = "kaniko-jobs"

    step: NextStep = flows.next_step(
        senders=["a-sender"], **{"queue": 0, "direct": 0, "only_direct": 0, "not_judged": 0, "refused": 0} | numbers
    )

    assert (step.phase, step.ready) == (phase, ready)
    assert says in step.sentence


def test_where_knative_reads_the_queue_nothing_can_be_compared(settings: Settings) -> None:
    settings.KANIKOJOBS_QUEUE_READER = "knative"

    step = flows.next_step(queue=0, direct=9, only_direct=9, not_judged=0, refused=0, senders=[])

    assert (step.phase, step.ready) == (1, False)
    assert "KANIKOJOBS_QUEUE_READER=consumer" in step.sentence


def test_the_events_that_decide_are_found_by_an_index_of_their_own() -> None:
    send(*range(300), origin=DIRECT)
    send(*range(295), origin=QUEUE)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE kanikojobs_jobstartevent")
        # Of so few rows, reading all is no dearer.
        cursor.execute("SET LOCAL enable_seqscan = off")

    assert "event_only_direct" in flows.only_direct().explain()


# --- Shown ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("a_day_of_both")
def test_the_page_says_what_to_do_and_who_still_sends_directly_only(admin_client: Client) -> None:
    an_event(
        origin=DIRECT,
        third_party_id="<b>bold</b>",
        received_at=datetime.now(UTC) - timedelta(minutes=20),
        parser_id="p",
    )

    page = admin_client.get("/admin/flows/?window=7d").content.decode()

    assert "3 events of the last 24 hours came only directly" in page
    assert "phase 3 is safe when this has been 0 for 24 hours" in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page
    assert "<b>bold" not in page
    assert sample_event(6)["id"] in page
    assert 'href="?window=7d" aria-current="page"' in page


@pytest.mark.usefixtures("a_day_of_both")
def test_rest_and_stats_tell_the_same(admin_client: Client) -> None:
    found = admin_client.get("/async-jobs/flows?window=1h").json()
    short = admin_client.get("/async-jobs/stats").json()["flows"]

    assert [(way["origin"], way["both"], way["only"]) for way in found["ways"]] == [("queue", 1, 1), ("direct", 3, 2)]
    assert found["only_direct"] == short["only_direct"] == 2
    assert found["next_step"]["sentence"] == short["next"]
    assert short["both"] == 4
    assert len(found["newest"]) == 2


@pytest.mark.parametrize("address", ["/admin/flows/", "/async-jobs/flows"])
def test_it_takes_the_permission_to_view_events(client: Client, django_user_model: Any, address: str) -> None:
    client.force_login(django_user_model.objects.create_user("nobody", is_staff=True))

    assert client.get(address).status_code == 403
