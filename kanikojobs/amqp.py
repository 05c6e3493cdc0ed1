"""RabbitMQ, and the only importer of pika: connect, declare the topology, take deliveries, publish with confirms."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pika
import pika.data
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from kanikojobs.field_tables import decode_table
from kanikojobs.messages import Message
from kanikojobs.topology import Queue, Topology, difference, unknown_argument

# What a lost or refused connection raises, for those who reconnect.
CONNECTION_ERRORS = (pika.exceptions.AMQPError, OSError)

# pika offers no choice of decoder, and its own falls over headers that any publisher can send.
pika.data.decode_table = decode_table


class TopologyConflict(Exception):
    """A queue or exchange is there with other arguments, which RabbitMQ cannot change in place."""

    def __init__(self, differences: list[str]) -> None:
        self.differences = differences
        super().__init__("\n".join(differences))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message handed over by RabbitMQ, to be settled by its `tag`."""

    tag: int
    message: Message


def connect(url: str, *, name: str) -> BlockingConnection:
    """A connection that RabbitMQ shows under `name`. Raises one of `CONNECTION_ERRORS`.

    A heartbeat that the URL does not set is 30 seconds: a half-open connection is noticed within a minute.
    """
    parameters = pika.URLParameters(url)
    if "heartbeat=" not in url:
        parameters.heartbeat = 30
    if "socket_timeout=" not in url:
        parameters.socket_timeout = 10
    # RabbitMQ blocks publishers while an alarm is on. Waiting for ever would look like health.
    parameters.blocked_connection_timeout = 60
    parameters.client_properties = {"connection_name": name}
    return BlockingConnection(parameters)


def is_url(text: str) -> bool:
    """Whether this is the URL of a broker, as far as that can be seen."""
    try:
        parameters = pika.URLParameters(text)
    except (ValueError, TypeError, IndexError):
        return False
    return text.startswith(("amqp://", "amqps://")) and bool(parameters.host)


def brief(error: Exception) -> str:
    """An error in one line that fits into a log. pika's own have no text but a repr."""
    return (str(error) or repr(error)).splitlines()[0][:300]


def refusal(error: Exception) -> str | None:
    """What to do about an error by which RabbitMQ says no, which trying again seldom changes; None for an outage."""
    match error:
        case pika.exceptions.ProbableAuthenticationError() | pika.exceptions.AuthenticationError():
            return "RabbitMQ refuses the user name or the password. Correct RABBITMQ_URL."
        case pika.exceptions.ProbableAccessDeniedError():
            return "RabbitMQ refuses the virtual host. Correct the path of RABBITMQ_URL, or give the user access to it."
        case pika.exceptions.IncompatibleProtocolError():
            return "What answers at RABBITMQ_URL does not speak AMQP 0-9-1. Correct its port; AMQP's is 5672."
        case pika.exceptions.ChannelClosedByBroker(reply_code=403):
            return f"{error.reply_text}. Give the user configure, write and read permissions for these names."
        case pika.exceptions.ChannelClosedByBroker(reply_code=404):
            return f"{error.reply_text}. Run manage.py declare_topology, or start without --no-declare."
        case pika.exceptions.ChannelClosedByBroker(reply_code=405):
            return f"{error.reply_text} Stop whoever holds the queue."
    return None


def declare(connection: BlockingConnection, topology: Topology) -> None:
    """Make the topology be there. Raises `TopologyConflict` that names every argument that differs."""
    conflicts = _declare_exchange(connection, topology.dead_letter_exchange)
    for queue in topology.queues:
        conflicts.extend(_declare_queue(connection, queue))
    if conflicts:
        raise TopologyConflict(conflicts)
    for queue in topology.queues:
        for exchange, routing_key in queue.bindings:
            _on_a_channel(
                connection,
                partial(BlockingChannel.queue_bind, queue=queue.name, exchange=exchange, routing_key=routing_key),
            )


def _declare_exchange(connection: BlockingConnection, name: str) -> list[str]:
    declaration = partial(BlockingChannel.exchange_declare, exchange=name, exchange_type="direct", durable=True)
    try:
        _on_a_channel(connection, declaration)
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 406:
            raise
        found = difference(error.reply_text)
        return [f"exchange {name}: {found.sentence if found else error.reply_text}"]
    return []


def _on_a_channel(connection: BlockingConnection, call: Callable[[BlockingChannel], Any]) -> Any:
    """A channel of its own for each call: RabbitMQ closes the channel of one that it refuses."""
    channel = connection.channel()
    try:
        return call(channel)
    finally:
        if channel.is_open:
            channel.close()


