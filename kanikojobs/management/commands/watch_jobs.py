"""`manage.py watch_jobs`: follow the Jobs in Kubernetes until told to stop. The work is `kanikojobs.watching`.

Where that is wanted it also publishes the outcomes (`kanikojobs.outbox`).
"""

import signal
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from kanikojobs import outbox
from kanikojobs.watching import Watching


class Command(BaseCommand):
    help = (
        "Follows the Jobs in Kubernetes and brings the rows up to them: states, reasons, digests, logs. "
        "One watcher of a namespace leads; others that run beside it stand by and take over within seconds."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--resync",
            type=float,
            default=settings.KANIKOJOBS_WATCH_RESYNC.total_seconds(),
            help="Seconds between two fresh lists.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.KANIKOJOBS_OUTCOME_EVENTS and not settings.RABBITMQ_URL:
            raise CommandError("KANIKOJOBS_OUTCOME_EVENTS needs RABBITMQ_URL. Write amqp://user:password@host:5672/.")
        watching = Watching(resync=options["resync"])
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: watching.stop.set())
        publisher = outbox.Publisher() if settings.KANIKOJOBS_OUTCOME_EVENTS else None
        try:
            watching.run()
        finally:
            if publisher is not None:
                publisher.close()
                publisher.join(0.5)
        self.stdout.write(
            ", ".join(f"{count} {state}" for state, count in sorted(watching.moved.items())) or "no moves"
        )
