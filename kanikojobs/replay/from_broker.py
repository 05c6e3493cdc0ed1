"""Straight from RabbitMQ's dead-letter queue back through intake, for those who have switched its draining off.

Committed before it is acknowledged, as everywhere. What is still invalid becomes a dead letter in Postgres. There is
no run on record for it, because the messages are no rows before; the events say `replay` as their origin.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kanikojobs import amqp, intake
from kanikojobs.messages import IntakeResult
from kanikojobs.models import JobStartEvent

MOST_BYTES = 64 * 1024 * 1024
QUIET = 0.5  # seconds without a delivery, after which RabbitMQ is asked whether that was all


@dataclass(slots=True)
class Taken:
    """What has been taken from the queue so far."""

    messages: int = 0
    recorded: int = 0
    duplicates: int = 0
    dead: int = 0
    not_ours: int = 0

    def add(self, result: IntakeResult) -> None:
        self.messages += len(result.outcomes)
        self.recorded += result.recorded
        self.duplicates += result.duplicates
        self.dead += result.dead
        self.not_ours += result.not_ours


def depth(url: str, *, queue: str) -> int:
    """How many messages wait. Raises one of `amqp.CONNECTION_ERRORS`."""
    return amqp.depths(url, queues=[queue]).get(queue, 0)


def replay(
    url: str,
    *,
    queue: str,
    batch: int,
    rate: float | None = None,
    limit: int | None = None,
    on_progress: Callable[[Taken], None] = lambda taken: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Taken:
    """Take up to `limit` messages at `rate` per second until the queue is empty. What is held when it stops goes back.

    Raises one of `amqp.CONNECTION_ERRORS`, and what `intake.record` raises.
    """
    taken = Taken()
    connection = amqp.connect(url, name="kanikojobs replay_dlq")
    try:
        consumer = amqp.Consumer(connection, queue=queue, prefetch=batch)
        started = quiet_since = time.monotonic()
        while not stopped() and not consumer.cancelled and (limit is None or taken.messages < limit):
            connection.process_data_events(time_limit=0.1)
            most = batch if limit is None else min(batch, limit - taken.messages)
            if rate is not None:
                most = min(most, int((time.monotonic() - started) * rate) + 1 - taken.messages)
            if most > 0 and (deliveries := consumer.take(most=most, most_bytes=MOST_BYTES)):
                messages = [delivery.message for delivery in deliveries]
                taken.add(intake.record(messages, origin=JobStartEvent.Origin.REPLAY))
                consumer.acknowledge(up_to=deliveries[-1].tag)
                on_progress(taken)
                quiet_since = time.monotonic()
            elif not consumer.waiting and time.monotonic() - quiet_since > QUIET:
                if not consumer.depth():
                    break
                quiet_since = time.monotonic()
        connection.process_data_events(time_limit=0)
    finally:
        if connection.is_open:
            connection.close()
    return taken