def _declare_queue(connection: BlockingConnection, queue: Queue) -> list[str]:
    """Declare a queue; return how the one that is there differs.

    RabbitMQ names one difference at a time. So what it says is there is taken over and asked again, until nothing
    differs: the last declaration then changes nothing, because it repeats what is there.
    """
    arguments: dict[str, str | int | bool] = dict(queue.arguments)
    properties = {"durable": True, "auto_delete": False}
    differences: list[str] = []
    for _ in range(len(queue.arguments) + 8):
        declaration = partial(BlockingChannel.queue_declare, queue=queue.name, arguments=arguments, **properties)
        try:
            _on_a_channel(connection, declaration)
            return differences
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code not in (405, 406):
                raise
            found = difference(error.reply_text)
            # What the queue's own type knows nothing of says nothing new: the type differs already.
            if (unknown := unknown_argument(error.reply_text)) in arguments and differences:
                del arguments[unknown]
                continue
            if found is None:
                return [*differences, f"queue {queue.name}: {error.reply_text}"]
            differences.append(f"queue {queue.name}: {found.sentence}")
            if found.argument in properties:
                properties[found.argument] = found.current == "true"
            elif found.current is None:
                del arguments[found.argument]
            else:
                arguments[found.argument] = found.current
    return differences


class Consumer:
    """One queue's deliveries on a channel of its own, so that acknowledging up to one touches no other queue's."""

    def __init__(self, connection: BlockingConnection, *, queue: str, prefetch: int) -> None:
        self.queue = queue
        self.waiting: deque[Delivery] = deque()
        self.waiting_bytes = 0
        self._channel = connection.channel()
        # RabbitMQ cancels a consumer whose queue is deleted, or whose quorum queue loses its leader for good.
        self.cancelled = False
        self._channel.add_on_cancel_callback(self._on_cancel)
        self._channel.basic_qos(prefetch_count=prefetch)
        self._channel.basic_consume(queue, self._on_message)

    def _on_cancel(self, _frame: Any) -> None:
        self.cancelled = True

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        others = {name: value for name, value in vars(properties).items() if value is not None}
        headers = others.pop("headers", None) or {}
        content_type = others.pop("content_type", None)
        if isinstance(content_type, bytes):  # pika's way with text that is not UTF-8
            content_type = content_type.decode(errors="backslashreplace")
        others["exchange"] = method.exchange
        others["routing_key"] = method.routing_key
        self.waiting.append(Delivery(method.delivery_tag, Message(body, content_type, headers, others)))
        self.waiting_bytes += len(body)

    def take(self, *, most: int, most_bytes: int) -> list[Delivery]:
        """Take up to so many of the deliveries that have arrived, of so many bytes in all; the first in any case."""
        taken: list[Delivery] = []
        size = 0
        while self.waiting and len(taken) < most:
            size += len(self.waiting[0].message.body)
            if taken and size > most_bytes:
                break
            taken.append(self.waiting.popleft())
            self.waiting_bytes -= len(taken[-1].message.body)
        return taken

    def acknowledge(self, *, up_to: int) -> None:
        """Acknowledge every delivery of this queue up to this tag."""
        self._channel.basic_ack(up_to, multiple=True)

    def give_back(self) -> None:
        """Take no more. RabbitMQ hands over again, to whoever asks, all that was not acknowledged."""
        self.waiting.clear()
        self.waiting_bytes = 0
        self._channel.close()

    def depth(self) -> int:
        """How many messages wait in the queue, as RabbitMQ says now."""
        return int(self._channel.queue_declare(self.queue, passive=True).method.message_count)


def depths(url: str, *, queues: Iterable[str]) -> dict[str, int]:
    """How many messages wait in each queue that is there. Raises one of `CONNECTION_ERRORS`."""
    connection = connect(url, name="kanikojobs depths")
    found: dict[str, int] = {}
    try:
        for queue in queues:
            try:
                answer = _on_a_channel(connection, partial(BlockingChannel.queue_declare, queue=queue, passive=True))
                found[queue] = int(answer.method.message_count)
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 404:
                    raise
    finally:
        connection.close()
    return found


UNROUTABLE = pika.exceptions.UnroutableError
"""Raised by `publish`: RabbitMQ has the message for nobody."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish; persistent, and confirmed by RabbitMQ before `publish` returns."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str
    headers: Mapping[str, Any]


def publish(connection: BlockingConnection, publications: Iterable[Publication]) -> int:
    """Publish with confirms; return how many were confirmed.

    Raises `pika.exceptions.UnroutableError` for a message that reaches no queue, and `NackError` for one that a full
    queue refuses: neither is lost silently.
    """
    channel = connection.channel()
    channel.confirm_delivery()
    count = 0
    for publication in publications:
        _publish(channel, publication)
        count += 1
    channel.close()
    return count


def publish_each(connection: BlockingConnection, publications: Iterable[Publication]) -> Iterator[bool]:
    """Publish with confirms, one after the other; give for each whether it has reached a queue.

    What was given before an error is confirmed. Raises one of `CONNECTION_ERRORS`.
    """
    channel = connection.channel()
    channel.confirm_delivery()
    for publication in publications:
        try:
            _publish(channel, publication)
        except UNROUTABLE:
            yield False
        else:
            yield True
    channel.close()


def _publish(channel: BlockingChannel, publication: Publication) -> None:
    channel.basic_publish(
        publication.exchange,
        publication.routing_key,
        publication.body,
        pika.BasicProperties(content_type=publication.content_type, headers=dict(publication.headers), delivery_mode=2),
        mandatory=True,
    )
