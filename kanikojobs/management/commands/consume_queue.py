"""`manage.py consume_queue`: drain RabbitMQ into Postgres until told to stop. The work is `kanikojobs.consuming`."""

import gc
import signal
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import ProgrammingError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kanikojobs import amqp, consumer_status, gate, lanes
from kanikojobs.consumer_status import Counts
from kanikojobs.consuming import Consuming, Refused
from kanikojobs.management.commands.declare_topology import conflict_advice, rabbitmq_url
from kanikojobs.topology import topology


class Command(BaseCommand):
    help = (
        "Drains the queue, and the dead-letter queue, into Postgres. Acknowledges what has been committed. "
        "Waits while RabbitMQ or Postgres is away; ends with 1 when RabbitMQ refuses it or the tables are missing."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="Drain what is there and exit.")
        parser.add_argument("--no-declare", action="store_true", help="Take queues and bindings as they are.")
        parser.add_argument(
            "--dead-letters-only",
            action="store_true",
            help="Leave the queue to Knative and drain the dead-letter queue only (always so with "
            "KANIKOJOBS_QUEUE_READER=knative).",
        )
        parser.add_argument(
            "--prefetch",
            type=int,
            default=settings.KANIKOJOBS_PREFETCH,
            help="Messages held at most, per queue (default KANIKOJOBS_PREFETCH).",
        )
        parser.add_argument(
            "--batch",
            type=int,
            default=settings.KANIKOJOBS_BATCH,
            help="Messages per transaction at most (default KANIKOJOBS_BATCH).",
        )
        parser.add_argument(
            "--metrics-port",
            type=int,
            metavar="PORT",
            help="Serve this process's own /metrics and /health there.",
        )
        parser.add_argument(
            "--stalled-after",
            type=float,
            metavar="SECONDS",
            default=60.0,
            help="/health is 503 when the loop has not come round for so long (default 60).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["batch"] < 1 or options["prefetch"] < options["batch"] or options["prefetch"] > 65_535:
            raise CommandError("--batch must be at least 1, and --prefetch from --batch to 65535.")
        dead_letters_only = options["dead_letters_only"] or settings.KANIKOJOBS_QUEUE_READER == "knative"
        if dead_letters_only and not settings.KANIKOJOBS_DRAIN_DLQ:
            raise CommandError("Nothing is left to drain: unset KANIKOJOBS_DRAIN_DLQ=0, or do not run this command.")
        consuming = consuming_by_settings(
            prefetch=options["prefetch"],
            batch=options["batch"],
            once=options["once"],
            declare=not options["no_declare"],
            dead_letters_only=dead_letters_only,
        )
        stop_on_signals(consuming)
        spare_the_collector()
        take_short_turns()
        if options["metrics_port"] is not None:
            serve_status(consuming.counts, port=options["metrics_port"], stalled_after=options["stalled_after"])
        try:
            counts = run_with_progress(consuming) if options["once"] else consuming.run()
        except amqp.TopologyConflict as conflict:
            raise CommandError(conflict_advice(conflict)) from None
        except Refused as refused:
            raise CommandError(str(refused)) from None
        except ProgrammingError as error:
            first_line = str(error).splitlines()[0]
            raise CommandError(
                f"Postgres has not the tables of this version ({first_line}). Run manage.py migrate."
            ) from None
        self.stdout.write(
            f"{counts.taken} messages: {counts.recorded} recorded, {counts.duplicates} duplicates, "
            f"{counts.dead} dead letters, {counts.not_ours} not ours"
        )
        if options["once"] and counts.paused:
            raise CommandError("Consuming is paused. Run manage.py resume_consumer.")


def consuming_by_settings(
    *,
    prefetch: int | None = None,
    batch: int | None = None,
    once: bool = False,
    declare: bool = True,
    dead_letters_only: bool = False,
) -> Consuming:
    """The consumer of the queues that the settings name, or of the dead-letter queue alone."""
    pulse = gate.consumer_pulse()
    return Consuming(
        url=rabbitmq_url(),
        queues=lanes.works(
            queue=settings.KANIKOJOBS_QUEUE,
            dlq=settings.KANIKOJOBS_DLQ,
            drain_dlq=settings.KANIKOJOBS_DRAIN_DLQ,
            dead_letters_only=dead_letters_only,
        ),
        prefetch=prefetch or settings.KANIKOJOBS_PREFETCH,
        batch=batch or settings.KANIKOJOBS_BATCH,
        once=once,
        gate=gate.gate_of(pulse, dead_letters_only=dead_letters_only),
        farewell=pulse.rest,
        on_connect=(lambda link: amqp.declare(link, topology())) if declare else (lambda _: None),
    )


def spare_the_collector() -> None:
    """Events are trees without cycles; looking for cycles in them takes a tenth of the CPU and finds nothing.

    What is there at the start stays anyway and is not looked at any more; the rest less often.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def take_short_turns() -> None:
    """The writer asks Postgres several times per batch, and each answer waits until the reader lets go of the lock.

    1 ms at most instead of Python's 5 drains 3% more events per second.
    """
    sys.setswitchinterval(0.001)


def stop_on_signals(consuming: Consuming) -> None:
    """The first signal asks for an orderly end, which takes seconds; the second ends the process at once."""

    def stop(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        consuming.stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)


def serve_status(counts: Counts, *, port: int, stalled_after: float) -> None:
    try:
        consumer_status.serve(counts, port=port, stalled_after=stalled_after)
    except (OSError, OverflowError) as error:
        raise CommandError(f"--metrics-port {port} cannot be used: {error}") from None


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
