"""A consumer in a thread of the test, messages for it, and waiting until something is so."""

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db import connections

from kanikojobs import amqp, lanes
from kanikojobs.amqp import Publication
from kanikojobs.consuming import Consuming
from kanikojobs.topology import topology
from tests.sample_events import sample_event

JSON = "application/cloudevents+json"


def consuming(**changes: Any) -> Consuming:
    """The consumer of the test's own queues. `signal` handlers and arguments are the command's matter."""
    values: dict[str, Any] = {
        "url": settings.RABBITMQ_URL,
        "queues": lanes.works(queue=settings.KANIKOJOBS_QUEUE, dlq=settings.KANIKOJOBS_DLQ, drain_dlq=True),
        "prefetch": 100,
        "batch": 50,
        "on_connect": lambda connection: amqp.declare(connection, topology()),
    }
    return Consuming(**values | changes)


@contextmanager
def running(consumer: Consuming) -> Iterator[Consuming]:
    """The consumer at work in a thread. What it raises comes out here."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            consumer.run()
        except BaseException as error:
            raised.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="consumer")
    thread.start()
    try:
        yield consumer
    finally:
        consumer.stop.set()
        thread.join(60)
    assert not thread.is_alive()
    if raised:
        raise raised[0]


def eventually(holds: Callable[[], bool], *, seconds: float = 60) -> None:
    """Waits until something is so; fails if it is not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.02)


def publish_samples(numbers: Iterable[int]) -> None:
    """Declare the topology and publish these sample events, each confirmed."""
    publish_bodies(*(json.dumps(sample_event(number)).encode() for number in numbers))


def publish_bodies(*bodies: bytes, content_type: str = JSON) -> None:
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        amqp.declare(connection, topology())
        amqp.publish(
            connection, [Publication("", settings.KANIKOJOBS_QUEUE, body, content_type, {}) for body in bodies]
        )


def publish_unconfirmed(bodies: Iterable[bytes]) -> None:
    """For thousands, of which each confirm would cost a millisecond. The queue is there."""
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        channel = connection.channel()
        for body in bodies:
            channel.basic_publish("", settings.KANIKOJOBS_QUEUE, body)
        # RabbitMQ answers behind all of them: of a connection that is closed at once the last ones may be lost.
        channel.queue_declare(settings.KANIKOJOBS_QUEUE, passive=True)
