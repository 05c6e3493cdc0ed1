"""Events sent while everything under the consumer is killed and restarted, and the reckoning at the end.

The test does a small round of it, the bench the whole: what the broker confirmed is in Postgres, each event once, and
the queue is empty.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pika
import pika.exceptions
import psycopg

from deploy.local.processes import Child
from tests.sample_events import EVENT_SOURCE, sample_event


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What was confirmed, what is there, and what is left."""

    confirmed: frozenset[str]
    stored: tuple[str, ...]
    # How often these were seen, and what was counted of them: recorded, and seen again.
    times_seen: int
    counted: Mapping[str, int]
    kaniko_jobs: int
    dead_letters: Mapping[str, int]
    left: int
    kills: int

    def faults(self) -> list[str]:
        """What does not add up, in words; nothing if all does."""
        found = []
        if lost := self.confirmed - set(self.stored):
            found.append(f"{len(lost)} confirmed events are not in Postgres")
        # An event may be there without a confirm: RabbitMQ took it, and went away before it said so.
        if len(self.stored) != len(set(self.stored)):
            found.append(f"{len(self.stored) - len(set(self.stored))} events are there twice")
        if self.kaniko_jobs != len(self.stored):
            found.append(f"{self.kaniko_jobs} Kaniko Jobs for {len(self.stored)} events")
        if self.counted.get("recorded", 0) != len(self.stored):
            found.append(f"{self.counted.get('recorded', 0)} counted as recorded for {len(self.stored)} events")
        if sum(self.counted.values()) != self.times_seen:
            found.append(f"{dict(self.counted)} counted for events that were seen {self.times_seen} times")
        if self.dead_letters:
            found.append(f"dead letters: {dict(self.dead_letters)}")
        if self.left:
            found.append(f"{self.left} messages are left in the queues")
        return found


def publish(url: str, *, queue: str, numbers: Sequence[int], confirmed: set[str], pause: float) -> None:
    """Publish each event until RabbitMQ confirms it, reconnecting as a careful publisher does.

    `pause` is slept after each fifty, in seconds, to spread the events over the time of the faults.
    """
    waiting = list(reversed(numbers))
    while waiting:
        with suppress(pika.exceptions.AMQPError, OSError):
            connection = pika.BlockingConnection(pika.URLParameters(url))
            channel = connection.channel()
            channel.confirm_delivery()
            while waiting:
                event = sample_event(waiting[-1], seed="faults")
                properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
                channel.basic_publish("", queue, json.dumps(event).encode(), properties, mandatory=True)
                confirmed.add(event["id"])
                waiting.pop()
                if len(waiting) % 50 == 0:
                    time.sleep(pause)
            connection.close()
            return
        time.sleep(0.2)


def run(
    *,
    rabbitmq_url: str,
    database_url: str,
    queues: Sequence[str],
    start_consumer: Callable[[], Child],
    faults: Sequence[Callable[[], object]],
    kills: int,
    events: int,
    seconds: float,
) -> Reckoning:
    """Send events for about so many seconds, kill the consumer so many times at random moments, and do the faults."""
    chance = random.Random(events)
    confirmed: set[str] = set()
    publisher = threading.Thread(
        target=publish,
        args=(rabbitmq_url,),
        kwargs={
            "queue": queues[0],
            "numbers": range(events),
            "confirmed": confirmed,
            "pause": seconds / max(1, events // 50),
        },
    )
    consumer = start_consumer()
    publisher.start()
    blows: list[Callable[[], object] | None] = [None] * kills + list(faults)
    chance.shuffle(blows)
    for blow in blows:
        time.sleep(chance.uniform(0.3, 1.7) * seconds / len(blows))
        if blow is None:
            consumer.kill()
            consumer.start()
        else:
            blow()
    publisher.join()
    _wait_until_empty(
        rabbitmq_url, queues=queues, database_url=database_url, wanted=confirmed, alive=lambda: consumer.running
    )
    if not consumer.running:
        raise RuntimeError(f"the consumer ended with {consumer.returncode}\n{consumer.log_tail()}")
    consumer.stop()
    return _reckon(rabbitmq_url, database_url, queues=queues, confirmed=confirmed, kills=kills)


def _wait_until_empty(
    url: str, *, queues: Sequence[str], database_url: str, wanted: set[str], alive: Callable[[], bool]
) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and alive():
        if depth(url, queues=queues) == 0 and wanted <= set(_stored(database_url)):
            return
        time.sleep(0.3)


def depth(url: str, *, queues: Sequence[str]) -> int:
    """Messages that are ready in these queues."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        return sum(channel.queue_declare(queue, passive=True).method.message_count for queue in queues)


def _stored(database_url: str) -> tuple[str, ...]:
    with psycopg.connect(database_url) as connection:
        query = "SELECT event_id FROM kanikojobs_jobstartevent WHERE source = %s"
        return tuple(id for (id,) in connection.execute(query, [EVENT_SOURCE]))


def _reckon(url: str, database_url: str, *, queues: Sequence[str], confirmed: set[str], kills: int) -> Reckoning:
    with psycopg.connect(database_url) as connection:
        (jobs,) = connection.execute("SELECT count(*) FROM kanikojobs_kanikojob").fetchone() or (0,)
        (seen,) = connection.execute("SELECT sum(times_seen)::int FROM kanikojobs_jobstartevent").fetchone() or (0,)
        counted: dict[str, int] = dict(
            connection.execute(
                "SELECT split_part(series, '/', 3), sum(count)::int FROM kanikojobs_tally "
                "WHERE span = 'all' AND starts_with(series, 'intake/queue/') GROUP BY series"
            ).fetchall()
        )
        letters: dict[str, int] = dict(
            connection.execute("SELECT cause, count(*) FROM kanikojobs_deadletter GROUP BY cause").fetchall()
        )
    # With the consumer gone, whatever it held and had not acknowledged is ready again.
    return Reckoning(
        confirmed=frozenset(confirmed),
        stored=_stored(database_url),
        times_seen=seen or 0,
        counted=counted,
        kaniko_jobs=jobs,
        dead_letters=letters,
        left=depth(url, queues=queues),
        kills=kills,
    )
