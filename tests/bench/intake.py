"""From RabbitMQ into Postgres: how fast a burst is drained, how soon a lone message is committed, and the memory.

The baselines are in `drains.py`. All of them fill the same tables, with the same constraints and indexes, from the
same queue of the same kind; only the cap on its length is lifted, so that a burst larger than 10,000 fits in.
"""

import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache, partial

import pika
import psycopg

from deploy.local.stack import CHECKOUT
from tests.bench.harness import Bench, Case, Contender, Sample
from tests.sample_events import sample_event

QUEUE = "bench-intake"
ENVIRONMENT = {
    "KANIKOJOBS_QUEUE": QUEUE,
    "KANIKOJOBS_DLQ": f"{QUEUE}.dlq",
    "KANIKOJOBS_DLX": f"{QUEUE}.dlx",
    "KANIKOJOBS_MAX_LENGTH": "1000000",
}
BURST = 50_000
# The slow loop and the empty drain reach their rate sooner.
SHORT_BURST = 5_000
LONE_MESSAGES = 300
LARGE_MESSAGES, LARGE_BYTES = 20, 10_000_000

UNITS = {"rate": "events/s", "cpu": "µs/event", "peak memory": "MB", "memory growth": "MB"}


def cases(bench: Bench) -> list[Case]:
    bench.migrate()
    declare(bench)
    drain = partial(drained, bench)
    return [
        Case(
            name="intake: a burst",
            units=UNITS,
            ours=Contender("consume_queue", partial(drain, "consume_queue", events=bench.amount(BURST))),
            baselines=[
                Contender("unchecked batches", partial(drain, "unchecked", events=bench.amount(BURST))),
                Contender("a commit per message", partial(drain, "one_by_one", events=bench.amount(SHORT_BURST))),
                Contender("drained, not stored", partial(drain, "nothing", events=bench.amount(BURST))),
            ],
        ),
        Case(
            name="intake: a lone message",
            units={"median": "ms", "99th percentile": "ms"},
            ours=Contender("consume_queue", partial(latency, bench, "consume_queue")),
            baselines=[Contender("a commit per message", partial(latency, bench, "one_by_one"))],
        ),
        Case(
            name="intake: 10 MB bodies",
            units={"peak memory": "MB"},
            ours=Contender("consume_queue", partial(large_bodies, bench)),
        ),
    ]


def declare(bench: Bench) -> None:
    """The bench's own queues, by our own declaration."""
    subprocess.run(
        [sys.executable, "manage.py", "declare_topology"],
        cwd=CHECKOUT,
        env=bench.environment() | ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )


def drained(bench: Bench, program: str, *, events: int) -> Sample:
    """Fill the queue, empty the tables, and let a program drain it."""
    publish(bench, sample_bodies(events))
    bench.empty_tables()
    found = bench.run_program("tests.bench.drains", program, QUEUE, str(events), env=ENVIRONMENT)
    sample = {
        "rate": events / found["seconds"],
        "cpu": found["cpu_seconds"] / events * 1e6,
        "peak memory": found["peak_mb"],
    }
    if "growth_mb" in found:
        sample["memory growth"] = found["growth_mb"]
    if program != "nothing":
        assert_stored(bench, events=events)
    return sample


@cache
def sample_bodies(count: int) -> tuple[bytes, ...]:
    return tuple(json.dumps(sample_event(n, seed="bench")).encode() for n in range(count))


def publish(bench: Bench, bodies: Sequence[bytes]) -> None:
    """Publish to the bench's queue, which is empty before, and wait until all is there and RabbitMQ is at rest."""
    with pika.BlockingConnection(pika.URLParameters(bench.stack.rabbitmq.url)) as connection:
        channel = connection.channel()
        channel.queue_purge(QUEUE)
        properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
        for body in bodies:
            channel.basic_publish("", QUEUE, body, properties)
        while channel.queue_declare(QUEUE, passive=True).method.message_count < len(bodies):
            connection.sleep(0.05)
        connection.sleep(1)


def assert_stored(bench: Bench, *, events: int) -> None:
    """Whoever is fast by storing less is found out."""
    with psycopg.connect(bench.stack.postgres.url) as connection:
        for table in ("kanikojobs_jobstartevent", "kanikojobs_kanikojob"):
            row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608
            if row != (events,):
                raise RuntimeError(f"{table} has {row} rows, not {events}")


def latency(bench: Bench, program: str) -> Sample:
    """Publish lone messages into an idle system, and wait for the notification that comes with each commit."""
    count = bench.amount(LONE_MESSAGES)
    publish(bench, [])
    bench.empty_tables()
    consumer = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.drains", program, QUEUE, str(count + 1)],
        cwd=CHECKOUT,
        env=bench.environment() | ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        seconds = sorted(publish_and_wait(bench, [*sample_bodies(count + 1)])[1:])
    finally:
        consumer.kill()
        consumer.wait()
    return {
        "median": statistics.median(seconds) * 1000,
        "99th percentile": seconds[int(len(seconds) * 0.99)] * 1000,
    }


def publish_and_wait(bench: Bench, bodies: Sequence[bytes]) -> list[float]:
    """Seconds from each publication to the commit of its event, as somebody who listens in Postgres sees it."""
    found: list[float] = []
    properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
    with (
        pika.BlockingConnection(pika.URLParameters(bench.stack.rabbitmq.url)) as connection,
        psycopg.connect(bench.stack.postgres.url, autocommit=True) as listener,
    ):
        listener.execute("LISTEN kanikojobs_queued")
        channel = connection.channel()
        for body in bodies:
            started = time.perf_counter()
            channel.basic_publish("", QUEUE, body, properties)
            heard = list(listener.notifies(timeout=60, stop_after=1))
            if not heard:
                raise RuntimeError("a message was not committed within a minute")
            found.append(time.perf_counter() - started)
            connection.sleep(random.uniform(0.005, 0.05))
    return found


def large_bodies(bench: Bench) -> Sample:
    """Messages that are far too large to be events: all become dead letters, and the memory stays flat."""
    count = bench.amount(LARGE_MESSAGES)
    publish(bench, [b"%06d" % n + b"x" * LARGE_BYTES for n in range(count)])
    bench.empty_tables()
    found = bench.run_program("tests.bench.drains", "consume_queue", QUEUE, str(count), env=ENVIRONMENT)
    return {"peak memory": found["peak_mb"]}
