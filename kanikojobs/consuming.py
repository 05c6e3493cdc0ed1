"""The consumer: deliveries from RabbitMQ go to intake in batches and are acknowledged after the commit.

Two threads share the work. The main one owns the connection to RabbitMQ: it reads and parses, acknowledges and answers
heartbeats. The writer waits for Postgres. So a slow database never costs a heartbeat, and the next batch is read while
the last one is written. A batch is whatever has arrived when the writer is free: one message when it is quiet, which
keeps the latency low, and `KANIKOJOBS_BATCH` in a burst.

Nothing is taken while the gate is shut: while Postgres is away, its tables are missing or an operator has paused
consuming. What was held then goes back to RabbitMQ, where it is as safe as before.
"""

import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from django.db import InterfaceError, OperationalError, connections

from kanikojobs import amqp
from kanikojobs.consumer_status import Counts
from kanikojobs.lanes import MOST_BYTES_HELD, Lane, Work
from kanikojobs.messages import IntakeResult
from kanikojobs.writer import Writer

log = structlog.get_logger(__name__)

DATABASE_AWAY = (OperationalError, InterfaceError)

# All in seconds.
LONGEST_BACKOFF = 10.0
LOOK_AT_GATE_EVERY = 1.0
MEASURE_DEPTH_EVERY = 5.0
# How long a batch is held while Postgres is away. A restart is shorter; each return counts against the delivery limit.
PATIENCE = 20.0
# How long a stopping consumer waits for the batch that is being written before it goes back.
GRACE = 5.0
# A broker that is starting refuses what it will grant in a moment; credentials that were changed it never grants.
REFUSALS_BORNE = 60.0


class Refused(Exception):
    """RabbitMQ says no, in a way that only a person can mend. The text says how."""


def backoff(failures: int) -> float:
    """How long to wait after so many failures in a row, in seconds: exponential, with jitter."""
    return min(LONGEST_BACKOFF, 0.1 * 2 ** min(failures, 10)) * random.uniform(0.5, 1)  # noqa: S311


@dataclass(slots=True)
class Consuming:
    """Drains queues until `stop` is set, or, with `once`, until they are empty.

    `queues` says for each queue's name what is done with its messages. `gate` is asked in the writer's thread, once a
    second, whether anything may be taken; it raises what the database raises. `farewell` is called there at the end.
    `on_connect` runs on every new connection before anything is consumed; it declares the topology.
    """

    url: str
    queues: Mapping[str, Work]
    prefetch: int
    batch: int
    once: bool = False
    gate: Callable[[Counts], bool] = lambda counts: True
    farewell: Callable[[], None] = lambda: None
    on_connect: Callable[[amqp.BlockingConnection], None] = lambda connection: None
    on_progress: Callable[[Counts], None] = lambda counts: None
    stop: threading.Event = field(default_factory=threading.Event)
    counts: Counts = field(default_factory=Counts)
    # Whether RabbitMQ has granted this connection all that was asked of it.
    granted: bool = field(default=False, init=False)

    def run(self) -> Counts:
        """Consume, reconnecting with backoff and jitter, until stopped. What is held then goes back to RabbitMQ.

        Raises `Refused`, `amqp.TopologyConflict`, and what the database raises that is no outage (missing tables).
        """
        failures = 0
        refused_since: float | None = None
        ever_granted = False
        writer = Writer()
        try:
            while not self.stop.is_set():
                self.counts.last_loop_at = time.time()
                try:
                    self._connect_and_drain(writer)
                    break
                except amqp.CONNECTION_ERRORS as error:
                    if self.granted:
                        failures, refused_since, ever_granted = 0, None, True
                    self.granted = self.counts.connected = False
                    self.counts.depth = None
                    self.counts.reconnects += 1
                    failures += 1
                    if advice := amqp.refusal(error):
                        refused_since = refused_since or time.monotonic()
                        if not ever_granted or time.monotonic() - refused_since > REFUSALS_BORNE:
                            raise Refused(advice) from None
                    else:
                        refused_since = None
                    delay = backoff(failures)
                    # A sign of life all the same, which says that it is RabbitMQ that is away.
                    writer.submit(partial(self.gate, self.counts))
                    log.warning("rabbitmq-away", error=advice or amqp.brief(error), retry_in=round(delay, 2))
                    self.stop.wait(delay)
        finally:
            self.counts.connected = False
            writer.submit(self.farewell)
            if not writer.close(within=1.0):
                log.warning("writer-left-behind", hint="Postgres does not answer; what it held was given back.")
        return self.counts

    def _connect_and_drain(self, writer: Writer) -> None:
        connection = amqp.connect(self.url, name="kanikojobs consume_queue")
        try:
            self.on_connect(connection)
            self.counts.connected = True
            _Session(self, connection, writer).drain()
        finally:
            # RabbitMQ hands over again whatever was not acknowledged.
            with suppress(*amqp.CONNECTION_ERRORS):
                if connection.is_open:
                    connection.close()


