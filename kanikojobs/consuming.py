"""The consumer: deliveries from RabbitMQ go to intake in batches and are acknowledged after the commit.

Two threads share the work. The main one owns the connection to RabbitMQ: it reads, acknowledges and answers
heartbeats. The writer waits for Postgres. So a slow database never costs a heartbeat, and the next batch arrives while
the last one is written. A batch is whatever has arrived when the writer is free: one message when it is quiet, which
keeps the latency low, and `KANIKOJOBS_BATCH` in a burst.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import structlog
from django.db import InterfaceError, OperationalError, connections

from kanikojobs import amqp, dead_letters, intake
from kanikojobs.amqp import Delivery
from kanikojobs.messages import IntakeResult, Message
from kanikojobs.models import JobStartEvent

log = structlog.get_logger(__name__)

LONGEST_BACKOFF = 10.0  # seconds

Write = Callable[[Sequence[Message]], IntakeResult]


def record_from_queue(messages: Sequence[Message]) -> IntakeResult:
    return intake.record(messages, origin=JobStartEvent.Origin.QUEUE)


@dataclass(slots=True)
class Counts:
    """What this process has done since it started."""

    taken: int = 0
    recorded: int = 0
    duplicates: int = 0
    dead: int = 0
    not_ours: int = 0
    reconnects: int = 0
    last_message_at: float = 0.0
    last_loop_at: float = 0.0

    def add(self, result: IntakeResult) -> None:
        self.taken += len(result.outcomes)
        self.recorded += result.recorded
        self.duplicates += result.duplicates
        self.dead += result.dead
        self.not_ours += result.not_ours
        self.last_message_at = time.time()


@dataclass(slots=True)
class Lane:
    """One queue, what writes its messages, and the batch that is being written."""

    consumer: amqp.Consumer
    write: Write
    in_flight: Future[IntakeResult] | None = None
    last_tag: int = 0


@dataclass(slots=True)
class Consuming:
    """Drains queues until `stop` is set, or, with `once`, until they are empty.

    `queues` says for each queue's name what writes its messages. `on_connect` runs on every new connection before
    anything is consumed; it declares the topology.
    """

    url: str
    queues: Mapping[str, Write]
    prefetch: int
    batch: int
    once: bool = False
    on_connect: Callable[[amqp.BlockingConnection], None] = lambda connection: None
    on_progress: Callable[[Counts], None] = lambda counts: None
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counts = field(default_factory=Counts)

    def run(self) -> Counts:
        """Consume, reconnecting with backoff and jitter, until stopped. What is held then goes back to RabbitMQ.

        Raises `amqp.TopologyConflict`, and whatever the database raises that is no outage (such as missing tables).
        """
        failures = 0
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer") as writer:
            while not self.stop.is_set():
                try:
                    connection = amqp.connect(self.url, name="kanikojobs consume_queue")
                    try:
                        self.on_connect(connection)
                        failures = 0
                        log.info("consuming", queues=list(self.queues))
                        self._drain(connection, writer)
                        break
                    finally:
                        if connection.is_open:
                            connection.close()
                except amqp.CONNECTION_ERRORS as error:
                    failures += 1
                    self.counts.reconnects += 1
                    wait = min(LONGEST_BACKOFF, 0.2 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
                    log.warning("rabbitmq-away", error=_brief(error), retry_in=round(wait, 2))
                    self.stop.wait(wait)
            writer.submit(connections.close_all).result()  # the writer thread's own
        return self.counts

    def _drain(self, connection: amqp.BlockingConnection, writer: ThreadPoolExecutor) -> None:
        lanes = [
            Lane(amqp.Consumer(connection, queue=queue, prefetch=self.prefetch), write)
            for queue, write in self.queues.items()
        ]
        wake = lambda _: connection.add_callback_threadsafe(lambda: None)  # noqa: E731
        quiet_since = time.monotonic()
        while not self.stop.is_set():
            connection.process_data_events(time_limit=0.5)
            self.counts.last_loop_at = time.time()
            for lane in lanes:
                self._settle(lane)
                if lane.in_flight is None and (deliveries := lane.consumer.take(self.batch)):
                    lane.last_tag = deliveries[-1].tag
                    lane.in_flight = writer.submit(self._write, lane.write, deliveries)
                    lane.in_flight.add_done_callback(wake)
                if lane.consumer.cancelled:
                    raise ConnectionError(f"RabbitMQ cancelled the consumer of queue {lane.consumer.queue}")
            if any(lane.in_flight or lane.consumer.waiting for lane in lanes):
                quiet_since = time.monotonic()
            elif self.once and time.monotonic() - quiet_since > 0.3:
                # Nothing has arrived for a moment; RabbitMQ's own count tells whether that was all.
                if not any(lane.consumer.depth() for lane in lanes):
                    return
                quiet_since = time.monotonic()
        # Stopping: no new batch, but the one that is being written gets its acknowledgement.
        for lane in lanes:
            if lane.in_flight is not None and lane.in_flight.exception() is None:
                self._settle(lane)
        connection.process_data_events(time_limit=0)

    def _settle(self, lane: Lane) -> None:
        """Acknowledge a batch that has been committed. One that was not is left to RabbitMQ to hand over again."""
        if lane.in_flight is None or not lane.in_flight.done():
            return
        written, lane.in_flight = lane.in_flight, None
        result = written.result()
        lane.consumer.acknowledge(up_to=lane.last_tag)
        self.counts.add(result)
        self.on_progress(self.counts)

    def _write(self, write: Write, deliveries: Sequence[Delivery]) -> IntakeResult:
        """Write one batch, in the writer's thread; wait for the database as long as it is away.

        Raises `OperationalError` if asked to stop while the database is away.
        """
        messages = [Message(d.body, d.content_type, d.headers, d.properties) for d in deliveries]
        failures = 0
        while True:
            try:
                return write(messages)
            except (OperationalError, InterfaceError) as error:
                failures += 1
                connections.close_all()
                wait = min(LONGEST_BACKOFF, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311
                log.warning("database-away", error=_brief(error), held=len(messages), retry_in=round(wait, 2))
                if self.stop.wait(wait):
                    raise


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def queue_writers(*, queue: str, dlq: str, drain_dlq: bool) -> dict[str, Write]:
    """What writes each queue's messages: events to intake, and what the broker dead-lettered to dead letters."""
    writers: dict[str, Write] = {queue: record_from_queue}
    if drain_dlq:
        writers[dlq] = dead_letters.record_from_broker
    return writers
