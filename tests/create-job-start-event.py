#!/usr/bin/env python3
# ruff: noqa: N999 - the document job-start-events.md gives the name
"""Send sample job start events to RabbitMQ or over HTTP, and say how many were taken.

    source .venv/bin/activate
    python3 tests/create-job-start-event.py
    python3 tests/create-job-start-event.py --count 200 --rate 50 --mode binary
    python3 tests/create-job-start-event.py --http http://127.0.0.1:8000/

Without --amqp or --http the broker is that of RABBITMQ_URL, else that of the running demo
(.local/demo/env). The events' priorities go from 1, the most urgent, to 10, the least. Exit code 0 means
that every event was confirmed.
"""

import argparse
import http.client
import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

try:
    import pika
    import pika.exceptions
    from cloudevents.core.bindings import http as http_binding
    from cloudevents.core.bindings import rabbitmq as rabbitmq_binding
    from cloudevents.core.v1.event import CloudEvent
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Table
    from rich.text import Text
except ModuleNotFoundError as missing:
    sys.exit(f"{missing.name} is not installed: run `make demo` once, or `source .venv/bin/activate` first")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.sample_events import sample_event  # noqa: E402 - the checkout's own, wherever this is started from

DEMO_ENV = ROOT / ".local" / "demo" / "env"
TIMEOUT_SECONDS = 10
Send = Callable[[CloudEvent], str]
"""Sends one event and says what became of it: `confirmed`, `accepted` (over HTTP), or why it was refused."""


class UnreachableError(Exception):
    """Nobody answers at the URL, in one line."""


