"""The migration from direct events to the queue, in its three phases and back: every event is built, and built once."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client
from pytest_django import Settings

from deploy.local.simulator import Simulator
from kanikojobs import flows
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob, ReplayRun
from kanikojobs.replay import running as replaying
from kanikojobs.replay import runs
from kanikojobs.replay.selection import Selection
from tests.consuming import consuming, eventually, publish_samples, running
from tests.creating import work
from tests.replay_cases import AN_OPERATOR
from tests.sample_events import sample_event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queues")]

BATCH = 100


def post(client: Client, numbers: Sequence[int]) -> HttpResponse:
    """A batch of sample events, sent directly."""
    body = json.dumps([sample_event(n) for n in numbers])
    response: Any = client.post("/", body, content_type="application/cloudevents-batch+json")
    return response


def build_all(simulator: Simulator) -> int:
    """Have all queued Kaniko Jobs created; return how many Jobs the cluster was asked for, and check each is one."""
    while work(most=BATCH).created:
        pass
    creates = simulator.stats()["creates"]
    assert set(creates["by_identity"].values()) <= {1}
    return int(creates["total"])


def test_phase_one_takes_direct_events(client: Client, simulator: Simulator) -> None:
    response = post(client, range(10))

    assert response.status_code == 202
    assert build_all(simulator) == 10
    assert flows.comparison().next_step.phase == 1


def test_phase_two_builds_once_what_comes_by_both_ways_at_the_same_time(client: Client, simulator: Simulator) -> None:
    numbers = range(1000)
    publish_samples(numbers)

    with running(consuming(prefetch=500, batch=BATCH)):
        # From the other end, so that each way is first for a part of them.
        for start in reversed(range(0, len(numbers), BATCH)):
            assert post(client, numbers[start : start + BATCH]).status_code == 202
        eventually(lambda: not JobStartEvent.objects.filter(times_seen=1).exists())

    assert JobStartEvent.objects.count() == 1000
    assert not JobStartEvent.objects.exclude(times_seen=2, other_way_at__isnull=False).exists()
    assert build_all(simulator) == 1000
    assert KanikoJob.objects.filter(state="created").count() == 1000
    queue, direct = flows.comparison().ways
    assert queue.both + direct.both == queue.recorded + direct.recorded == 1000
    assert (queue.messages, direct.messages) == (1000, 1000)
    assert flows.comparison().next_step == flows.NextStep(
        2,
        True,
        "Every direct event of the last 24 hours came through the queue, too. "
        "Phase 3 is safe: set KANIKOJOBS_DIRECT_EVENTS=reject.",
    )


def test_phase_three_refuses_what_comes_directly_and_loses_nothing(
    client: Client, simulator: Simulator, settings: Settings
) -> None:
    """0 to 9 come by both ways, 10 to 14 by the queue alone, and 15 to 19 lay in Knative's broker at the switch."""
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    refused = [post(client, range(10)), *(post(client, [n]) for n in range(10))]
    publish_samples(range(15))
    consuming(once=True).run()
    brought = [deliver(client, n, path="/events/broker") for n in range(15, 20)]
    # A broker that takes the 410 for a failure hands them to the dead-letter sink of its Trigger.
    given_up = [deliver(client, n, path="/events/undelivered") for n in range(15, 20)]

    for response in (*refused, *brought):
        assert response.status_code == 410
        detail = json.loads(response.content)["detail"]
        assert detail == f"Direct events are switched off. Publish to the RabbitMQ queue {settings.KANIKOJOBS_QUEUE}."
    assert {response.status_code for response in given_up} == {202}
    assert build_all(simulator) == 15
    assert DeadLetter.objects.filter(state="open", cause="undelivered").count() == 5
    assert flows.comparison().refused == len(refused) + len(brought)

    replay_all()

    assert build_all(simulator) == 20
    built = set(KanikoJob.objects.filter(state="created").values_list("event__event_id", flat=True))
    assert built == {sample_event(n)["id"] for n in range(20)}
    assert not DeadLetter.objects.filter(state="open").exists()


def test_the_way_back_takes_direct_events_again_and_what_waited_in_the_queue_too(
    client: Client, simulator: Simulator, settings: Settings
) -> None:
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"
    assert post(client, range(5)).status_code == 410
    publish_samples(range(5))

    settings.KANIKOJOBS_DIRECT_EVENTS = "accept"

    assert post(client, range(10)).status_code == 202
    consuming(once=True).run()
    assert build_all(simulator) == 10
    assert JobStartEvent.objects.filter(origin="direct", other_way_at__isnull=False).count() == 5


def deliver(client: Client, n: int, *, path: str) -> HttpResponse:
    """A sample event as Knative's RabbitMQ broker delivers it: in binary mode, and without asking for a reply."""
    event = sample_event(n)
    headers = {f"ce-{name}": value for name, value in event.items() if name not in ("data", "datacontenttype")}
    if path == "/events/undelivered":
        headers |= {"ce-knativeerrordest": "http://builder/events/broker", "ce-knativeerrorcode": "410"}
    response: Any = client.post(path, json.dumps(event["data"]), content_type="application/json", headers=headers)
    return response


def replay_all() -> None:
    """Put every open dead letter back through intake."""
    run: ReplayRun = runs.start(
        selection=Selection(), cut_off=now(), pace=runs.Pace(), author=AN_OPERATOR, reason="phase 3"
    )
    replaying.first_step(run)
