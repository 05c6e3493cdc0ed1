"""`manage.py pause_consumer`: stop taking messages from RabbitMQ. They wait there until `resume_consumer`."""

import getpass
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from kanikojobs import pausing
from kanikojobs.audit import Author, ReasonMissing
from kanikojobs.models import OperatorAction


class Command(BaseCommand):
    help = "Pauses consuming for every consumer, within about a second. Who did it and why is kept."
    switch: Callable[..., bool] = staticmethod(pausing.pause)

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--reason", required=True, help="Why; it is kept.")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            changed = self.switch(author=at_the_command_line(), reason=options["reason"])
        except ReasonMissing as missing:
            raise CommandError(str(missing)) from None
        now = "paused" if pausing.current().paused else "running"
        self.stdout.write(f"Consuming is {now}." if changed else f"Consuming was {now} already.")


def at_the_command_line() -> Author:
    """Who the operating system says is asking. A container's user need not have a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Author(name=name, via=OperatorAction.Via.COMMAND)
