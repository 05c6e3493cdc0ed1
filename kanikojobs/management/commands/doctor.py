"""`manage.py doctor`: what is wrong, and what to do about it. The looking is `kanikojobs.checkup`."""

import sys
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandParser
from rich.console import Console
from rich.text import Text

from kanikojobs.checkup import State, checkup

PROCESSES = ("web", "consumer", "workers", "watcher")
_MARKS = {State.WELL: ("ok  ", "green"), State.ODD: ("odd ", "yellow"), State.BAD: ("BAD ", "red")}


class Command(BaseCommand):
    help = (
        "Looks at the settings, Postgres, RabbitMQ, Kubernetes and every process, and says what is wrong and what to "
        "do. Changes nothing. Ends with 1 if something is bad. Run it where the process runs that has the trouble: "
        "each has its own rights and its own network."
    )
    # It tells of the system checks itself, beside the rest.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--process",
            action="append",
            choices=PROCESSES,
            help="Look only at what this process needs; may be given several times (default: all).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        console = Console(file=cast("IO[str]", self.stdout), soft_wrap=True)
        bad = 0
        for finding in checkup(processes=frozenset(options["process"] or PROCESSES)):
            mark, colour = _MARKS[finding.state]
            console.print(Text.assemble((mark, colour), (finding.part, "bold"), ": ", finding.text))
            if finding.advice:
                console.print(Text(f"    do: {finding.advice}"))
            bad += finding.state == State.BAD
        if bad:
            console.print(Text(f"\n{bad} of these need somebody."))
            sys.exit(1)
        console.print(Text("\nNothing is bad."))
