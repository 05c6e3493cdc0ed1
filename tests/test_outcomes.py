"""Outcome events: one for each Kaniko Job that finished, from the outbox, under ids that stay the same."""

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.conf import settings as django_settings
from django.db import connection, transaction
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from pytest_django import Settings

from deploy.local.rabbitmq import RabbitMQ
from deploy.local.simulator import Simulator
from deploy.local.stack import Given
from kanikojobs import amqp, cloudevent, intake, outbox, outcomes, retry, tallies
from kanikojobs.audit import Author
from kanikojobs.models import KanikoJob, Move, OperatorAction, OutcomeEvent
from kanikojobs.states import FINISHED, State
from kanikojobs.tracing import exporting
from tests.factories import a_kaniko_job, an_event
from tests.stack_plugin import StartCommand
from tests.watched_jobs import created_jobs, queued_job, wait_finished, wait_until

ALICE = Author(name="alice", via=OperatorAction.Via.COMMAND)


@pytest.fixture
def told(queues: None, rabbitmq: RabbitMQ | Given, settings: Settings) -> Iterator["Listener"]:
    """A queue that hears of all outcomes, and the setting that has them told."""
    settings.KANIKOJOBS_OUTCOME_EVENTS = True
    listener = Listener(rabbitmq.url, name=f"{settings.KANIKOJOBS_QUEUE}.outcomes")
    yield listener
    listener.close()


class Listener:
    def __init__(self, url: str, *, name: str, room: int = 0) -> None:
        self.link = amqp.connect(url, name="tests")
        self._channel = self.link.channel()
        self._queue = name
        self._channel.queue_declare(
            name, arguments={"x-max-length": room, "x-overflow": "reject-publish"} if room else None
        )
        for state in FINISHED:
            self._channel.queue_bind(name, django_settings.KANIKOJOBS_EXCHANGE, f"{outcomes.TYPE}.{state}")

    def no_longer_hears(self, state: State) -> None:
        self._channel.queue_unbind(self._queue, django_settings.KANIKOJOBS_EXCHANGE, f"{outcomes.TYPE}.{state}")

    def messages(self) -> list[tuple[Any, dict[str, Any]]]:
        """Properties and body of each message that waits."""
        found = []
        while (got := self._channel.basic_get(self._queue, auto_ack=True))[0] is not None:
            found.append((got[1], json.loads(got[2])))
        return found

    def close(self) -> None:
        self._channel.queue_delete(self._queue)
        self.link.close()


def finish(job: KanikoJob, *, to: State, **what: Any) -> None:
    assert KanikoJob.objects.move([Move(id=job.pk, to=to, **what)]) == {job.pk}


