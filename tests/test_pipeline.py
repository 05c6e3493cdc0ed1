"""The whole way: a message in RabbitMQ, or a request, becomes a Job in Kubernetes, with real processes' code."""

import json

import pytest
from django.conf import settings
from django_q.signing import SignedPackage

from deploy.local.simulator import Simulator
from kanikojobs import amqp, lanes, tasks
from kanikojobs.amqp import Publication
from kanikojobs.consuming import Consuming
from kanikojobs.models import DeadLetter, JobAttempt, JobStartEvent, KanikoJob
from kanikojobs.queue import KanikoJobBroker
from kanikojobs.topology import topology
from tests.sample_events import document_event, sample_event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queues", "simulator")]


def publish(*bodies: bytes) -> None:
    link = amqp.connect(settings.RABBITMQ_URL, name="tests")
    amqp.declare(link, topology())
    amqp.publish(
        link,
        [Publication("", settings.KANIKOJOBS_QUEUE, body, "application/cloudevents+json", {}) for body in bodies],
    )
    link.close()


def consume() -> Consuming:
    consuming = Consuming(
        url=settings.RABBITMQ_URL,
        queues=lanes.works(queue=settings.KANIKOJOBS_QUEUE, dlq=settings.KANIKOJOBS_DLQ, drain_dlq=True),
        prefetch=100,
        batch=50,
        once=True,
        on_connect=lambda link: amqp.declare(link, topology()),
    )
    consuming.run()
    return consuming


def work() -> None:
    """What a cluster does until nothing is due: the broker's packages, each run as a worker runs it."""
    broker = KanikoJobBroker(list_key="tests")
    while packages := broker.dequeue():
        for _, package in packages:
            task = SignedPackage.loads(package)
            assert task["func"] == "kanikojobs.tasks.create_jobs"
            tasks.create_jobs(*task["args"])


def test_the_documents_sample_event_becomes_one_job(simulator: Simulator) -> None:
    publish(json.dumps(document_event()).encode())

    counts = consume().counts
    work()

    job = KanikoJob.objects.get()
    assert counts.recorded == 1
    assert job.state == "created"
    assert simulator.stats()["creates"]["total"] == 1


def test_the_same_event_sent_three_times_becomes_one_job(simulator: Simulator) -> None:
    publish(*[json.dumps(document_event()).encode()] * 3)

    counts = consume().counts
    work()

    assert (counts.recorded, counts.duplicates) == (1, 2)
    assert JobStartEvent.objects.get().times_seen == 3
    assert KanikoJob.objects.get().state == "created"
    assert JobAttempt.objects.get().outcome == "created"


def test_an_invalid_event_is_a_dead_letter_and_its_neighbours_are_built() -> None:
    publish(json.dumps(sample_event(1)).encode(), b"{", json.dumps(sample_event(2)).encode())

    counts = consume().counts
    work()

    assert (counts.recorded, counts.dead) == (2, 1)
    assert bytes(DeadLetter.objects.get().body) == b"{"
    assert KanikoJob.objects.filter(state="created").count() == 2
