"""Which queues, exchange and bindings there must be, in RabbitMQ's own words, made from the settings.

Pure. `amqp.declare` makes it so; the deploy files say the same for the Messaging Topology Operator.
"""

import re
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


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which what is there differs from what was declared. `current` is None where it is not set at all."""

    argument: str
    wanted: str
    current: str | int | None

    @property
    def sentence(self) -> str:
        current = "not set" if self.current is None else self.current
        return f"{self.argument} is {current}, but the settings ask for {self.wanted}"


# As RabbitMQ writes it (3.8 to 4.x), for example:
# PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'kaniko-jobs' in vhost '/': received the value '10000'
# of type 'long' but current is the value '5' of type 'long'
_DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' .*received (?P<wanted>.*?) but current is (?P<current>.*?)[\s.]*$",
    re.DOTALL,
)
_VALUE = re.compile(r"the value '(?P<text>.*)' of type '[^']*'|'(?P<bare>.*)'", re.DOTALL)
_TEXTS = frozenset({"x-queue-type", "x-overflow", "x-dead-letter-exchange", "x-dead-letter-routing-key"})
_UNKNOWN = re.compile(r"invalid arg '(?P<argument>[^']+)' for queue ")


def difference(reply: str) -> Difference | None:
    """What RabbitMQ says is different, in its reply to a declaration; None if it says something else."""
    found = _DIFFERENCE.search(reply)
    if not found:
        return None
    argument = found["argument"]
    if argument == "x-queue-type" and "none" in found["current"]:
        return Difference(argument=argument, wanted=str(_value(found["wanted"], of=argument)), current="classic")
    wanted, current = (_value(found[side], of=argument) for side in ("wanted", "current"))
    return Difference(argument=argument, wanted="nothing" if wanted is None else str(wanted), current=current)


def unknown_argument(reply: str) -> str | None:
    """The argument that RabbitMQ refuses for the queue's type, in its reply to a declaration."""
    found = _UNKNOWN.search(reply)
    return found["argument"] if found else None


def _value(text: str, *, of: str) -> str | int | None:
    found = _VALUE.search(text)
    if not found:
        return None
    value = found["text"] if found["bare"] is None else found["bare"]
    return int(value) if of not in _TEXTS and re.fullmatch(r"-?\d+", value) else value