@pytest.mark.django_db
@pytest.mark.parametrize("state", FINISHED)
def test_each_outcome_is_a_cloudevent_of_its_own_type(told: Listener, state: State) -> None:
    event = an_event(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    job = a_kaniko_job(event=event, state="running")
    finish(job, to=state, reason="OOMKilled" if state == State.FAILED else "", message="a sentence")

    assert outbox.publish_some(told.link) == 1

    ((properties, outcome),) = told.messages()
    assert outcome["type"] == f"network.notifi.lambda.job.{state}"
    assert outcome["id"] == f"{job.namespace}/{job.name}/{state}"
    assert outcome["traceparent"] == event.traceparent == properties.headers["traceparent"]
    assert outcome["subject"] == event.event_id
    assert outcome["data"]["state"] == state
    assert outcome["data"]["number"] == 1
    assert (outcome["data"]["advice"] != "") == (state == State.FAILED)
    assert properties.delivery_mode == 2
    assert properties.content_type.startswith("application/cloudevents+json")


@pytest.mark.django_db
def test_publishing_is_a_span_in_the_trace_that_the_outcome_carries_on(told: Listener, settings: Settings) -> None:
    settings.KANIKOJOBS_TRACES = True
    exporting.send_by(SimpleSpanProcessor(spans := InMemorySpanExporter()))
    event = an_event(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    finish(a_kaniko_job(event=event, state="running"), to=State.SUCCEEDED)

    outbox.publish_some(told.link)

    (span,) = spans.get_finished_spans()
    ((_, outcome),) = told.messages()
    exchange = f"{django_settings.KANIKOJOBS_EXCHANGE}:{outcomes.TYPE}.succeeded"
    assert (span.name, span.kind) == (f"publish {exchange}", SpanKind.CLIENT)
    assert span.parent is not None
    assert f"00-{span.parent.trace_id:032x}-{span.parent.span_id:016x}-01" == event.traceparent
    assert outcome["traceparent"] == event.traceparent
    assert dict(span.attributes or {}) == {
        "messaging.system": "rabbitmq",
        "messaging.destination.name": exchange,
        "messaging.rabbitmq.destination.routing_key": f"{outcomes.TYPE}.succeeded",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "cloudevents.event_id": outcome["id"],
        "cloudevents.event_source": outcome["source"],
        "cloudevents.event_type": outcome["type"],
    }


@pytest.mark.django_db
def test_an_outcome_is_published_once_and_then_no_more(told: Listener) -> None:
    finish(a_kaniko_job(state="running"), to=State.SUCCEEDED)

    first, second = outbox.publish_some(told.link), outbox.publish_some(told.link)

    assert (first, second) == (1, 0)
    assert len(told.messages()) == 1


@pytest.mark.django_db
def test_what_was_confirmed_unheard_is_told_again_under_the_same_id(told: Listener) -> None:
    finish(a_kaniko_job(state="running"), to=State.SUCCEEDED)
    outbox.publish_some(told.link)
    OutcomeEvent.objects.update(published_at=None)

    outbox.publish_some(told.link)

    first, second = (outcome for _, outcome in told.messages())
    assert first == second


@pytest.mark.django_db
def test_an_outcome_that_nobody_wants_to_know_does_not_stay(queues: None, settings: Settings) -> None:
    settings.KANIKOJOBS_OUTCOME_EVENTS = True
    finish(a_kaniko_job(state="running"), to=State.SUCCEEDED)
    link = amqp.connect(settings.RABBITMQ_URL, name="tests")

    outbox.publish_some(link)

    link.close()
    assert OutcomeEvent.objects.get().published_at is not None


@pytest.mark.django_db
def test_outcomes_are_told_in_the_order_of_the_ends_and_those_for_nobody_hold_up_no_other(told: Listener) -> None:
    jobs = [a_kaniko_job(state="running") for _ in range(6)]
    told.no_longer_hears(State.CANCELLED)
    for number, job in enumerate(jobs):
        finish(job, to=State.CANCELLED if number == 2 else State.SUCCEEDED)

    assert outbox.publish_some(told.link, most=4) + outbox.publish_some(told.link) == 6

    names = [outcome["data"]["kubernetes_name"] for _, outcome in told.messages()]
    assert names == [job.name for number, job in enumerate(jobs) if number != 2]
    counted = tallies.totals(prefix="outcome-event/")
    assert {series: total.count for series, total in counted.items()} == {
        "outcome-event/published": 5,
        "outcome-event/unroutable": 1,
    }


@pytest.mark.django_db(transaction=True)
def test_of_two_publishers_one_publishes_at_a_time(told: Listener) -> None:
    finish(a_kaniko_job(state="running"), to=State.SUCCEEDED)

    with psycopg.connect(**connection.get_connection_params()) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s)", [outbox.OUTBOX_LOCK])
        meanwhile = outbox.publish_some(told.link)
    afterwards = outbox.publish_some(told.link)

    assert (meanwhile, afterwards) == (0, 1)


@pytest.mark.django_db
def test_what_a_full_queue_refuses_waits_until_there_is_room(
    queues: None, rabbitmq: RabbitMQ | Given, settings: Settings
) -> None:
    settings.KANIKOJOBS_OUTCOME_EVENTS = True
    jobs = [a_kaniko_job(state="running") for _ in range(3)]
    for job in jobs:
        finish(job, to=State.SUCCEEDED)
    full = Listener(rabbitmq.url, name=f"{settings.KANIKOJOBS_QUEUE}.full", room=1)
    heard, waited = [], []

    for _ in jobs:
        waited.append(outbox.backlog().waiting)
        with suppress(*amqp.CONNECTION_ERRORS):
            outbox.publish_some(full.link)
        heard += [outcome["data"]["kubernetes_name"] for _, outcome in full.messages()]

    full.close()
    assert waited == [3, 2, 1]
    assert heard == [job.name for job in jobs]
    assert outbox.backlog() == outbox.Backlog(waiting=0, oldest=None)


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_is_not_told(told: Listener) -> None:
    job = a_kaniko_job(state="running")

    transaction.set_autocommit(False)
    finish(job, to=State.SUCCEEDED)
    transaction.rollback()
    transaction.set_autocommit(True)

    assert OutcomeEvent.objects.count() == 0


@pytest.mark.django_db
def test_a_cancelled_job_is_told_too(told: Listener) -> None:
    job = queued_job()

    retry.cancel(job.pk, author=ALICE, reason="not wanted")
    outbox.publish_some(told.link)

    ((_, outcome),) = told.messages()
    assert outcome["type"].endswith(".cancelled")
    assert outcome["data"]["reason"] == "CancelledByOperator"


@pytest.mark.django_db
def test_nothing_is_told_unless_it_is_asked_for(settings: Settings) -> None:
    assert django_settings.KANIKOJOBS_OUTCOME_EVENTS is False

    finish(a_kaniko_job(state="running"), to=State.SUCCEEDED)

    assert OutcomeEvent.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_the_watcher_tells_outcomes_with_image_and_digest(
    told: Listener, simulator: Simulator, start_command: StartCommand
) -> None:
    start_command("watch_jobs", env={"KANIKOJOBS_OUTCOME_EVENTS": "yes"})
    jobs = created_jobs(3)
    wait_finished(jobs)
    heard: list[dict[str, Any]] = []

    def all_are_told() -> bool:
        heard.extend(outcome for _, outcome in told.messages())
        return len(heard) >= 3

    wait_until(all_are_told)
    assert {outcome["data"]["kubernetes_name"] for outcome in heard} == {job.name for job in jobs}
    for outcome in heard:
        assert outcome["data"]["image_digest"].startswith("sha256:")
        assert outcome["data"]["image"].startswith("registry:5000/third-party/")


@pytest.mark.django_db
def test_our_own_intake_passes_an_outcome_by(told: Listener) -> None:
    job = a_kaniko_job(state="running")
    finish(job, to=State.SUCCEEDED)
    body = json.dumps(outcomes.cloud_event(KanikoJob.objects.get(pk=job.pk))).encode()

    with pytest.raises(intake.NotOurs):
        cloudevent.from_amqp(body=body, content_type="application/cloudevents+json", headers={}, rules=intake.rules())
