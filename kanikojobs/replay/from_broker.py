"""Straight from RabbitMQ's dead-letter queue, for those who have switched its draining off.

The messages become dead letters, committed before they are acknowledged, as everywhere; then they are replayed by a
run like any other, with author, reason and an outcome for each. What is still invalid stays an open dead letter.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from kanikojobs import amqp, dead_letters
from kanikojobs.replay.selection import MOST_IDS

# A run of these names each; the rest is for the next one.
MOST_AT_ONCE = MOST_IDS
MOST_BYTES = 64 * 1024 * 1024
QUIET = 0.5  # seconds without a delivery, after which RabbitMQ is asked whether that was all


@dataclass(frozen=True, slots=True)
class Taken:
    """How many messages were taken, and the ids of the dead letters that they are: equal messages are one."""

    messages: int
    letters: tuple[int, ...]


def depth(url: str, *, queue: str) -> int:
    """How many messages wait. Raises one of `amqp.CONNECTION_ERRORS`."""
    return amqp.depths(url, queues=[queue]).get(queue, 0)


def take(
    url: str,
    *,
    queue: str,
    batch: int,
    limit: int = MOST_AT_ONCE,
    on_progress: Callable[[int], None] = lambda messages: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Taken:
    """Take up to `limit` messages until the queue is empty. What is held when it stops goes back.

    Raises one of `amqp.CONNECTION_ERRORS`.
    """
    messages = 0
    letters: dict[int, None] = {}
    connection = amqp.connect(url, name="kanikojobs replay_dlq")
    try:
        consumer = amqp.Consumer(connection, queue=queue, prefetch=batch)
        quiet_since = time.monotonic()
        while not stopped() and not consumer.cancelled and messages < limit:
            connection.process_data_events(time_limit=0.1)
            if deliveries := consumer.take(most=min(batch, limit - messages), most_bytes=MOST_BYTES):
                recorded = dead_letters.record_from_broker([delivery.message for delivery in deliveries])
                consumer.acknowledge(up_to=deliveries[-1].tag)
                messages += len(deliveries)
                letters |= dict.fromkeys(recorded.letters)
                on_progress(messages)
                quiet_since = time.monotonic()
            elif not consumer.waiting and time.monotonic() - quiet_since > QUIET:
                if not consumer.depth():
                    break
                quiet_since = time.monotonic()
        connection.process_data_events(time_limit=0)
    finally:
        if connection.is_open:
            connection.close()
    return Taken(messages, tuple(letters))
