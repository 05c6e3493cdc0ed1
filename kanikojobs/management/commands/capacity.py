"""`manage.py capacity --rate 200`: how many of what a rate of events asks for. The model is `kanikojobs.capacity`."""

import json
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, cast

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.table import Table

from kanikojobs.capacity import Measured, Wanted, measured, needs


class Command(BaseCommand):
    help = (
        "Prints what a rate of events asks of each part, by a model on paper whose constants `make bench` has "
        "measured. Looks at nothing and changes nothing."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--rate", type=float, required=True, help="Events per second.")
        parser.add_argument("--build-seconds", type=float, default=60, help="How long a build runs (default 60).")
        days = settings.KANIKOJOBS_KEEP_EVENTS / timedelta(days=1)
        parser.add_argument(
            "--days", type=float, default=days, help="How long events are kept (default KANIKOJOBS_KEEP_EVENTS)."
        )
        parser.add_argument(
            "--bench",
            type=Path,
            metavar="FILE",
            help="Constants of another machine: .local/bench.json of `make bench`.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = Wanted(
            rate=options["rate"],
            build_seconds=options["build_seconds"],
            job_ttl=settings.KANIKOJOBS_JOB_TTL,
            days_kept=options["days"],
            queue_length=settings.KANIKOJOBS_MAX_LENGTH,
        )
        try:
            found = needs(wanted, constants=constants_of(options["bench"]))
        except ValueError as error:
            raise CommandError(f"Nothing can be said: {error}.") from None
        table = Table(title=f"{wanted.rate:g} events/s, builds of {wanted.build_seconds:g} s", show_lines=True)
        for title in ("Part", "Needs", "Because", "Basis"):
            table.add_column(title)
        for need in found:
            basis = f"{need.basis}\n[bold]{need.warning}[/bold]" if need.warning else need.basis
            table.add_row(need.part, need.needs, need.because, basis)
        Console(file=cast("IO[str]", self.stdout), width=150).print(table)


def constants_of(bench: Path | None) -> Measured:
    """The constants of a file of `make bench`, or the built-in ones. Raises `CommandError` if it is none."""
    if bench is None:
        return Measured()
    try:
        return measured(json.loads(bench.read_text()))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CommandError(f"{bench} is no result of `make bench`: {error}") from None
