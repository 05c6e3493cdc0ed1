"""What comes out of a real RabbitMQ for what strange publishers put in, and what is said when it refuses."""

import struct
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from django.conf import settings

from kanikojobs import amqp, lanes
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent
from kanikojobs.topology import topology
from tests.consuming import consuming, publish_samples
from tests.factories import a_message

pytestmark = pytest.mark.usefixtures("queues")

CONTENT_TYPE_FLAG, HEADERS_FLAG = 1 << 15, 1 << 13


class RawProperties(pika.BasicProperties):
    """Properties whose content type and headers are written byte for byte, past pika's own encoder."""

    def __init__(self, *, content_type: bytes, fields: bytes) -> None:
        super().__init__()
        self.raw = (content_type, fields)

    def encode(self) -> list[bytes]:
        content_type, fields = self.raw
        flags = struct.pack(">H", CONTENT_TYPE_FLAG | HEADERS_FLAG)
        return [flags, bytes([len(content_type)]), content_type, struct.pack(">I", len(fields)), fields]


def field(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + value


def deep(levels: int) -> bytes:
    value = b"t\x01"
    for _ in range(levels):
        inner = field(b"x", value)
        value = b"F" + struct.pack(">I", len(inner)) + inner
    return value


@pytest.fixture
def link(queues: None) -> Iterator[amqp.BlockingConnection]:
    with amqp.connect(settings.RABBITMQ_URL, name="tests") as connection:
        amqp.declare(connection, topology())
        yield connection


def publish_raw(link: amqp.BlockingConnection, *, fields: bytes, content_type: bytes = b"application/json") -> None:
    channel = link.channel()
    channel.confirm_delivery()
    properties = RawProperties(content_type=content_type, fields=fields)
    channel.basic_publish("", settings.KANIKOJOBS_QUEUE, a_message().body, properties, mandatory=True)


def taken(link: amqp.BlockingConnection) -> list[Message]:
    """What a consumer is handed within a moment."""
    consumer = amqp.Consumer(link, queue=settings.KANIKOJOBS_QUEUE, prefetch=10)
    while not consumer.waiting:
        link.process_data_events(time_limit=1)
    return [delivery.message for delivery in consumer.take(most=10, most_bytes=10**9)]


# Each of these makes pika's own decoder raise, or give something other than what was sent.
HEADERS = [
    pytest.param(field(b"x", b"T" + struct.pack(">Q", 2**62)), {"x": 2**62}, id="a time beyond the calendar"),
    pytest.param(field(b"x", b"l" + struct.pack(">q", 5)), {"x": 5}, id="64 bits"),
    pytest.param(field(b"x", b"d" + struct.pack(">d", 1.5)), {"x": 1.5}, id="a fraction"),
    pytest.param(field(b"\xff", b"t\x01"), {b"\xff": True}, id="a name that is not UTF-8"),
    pytest.param(field(b"x", b"S\x00\x00\x00\x01\xff"), {"x": b"\xff"}, id="a text that is not UTF-8"),
]


@pytest.mark.parametrize(("fields", "headers"), HEADERS)
def test_strange_headers_come_through(link: amqp.BlockingConnection, fields: bytes, headers: dict[str, Any]) -> None:
    publish_raw(link, fields=fields)

    (message,) = taken(link)

    assert message.headers == headers


def test_a_content_type_that_is_not_utf_8_is_text(link: amqp.BlockingConnection) -> None:
    publish_raw(link, fields=b"", content_type=b"application/\xff")

    (message,) = taken(link)

    assert message.content_type == "application/\\xff"


# NaN and infinity are not among them: RabbitMQ itself cannot hold these, and closes the publisher's connection.
POISON = [
    pytest.param(b"T" + struct.pack(">Q", 2**64 - 1), id="a time beyond the calendar"),
    pytest.param(deep(3000), id="nested deeper than the stack"),
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", POISON)
def test_a_header_that_pika_cannot_decode_does_not_stop_the_consumer(
    link: amqp.BlockingConnection, value: bytes
) -> None:
    publish_raw(link, fields=field(b"x-poison", value))
    publish_samples(range(1_000_000, 1_000_003))

    counts = consuming(once=True).run()

    assert (counts.recorded, counts.reconnects) == (4, 0)
    assert JobStartEvent.objects.count() == 4


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("value", POISON)
def test_an_attribute_that_pika_cannot_decode_is_a_dead_letter(link: amqp.BlockingConnection, value: bytes) -> None:
    text = b"S\x00\x00\x00\x031.0"
    publish_raw(link, fields=field(b"ce-specversion", text) + field(b"ce-id", value))

    counts = consuming(once=True).run()

    assert (counts.dead, counts.reconnects) == (1, 0)
    assert "ce-id" in DeadLetter.objects.get().reason


def test_an_acknowledged_delivery_is_gone_and_the_others_come_again(link: amqp.BlockingConnection) -> None:
    publish_samples(range(3))
    consumer = amqp.Consumer(link, queue=settings.KANIKOJOBS_QUEUE, prefetch=10)
    while len(consumer.waiting) < 3:
        link.process_data_events(time_limit=1)
    first, *_ = consumer.take(most=10, most_bytes=10**9)

    consumer.acknowledge(up_to=first.tag)
    consumer.give_back()

    assert amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_QUEUE])[settings.KANIKOJOBS_QUEUE] == 2