def main() -> int:
    """Sends the events and returns the exit code."""
    arguments = parse(sys.argv[1:])
    console = Console()
    if arguments.http:
        target, sender = arguments.http, http_sender(arguments.http, mode=arguments.mode)
    else:
        url = arguments.amqp or broker_url()
        target = f"queue {arguments.queue} on {without_password(url)}"
        sender = amqp_sender(url, queue=arguments.queue, mode=arguments.mode)

    console.print(Text(f"Sending {arguments.count} events ({arguments.mode}) to {target}"), soft_wrap=True)
    outcomes: Counter[str] = Counter()
    started = time.monotonic()
    problem = ""
    try:
        with sender as send, progress(console) as bar:
            for event in bar.track(paced(events(arguments.count), rate=arguments.rate), total=arguments.count):
                outcomes[send(event)] += 1
    except UnreachableError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    seconds = time.monotonic() - started

    taken = outcomes["confirmed"] + outcomes["accepted"]
    if outcomes:
        console.print(summary(outcomes, seconds=seconds, rate=taken / seconds))
    if problem:
        console.print(Text(problem, style="red"), soft_wrap=True)
    return 0 if taken == arguments.count and not problem else 1


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--amqp", metavar="URL", help="the broker, for example amqp://user:password@127.0.0.1:5672/")
    where.add_argument("--http", metavar="URL", help="the CloudEvents sink, for example http://127.0.0.1:8000/")
    parser.add_argument("--count", type=positive, default=10, help="how many events (default 10)")
    parser.add_argument("--rate", type=float, default=0, help="events per second at most (default: no limit)")
    parser.add_argument(
        "--queue",
        default=os.environ.get("KANIKOJOBS_QUEUE", "kaniko-jobs"),
        help="the queue (default KANIKOJOBS_QUEUE, else kaniko-jobs)",
    )
    parser.add_argument(
        "--mode", choices=["structured", "binary"], default="structured", help="the CloudEvents content mode"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def broker_url() -> str:
    """RABBITMQ_URL from the environment, its file, or the running demo."""
    if url := os.environ.get("RABBITMQ_URL"):
        return url
    if file := os.environ.get("RABBITMQ_URL_FILE"):
        return Path(file).read_text().strip()
    if DEMO_ENV.is_file():
        for line in DEMO_ENV.read_text().splitlines():
            name, _, value = line.partition("=")
            if name == "RABBITMQ_URL":
                return value.strip().strip("'\"")
    sys.exit("No broker is known: start `make demo`, set RABBITMQ_URL, or pass --amqp URL or --http URL")


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if rest else "(not a URL)"


def events(count: int) -> Iterator[CloudEvent]:
    """New events at every start: a fresh seed, and the present time."""
    seed = uuid.uuid4().hex
    for n in range(count):
        sample: dict[str, Any] = sample_event(n, seed=seed)
        data = sample.pop("data")
        yield CloudEvent(sample | {"time": datetime.now(UTC)}, data)


def paced(source: Iterator[CloudEvent], *, rate: float) -> Iterator[CloudEvent]:
    """The same events, at most `rate` per second if that is above 0."""
    started = time.monotonic()
    for n, event in enumerate(source):
        if rate > 0:
            time.sleep(max(0.0, started + n / rate - time.monotonic()))
        yield event


@contextmanager
def amqp_sender(url: str, *, queue: str, mode: str) -> Iterator[Send]:
    """Publishes persistent messages to the queue by the default exchange and waits for each confirm."""
    write = rabbitmq_binding.to_binary_event if mode == "binary" else rabbitmq_binding.to_structured_event
    if not url.startswith(("amqp://", "amqps://")):
        raise UnreachableError("That is no URL of a broker; write one such as amqp://user:password@127.0.0.1:5672/")
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.blocked_connection_timeout = TIMEOUT_SECONDS
        parameters.connection_attempts = 1
        connection = pika.BlockingConnection(parameters)
        channel = connection.channel()
        channel.confirm_delivery()
    except (pika.exceptions.AMQPError, OSError, ValueError, TypeError, IndexError) as error:
        raise UnreachableError(f"Cannot publish to {without_password(url)}: {reason(error)}") from None

    with connection:

        def send(event: CloudEvent) -> str:
            message = write(event)
            properties = pika.BasicProperties(
                content_type=message.content_type,
                headers=message.headers or None,
                delivery_mode=pika.DeliveryMode.Persistent.value,
                message_id=event.get_id(),
            )
            try:
                channel.basic_publish("", queue, message.body, properties, mandatory=True)
            except pika.exceptions.UnroutableError:
                return f"no queue {queue} (manage.py declare_topology makes it)"
            except pika.exceptions.NackError:
                return "refused by the broker"
            except (pika.exceptions.AMQPError, OSError) as error:
                raise UnreachableError(f"The broker went away: {reason(error)}") from None
            return "confirmed"

        yield send


@contextmanager
def http_sender(url: str, *, mode: str) -> Iterator[Send]:
    """Posts each event over one kept-open connection."""
    write = http_binding.to_binary_event if mode == "binary" else http_binding.to_structured_event
    try:
        parts = urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}[parts.scheme]
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
    except (KeyError, ValueError, http.client.HTTPException):
        raise UnreachableError(f"{url} is no URL of HTTP; write one such as http://127.0.0.1:8000/") from None
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"

    def send(event: CloudEvent) -> str:
        message = write(event)
        try:
            connection.request("POST", path, message.body, message.headers)
            answer = connection.getresponse()
            text = answer.read(500)
        except (http.client.HTTPException, OSError) as error:
            connection.close()
            raise UnreachableError(f"Nobody answers at {url}: {reason(error)}") from None
        return "accepted" if answer.status == 202 else f"{answer.status} {answer.reason}: {first_words(text)}"

    try:
        yield send
    finally:
        connection.close()


def first_words(body: bytes) -> str:
    """The start of an answer in one line."""
    return json.dumps(body.decode("utf-8", "replace"))[1:81].rstrip('"')


def reason(error: Exception) -> str:
    """What an exception says, in one line; pika's often say nothing and keep the reason inside."""
    inner = error.args[0] if error.args else error
    text = str(getattr(inner, "exception", None) or error) or type(inner).__name__
    return " ".join(text.split())[:200]


def progress(console: Console) -> Progress:
    """The bar; it shows only on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal, disable=not console.is_terminal)


def summary(outcomes: Counter[str], *, seconds: float, rate: float) -> Table:
    """What became of the events."""
    table = Table(show_header=False)
    table.add_row("sent", str(outcomes.total()))
    for outcome, count in outcomes.most_common():
        table.add_row(Text(outcome), str(count))
    table.add_row("seconds", f"{seconds:.2f}")
    table.add_row("taken per second", f"{rate:.0f}")
    return table


if __name__ == "__main__":
    sys.exit(main())
