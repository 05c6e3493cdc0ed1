"""Which queues, exchange and bindings there must be, in RabbitMQ's own words, made from the settings.

Pure. `amqp.declare` makes it so; the deploy files say the same for the Messaging Topology Operator.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from django.conf import settings

# A quorum queue without an explicit limit gets RabbitMQ 4's default of 20, after which the dead-letter queue, which
# has no dead-letter exchange itself, would lose a message. Zero or less is refused by RabbitMQ 3.
NO_DELIVERY_LIMIT = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable quorum queue, and the routing keys by which exchanges feed it."""

    name: str
    arguments: Mapping[str, str | int]
    bindings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Topology:
    """All that `declare_topology` makes: a direct exchange for dead letters, and two queues."""

    dead_letter_exchange: str
    queues: tuple[Queue, ...]


def topology() -> Topology:
    """The topology that the settings ask for.

    Publishers reach the queue through the default exchange by its name, or through the topic exchange
    `KANIKOJOBS_EXCHANGE` by the event's type as the routing key.
    """
    jobs = Queue(
        name=settings.KANIKOJOBS_QUEUE,
        arguments={
            "x-queue-type": "quorum",
            "x-message-ttl": settings.KANIKOJOBS_MESSAGE_TTL_MS,
            "x-max-length": settings.KANIKOJOBS_MAX_LENGTH,
            "x-overflow": settings.KANIKOJOBS_OVERFLOW,
            "x-delivery-limit": settings.KANIKOJOBS_DELIVERY_LIMIT,
            "x-dead-letter-exchange": settings.KANIKOJOBS_DLX,
            # Other queues may share the exchange: the key is the dead-letter queue's own name.
            "x-dead-letter-routing-key": settings.KANIKOJOBS_DLQ,
        },
        bindings=((settings.KANIKOJOBS_EXCHANGE, settings.KANIKOJOBS_EVENT_TYPE),),
    )
    dead_letters = Queue(
        name=settings.KANIKOJOBS_DLQ,
        arguments={"x-queue-type": "quorum", "x-delivery-limit": NO_DELIVERY_LIMIT},
        bindings=((settings.KANIKOJOBS_DLX, settings.KANIKOJOBS_DLQ),),
    )
    return Topology(dead_letter_exchange=settings.KANIKOJOBS_DLX, queues=(jobs, dead_letters))