class _Session:
    """One connection's time: the lanes, and the gate before them."""

    def __init__(self, consuming: Consuming, connection: amqp.BlockingConnection, writer: Writer) -> None:
        self.consuming = consuming
        self.counts = consuming.counts
        self.connection = connection
        self.writer = writer
        self.lanes: list[Lane] = []
        self.gate_open = False
        self.gate_answer: Future[bool] | None = None
        self.look_at = 0.0
        self.database_failures = 0
        self.idle_since = time.monotonic()
        self.depth_at = time.monotonic()

    def drain(self) -> None:
        """Take, write and acknowledge, until stopped or, with `once`, done."""
        try:
            self._drain()
        finally:
            for lane in self.lanes:
                lane.tell()

    def _drain(self) -> None:
        while not self.consuming.stop.is_set():
            self._mind_the_gate()
            self._read_socket()
            self.counts.last_loop_at = time.time()
            for lane in self.lanes:
                self._settle(lane)
                if self.gate_open:
                    self._feed(lane)
                lane.tell()  # while the next batch is written
                if lane.consumer.cancelled:
                    raise ConnectionError(f"RabbitMQ cancelled the consumer: queue {lane.consumer.queue} is gone")
            self._measure_depth()
            self.counts.held = sum(len(lane.messages) + len(lane.consumer.waiting) for lane in self.lanes)
            if not self.gate_open:
                self._give_back()
            if self.consuming.once and self._is_done():
                return
        self._finish()

    def _read_socket(self) -> None:
        written = [lane.in_flight for lane in self.lanes if lane.in_flight]
        if written and sum(lane.held_bytes for lane in self.lanes) > MOST_BYTES_HELD:
            # Only a sip, of 100 KB at most, to keep the heartbeats going.
            wait(written, timeout=1.0, return_when=FIRST_COMPLETED)
            self.connection.process_data_events(time_limit=0)
        else:
            self.connection.process_data_events(time_limit=0.5)

    def _mind_the_gate(self) -> None:
        if self.gate_answer is None:
            if time.monotonic() >= self.look_at:
                self.gate_answer = self._submit(partial(self.consuming.gate, self.counts))
            return
        if not self.gate_answer.done():
            return
        answer, self.gate_answer = self.gate_answer, None
        self.look_at = time.monotonic() + LOOK_AT_GATE_EVERY
        try:
            allowed = answer.result()
        except DATABASE_AWAY as error:
            self._shut_for_outage(error)
            return
        self.database_failures = 0
        self.counts.database_up = True
        self.counts.paused = not allowed
        if allowed and not self.lanes:
            # The queue of events last: whatever is asked of RabbitMQ after that is answered behind all it has sent.
            consumers = {
                queue: amqp.Consumer(self.connection, queue=queue, prefetch=self.consuming.prefetch)
                for queue in reversed(list(self.consuming.queues))
            }
            self.lanes = [Lane(consumers[queue], work) for queue, work in self.consuming.queues.items()]
            self.consuming.granted = True
            log.info("consuming", queues=list(self.consuming.queues))
        elif self.gate_open and not allowed:
            log.warning("paused")
        self.gate_open = allowed

    def _measure_depth(self) -> None:
        # The answer comes behind all that RabbitMQ has sent already, which is read into memory on the way: so not at
        # the start, and not while large bodies come in.
        held = sum(lane.held_bytes for lane in self.lanes)
        if self.lanes and held < MOST_BYTES_HELD // 2 and time.monotonic() - self.depth_at > MEASURE_DEPTH_EVERY:
            self.counts.depth = self.lanes[0].consumer.depth()
            self.depth_at = time.monotonic()

    def _shut_for_outage(self, error: Exception) -> None:
        self.database_failures += 1
        self.counts.database_up = False
        self.gate_open = False
        delay = backoff(self.database_failures)
        self.look_at = time.monotonic() + delay
        log.warning("database-away", error=amqp.brief(error), retry_in=round(delay, 2))

    def _feed(self, lane: Lane) -> None:
        lane.gather(most=self.consuming.batch)
        if lane.in_flight is None and lane.messages:
            held = len(lane.messages)
            lane.in_flight = self._submit(partial(self._write, lane.work, lane.batch(), held=held))

    def _submit(self, call: Callable[[], Any]) -> Future[Any]:
        """Have the writer make a call, whose end wakes the loop at once."""
        future = self.writer.submit(call)
        future.add_done_callback(self._wake)
        return future

    def _wake(self, _future: Future[Any]) -> None:
        with suppress(*amqp.CONNECTION_ERRORS):
            self.connection.add_callback_threadsafe(lambda: None)

    def _write(self, work: Work, batch: Any, *, held: int) -> IntakeResult:
        """Write one batch, in the writer's thread, trying again while Postgres restarts.

        Raises what the database raises when patience ends, or at once when asked to stop.
        """
        patient_until = time.monotonic() + PATIENCE
        failures = 0
        while True:
            try:
                return work.write(batch)
            except DATABASE_AWAY as error:
                connections.close_all()
                failures += 1
                self.counts.database_up = False
                delay = backoff(failures)
                log.warning("database-away", error=amqp.brief(error), held=held, retry_in=round(delay, 2))
                if self.consuming.stop.wait(delay) or time.monotonic() > patient_until:
                    raise

    def _settle(self, lane: Lane) -> None:
        """Acknowledge a batch that has been committed. One that was not goes back with the rest of the lane."""
        if lane.in_flight is None or not lane.in_flight.done():
            return
        written, lane.in_flight = lane.in_flight, None
        try:
            result = written.result()
        except DATABASE_AWAY as error:
            self._shut_for_outage(error)
            return
        lane.settled = lane.in_flight_readings, result
        lane.consumer.acknowledge(up_to=lane.in_flight_tag)
        self.counts.database_up = True
        self.counts.add(result, queue=lane.consumer.queue)
        self.consuming.on_progress(self.counts)

    def _give_back(self) -> None:
        """Close the lanes, once the writer is done with their batches."""
        if not self.lanes or any(lane.in_flight for lane in self.lanes):
            return
        for lane in self.lanes:
            lane.consumer.give_back()
        self.lanes = []
        self.counts.held = 0
        log.info("gave-back")

    def _is_done(self) -> bool:
        if self.counts.paused:
            return True
        if not self.lanes or not all(lane.idle for lane in self.lanes):
            self.idle_since = time.monotonic()
        elif time.monotonic() - self.idle_since > 0.1:
            # Nothing has arrived for a moment; RabbitMQ's own count tells whether that was all.
            if not any(lane.consumer.depth() for lane in self.lanes):
                return True
            self.idle_since = time.monotonic()
        return False

    def _finish(self) -> None:
        """Stopping: no new batch, but the one that is being written gets its acknowledgement if it comes soon."""
        deadline = time.monotonic() + GRACE
        while (written := [lane for lane in self.lanes if lane.in_flight]) and time.monotonic() < deadline:
            self.connection.process_data_events(time_limit=0.1)
            for lane in written:
                self._settle(lane)
        self.connection.process_data_events(time_limit=0)