def test_deliveries_are_taken_up_to_their_bytes_and_the_first_in_any_case(link: amqp.BlockingConnection) -> None:
    publish_samples(range(4))
    consumer = amqp.Consumer(link, queue=settings.KANIKOJOBS_QUEUE, prefetch=10)
    while len(consumer.waiting) < 4:
        link.process_data_events(time_limit=1)
    sizes = [len(delivery.message.body) for delivery in consumer.waiting]

    tiny, two = consumer.take(most=10, most_bytes=1), consumer.take(most=10, most_bytes=sizes[1] + sizes[2])

    assert (len(tiny), len(two)) == (1, 2)
    assert consumer.waiting_bytes == sizes[3]


def test_a_deleted_queue_is_told_to_the_consumer(link: amqp.BlockingConnection) -> None:
    consumer = amqp.Consumer(link, queue=settings.KANIKOJOBS_QUEUE, prefetch=10)

    link.channel().queue_delete(settings.KANIKOJOBS_QUEUE)
    link.process_data_events(time_limit=1)

    assert consumer.cancelled


def test_a_message_for_no_queue_is_not_lost_silently(link: amqp.BlockingConnection) -> None:
    with pytest.raises(pika.exceptions.UnroutableError):
        amqp.publish(link, [amqp.Publication("", "no-such-queue", b"{}", "application/json", {})])


def test_depths_leave_out_a_queue_that_is_not_there(link: amqp.BlockingConnection) -> None:
    queues = [settings.KANIKOJOBS_QUEUE, "no-such-queue"]

    assert amqp.depths(settings.RABBITMQ_URL, queues=queues) == {settings.KANIKOJOBS_QUEUE: 0}


URLS = [
    ("amqp://guest:guest@localhost:5672/", True),
    ("amqps://user:p%40ss@host/vhost?heartbeat=5", True),
    ("", False),
    ("localhost", False),
    ("http://localhost/", False),
    ("amqp://host:port/", False),
    ("amqp://host/?heartbeat=soon", False),
]


@pytest.mark.parametrize(("url", "is_one"), URLS)
def test_a_url_of_a_broker_is_told_from_others(url: str, is_one: bool) -> None:
    assert amqp.is_url(url) is is_one


def test_an_outage_is_no_refusal() -> None:
    assert amqp.refusal(pika.exceptions.StreamLostError("gone")) is None
    assert amqp.refusal(ConnectionRefusedError()) is None


def test_the_dead_letter_queue_is_left_alone_when_it_is_not_to_be_drained() -> None:
    assert list(lanes.works(queue="jobs", dlq="jobs.dlq", drain_dlq=False)) == ["jobs"]
    assert list(lanes.works(queue="jobs", dlq="jobs.dlq", drain_dlq=True)) == ["jobs", "jobs.dlq"]
