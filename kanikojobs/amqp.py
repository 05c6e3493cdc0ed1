"""RabbitMQ, and the only importer of pika: connect, declare the topology, take deliveries, publish with confirms."""

import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel, BlockingConnection

from kanikojobs.topology import Queue, Topology

# What a lost or refused connection raises, for those who reconnect.
CONNECTION_ERRORS = (pika.exceptions.AMQPError, OSError)


class TopologyConflict(Exception):
    """A queue or exchange is there with other arguments, which RabbitMQ cannot change in place."""

    def __init__(self, differences: list[str]) -> None:
        self.differences = differences
        super().__init__("\n".join(differences))


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message handed over by RabbitMQ, to be settled by its `tag`."""

    tag: int
    body: bytes
    content_type: str | None
    headers: Mapping[str, object]
    properties: Mapping[str, object]


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


def declare(connection: BlockingConnection, topology: Topology) -> None:
    """Make the topology be there. Raises `TopologyConflict` that names every argument that differs."""
    conflicts: list[str] = []
    try:
        _on_a_channel(
            connection,
            partial(
                BlockingChannel.exchange_declare,
                exchange=topology.dead_letter_exchange,
                exchange_type="direct",
                durable=True,
            ),
        )
    except pika.exceptions.ChannelClosedByBroker as error:
        if error.reply_code != 406:
            raise
        conflicts.append(f"exchange {topology.dead_letter_exchange}: {error.reply_text}")
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


def _on_a_channel(connection: BlockingConnection, call: Callable[[BlockingChannel], Any]) -> Any:
    """A channel of its own for each call: RabbitMQ closes the channel of one that it refuses."""
    channel = connection.channel()
    try:
        return call(channel)
    finally:
        if channel.is_open:
            channel.close()


# RabbitMQ names one argument at a time, for example:
# inequivalent arg 'x-max-length' for queue 'kaniko-jobs' in vhost '/': received '10000' but current is '5'
_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' .*received (?P<wanted>.*?) but current is (?P<current>.*?)[\s.]*$"
)


def _declare_queue(connection: BlockingConnection, queue: Queue) -> list[str]:
    """Declare a queue; return how the one that is there differs.

    Only the first difference is in RabbitMQ's answer. So what it says is there is taken over and asked again, until
    nothing differs: the last declaration then changes nothing, because it repeats what is there.
    """
    arguments = dict(queue.arguments)
    differences: list[str] = []
    durable = True
    while len(differences) <= len(queue.arguments) + 1:
        try:
            _on_a_channel(
                connection,
                partial(BlockingChannel.queue_declare, queue=queue.name, durable=durable, arguments=arguments),
            )
            break
        except pika.exceptions.ChannelClosedByBroker as error:
            if error.reply_code not in (405, 406):
                raise
            found = _DIFFERENCE.search(error.reply_text)
            if not found:
                differences.append(f"queue {queue.name}: {error.reply_text}")
                break
            argument, current = found["argument"], found["current"]
            differences.append(
                f"queue {queue.name}: {argument} is {current}, but the settings ask for {found['wanted']}"
            )
            if argument == "durable":
                durable = "true" in current
            elif "none" in current:
                arguments.pop(argument, None)
            elif value := re.search(r"the value '([^']*)' of type '([^']*)'|'([^']*)'", current):
                text = value[1] or value[3]
                arguments[argument] = int(text) if re.fullmatch(r"-?\d+", text) else text
    return differences


class Consumer:
    """One queue's deliveries on a channel of its own, so that acknowledging up to one touches no other queue's."""

    def __init__(self, connection: BlockingConnection, *, queue: str, prefetch: int) -> None:
        self.queue = queue
        self.waiting: deque[Delivery] = deque()
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=prefetch)
        self._tag = self._channel.basic_consume(queue, self._on_message)
        # RabbitMQ cancels a consumer whose queue is deleted, or whose quorum queue loses its leader for good.
        self.cancelled = False
        self._channel.add_on_cancel_callback(self._on_cancel)

    def _on_cancel(self, _frame: Any) -> None:
        self.cancelled = True

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        others = {
            name: value
            for name, value in vars(properties).items()
            if value is not None and name not in ("headers", "content_type")
        }
        others |= {"exchange": method.exchange, "routing_key": method.routing_key}
        self.waiting.append(
            Delivery(method.delivery_tag, body, properties.content_type, properties.headers or {}, others)
        )

    def take(self, most: int) -> list[Delivery]:
        """Take up to so many of the deliveries that have arrived."""
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def acknowledge(self, *, up_to: int) -> None:
        """Acknowledge every delivery of this queue up to this tag."""
        self._channel.basic_ack(up_to, multiple=True)

    def pause(self) -> None:
        """Take no more, and give back what has arrived but was not taken."""
        self._channel.basic_cancel(self._tag)
        while self.waiting:
            self._channel.basic_nack(self.waiting.popleft().tag, requeue=True)

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
        channel.basic_publish(
            publication.exchange,
            publication.routing_key,
            publication.body,
            pika.BasicProperties(
                content_type=publication.content_type, headers=dict(publication.headers), delivery_mode=2
            ),
            mandatory=True,
        )
        count += 1
    channel.close()
    return count
