"""`manage.py consume_queue`: drain RabbitMQ into Postgres until told to stop. The work is `kanikojobs.consuming`."""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kanikojobs import amqp
from kanikojobs.consuming import Consuming, Counts, queue_writers
from kanikojobs.management.commands.declare_topology import conflict_advice
from kanikojobs.topology import topology


class Command(BaseCommand):
    help = "Drains the queue, and the dead-letter queue, into Postgres. Acknowledges what has been committed."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Drain what is there and exit.")
        parser.add_argument("--no-declare", action="store_true", help="Take queues and bindings as they are.")
        parser.add_argument(
            "--prefetch",
            type=int,
            default=settings.KANIKOJOBS_PREFETCH,
            help="Messages held at most, per queue.",
        )
        parser.add_argument(
            "--batch", type=int, default=settings.KANIKOJOBS_BATCH, help="Messages per transaction at most."
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.RABBITMQ_URL:
            raise CommandError("RABBITMQ_URL is not set. Write amqp://user:password@host:5672/.")
        if options["batch"] > options["prefetch"]:
            raise CommandError(f"--batch {options['batch']} is larger than --prefetch {options['prefetch']}.")
        consuming = Consuming(
            url=settings.RABBITMQ_URL,
            queues=queue_writers(
                queue=settings.KANIKOJOBS_QUEUE,
                dlq=settings.KANIKOJOBS_DLQ,
                drain_dlq=settings.KANIKOJOBS_DRAIN_DLQ,
            ),
            prefetch=options["prefetch"],
            batch=options["batch"],
            once=options["once"],
            on_connect=(lambda _: None) if options["no_declare"] else (lambda c: amqp.declare(c, topology())),
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: consuming.stop.set())
        try:
            counts = run_with_progress(consuming) if options["once"] else consuming.run()
        except amqp.TopologyConflict as conflict:
            raise CommandError(conflict_advice(conflict)) from None
        self.stdout.write(
            f"{counts.taken} messages: {counts.recorded} recorded, {counts.duplicates} duplicates, "
            f"{counts.dead} dead letters, {counts.not_ours} not ours"
        )


def run_with_progress(consuming: Consuming) -> Counts:
    """Drain under a progress bar, which shows on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("draining"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("draining", total=None)
        declare = consuming.on_connect

        def measure(connection: amqp.BlockingConnection) -> None:
            declare(connection)
            depths = amqp.depths(consuming.url, queues=consuming.queues)
            progress.update(task, total=consuming.counts.taken + sum(depths.values()))

        consuming.on_connect = measure
        consuming.on_progress = lambda counts: progress.update(task, completed=counts.taken)
        return consuming.run()
