"""One queue's lane through the consumer: what arrived, the batch that is gathered, the batch that is written."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from kanikojobs import amqp, dead_letters, intake
from kanikojobs.messages import IntakeResult, Message
from kanikojobs.models import JobStartEvent

# A batch ends at so many bytes, and the socket is left alone while more than this is held: memory stays flat however
# large the messages are (RabbitMQ counts a prefetch in messages only).
MOST_BYTES_PER_BATCH = 4 * 1024 * 1024
MOST_BYTES_HELD = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Work:
    """What is done with a queue's messages: `write` by the writer, the rest by the thread that speaks with RabbitMQ.

    `read` is for messages as they arrive, `pack` for those of one batch, `tell` for what was read of a batch that has
    been committed.
    """

    read: Callable[[Sequence[Message]], Sequence[Any]]
    pack: Callable[[Sequence[Message], Sequence[Any]], Any]
    write: Callable[[Any], IntakeResult]
    tell: Callable[[Sequence[Any], IntakeResult], None] = lambda readings, result: None


def works(*, queue: str, dlq: str, drain_dlq: bool, dead_letters_only: bool = False) -> dict[str, Work]:
    """What is done with each queue's messages: events go to intake, what the broker dead-lettered to dead letters."""
    origin = JobStartEvent.Origin.QUEUE
    found: dict[str, Work] = {}
    if not dead_letters_only:
        found[queue] = Work(
            read=partial(intake.prepare, origin=origin),
            pack=intake.pack,
            write=partial(intake.write, origin=origin),
            tell=partial(intake.tell, origin=origin),
        )
    if drain_dlq:
        found[dlq] = Work(
            read=lambda messages: [],
            pack=lambda messages, _: messages,
            write=dead_letters.record_from_broker,
        )
    return found


@dataclass(slots=True)
class Lane:
    """One queue: the batch that is being gathered, and the one that is being written."""

    consumer: amqp.Consumer
    work: Work
    messages: list[Message] = field(default_factory=list)
    readings: list[Any] = field(default_factory=list)
    bytes: int = 0
    gathered_tag: int = 0
    # The batch that is being gathered, once it is full.
    packed: Any = None
    in_flight: Future[IntakeResult] | None = None
    in_flight_readings: Sequence[Any] = ()
    in_flight_tag: int = 0
    in_flight_bytes: int = 0
    # What was read of a batch that has been committed and not been told of; not its messages, which may be large.
    settled: tuple[Sequence[Any], IntakeResult] | None = None

    def gather(self, *, most: int) -> None:
        """Read what has arrived into the next batch, as long as there is room in it; pack it when there is none."""
        if self.packed is not None:
            return
        deliveries = self.consumer.take(most=most - len(self.messages), most_bytes=MOST_BYTES_PER_BATCH - self.bytes)
        if not deliveries:
            return
        messages = [delivery.message for delivery in deliveries]
        self.readings.extend(self.work.read(messages))
        self.messages.extend(messages)
        self.bytes += sum(len(message.body) for message in messages)
        self.gathered_tag = deliveries[-1].tag
        if len(self.messages) == most or self.bytes >= MOST_BYTES_PER_BATCH:
            self.packed = self.work.pack(self.messages, self.readings)

    def batch(self) -> Any:
        """Hand out the batch that has been gathered, to be written and then acknowledged up to `in_flight_tag`."""
        batch = self.work.pack(self.messages, self.readings) if self.packed is None else self.packed
        self.in_flight_readings, self.in_flight_tag, self.in_flight_bytes = self.readings, self.gathered_tag, self.bytes
        self.messages, self.readings, self.bytes, self.packed = [], [], 0, None
        return batch

    def tell(self) -> None:
        """Tell of the batch that has been committed, if there is one."""
        if self.settled:
            self.work.tell(*self.settled)
            self.settled = None

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies that have arrived and are not committed yet."""
        return self.consumer.waiting_bytes + self.bytes + (self.in_flight_bytes if self.in_flight else 0)

    @property
    def idle(self) -> bool:
        return self.in_flight is None and not self.messages and not self.consumer.waiting
