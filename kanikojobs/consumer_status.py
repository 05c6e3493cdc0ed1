"""What one consumer process says of itself over HTTP, on a port of its own: its counters, and whether it is alive.

The exact totals are in Postgres and at `/metrics` of the web server. These here are of this process alone: they tell
which one hangs, and they are there while Postgres is away.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kanikojobs.messages import IntakeResult, Outcome


@dataclass(slots=True)
class Counts:
    """What this process has done since it started, and how it stands. Times are Unix times, 0 for never."""

    outcomes: Counter[tuple[str, Outcome]] = field(default_factory=Counter)
    reconnects: int = 0
    last_message_at: float = 0.0
    last_loop_at: float = field(default_factory=time.time)
    held: int = 0
    connected: bool = False
    database_up: bool = False
    paused: bool = False
    depth: int | None = None  # messages that wait in the first queue, as RabbitMQ said last

    def add(self, result: IntakeResult, *, queue: str) -> None:
        self.outcomes.update((queue, outcome) for outcome in result.outcomes)
        self.last_message_at = time.time()

    @property
    def taken(self) -> int:
        return self.outcomes.total()

    @property
    def recorded(self) -> int:
        return self._of(Outcome.RECORDED)

    @property
    def duplicates(self) -> int:
        return self._of(Outcome.DUPLICATE)

    @property
    def dead(self) -> int:
        return self._of(Outcome.DEAD)

    @property
    def not_ours(self) -> int:
        return self._of(Outcome.NOT_OURS)

    def _of(self, wanted: Outcome) -> int:
        return sum(count for (_, outcome), count in list(self.outcomes.items()) if outcome == wanted)


class ConsumerCollector(Collector):
    """The counts as metrics. Read from another thread than the one that counts; each number is whole by itself."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self.counts
        messages = CounterMetricFamily(
            "kanikojobs_consumer_messages",
            "Messages that this process has settled, by queue and outcome.",
            labels=["queue", "outcome"],
        )
        for (queue, outcome), count in sorted(counts.outcomes.copy().items()):
            messages.add_metric([queue, str(outcome)], count)
        yield messages
        yield CounterMetricFamily(
            "kanikojobs_consumer_reconnects",
            "How often the connection to RabbitMQ was lost or not granted.",
            value=counts.reconnects,
        )
        for name, value, meaning in (
            ("last_message_timestamp_seconds", counts.last_message_at, "When the last message was settled."),
            ("last_loop_timestamp_seconds", counts.last_loop_at, "When the loop last came round."),
            ("held_messages", counts.held, "Messages that have arrived and are not written yet."),
            ("rabbitmq_up", counts.connected, "Whether this process is connected to RabbitMQ."),
            ("database_up", counts.database_up, "Whether Postgres answered this process last."),
            ("paused", counts.paused, "Whether this process takes nothing because an operator has paused consuming."),
        ):
            yield GaugeMetricFamily(f"kanikojobs_consumer_{name}", meaning, value=float(value))


def serve(counts: Counts, *, port: int, stalled_after: float) -> WSGIServer:
    """Serve `/metrics` and `/health` in a thread that ends with the process. Raises `OSError` if the port is taken.

    `/health` is 503 when the loop has not come round for `stalled_after` seconds. An outage of RabbitMQ or Postgres
    does not make it so: the loop goes on, and to restart this process would help nobody.
    """
    registry = CollectorRegistry()
    registry.register(ConsumerCollector(counts))
    app = application(counts, metrics=make_wsgi_app(registry), stalled_after=stalled_after)
    server = make_server("", port, app, _Server, handler_class=_SilentHandler)
    Thread(target=server.serve_forever, name="consumer-status", daemon=True).start()
    return server


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """No line per scrape and probe."""


def application(counts: Counts, *, metrics: WSGIApplication, stalled_after: float) -> WSGIApplication:
    """`/health`, and the metrics at any other path."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/health":
            return metrics(environ, start_response)
        age = time.time() - counts.last_loop_at
        status = HTTPStatus.OK if age <= stalled_after else HTTPStatus.SERVICE_UNAVAILABLE
        start_response(f"{status} {status.phrase}", [("Content-Type", "application/json")])
        return [json.dumps({"status": "ok" if age <= stalled_after else "stalled", "age": round(age, 1)}).encode()]

    return app
