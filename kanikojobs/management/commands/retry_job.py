"""`manage.py retry_job`: queue the next Kaniko Job for the event of a finished one. The work is `kanikojobs.retry`."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from kanikojobs import audit, retry
from kanikojobs.management.commands.cancel_job import add_job_arguments, author, kaniko_job
from kanikojobs.retry import OVERRIDABLE, OverridesInvalid


class Command(BaseCommand):
    help = "Retries a Kaniko Job with the same or edited parameters. Who did it and why is kept."

    def add_arguments(self, parser: CommandParser) -> None:
        add_job_arguments(parser)
        parser.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"Change a parameter, for example memory=8Gi. May be repeated. One of {', '.join(OVERRIDABLE)}; "
            "environment.NAME=VALUE sets one build argument.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            overrides = parsed(options["set"])
            act = retry.retry(
                kaniko_job(options["job"]).pk, author=author(), reason=options["reason"], overrides=overrides
            )
        except (OverridesInvalid, audit.ReasonMissing) as problem:
            raise CommandError(str(problem)) from None
        if not act.done:
            raise CommandError(act.message)
        self.stdout.write(f"{act.message} Kaniko Job {act.kaniko_job.pk}, {act.kaniko_job.name}")


def parsed(pairs: list[str]) -> dict[str, Any]:
    """`NAME=VALUE` texts as overrides. Raises `OverridesInvalid`."""
    overrides: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise OverridesInvalid(f"{pair[:64]}: not NAME=VALUE, such as memory=8Gi")
        first, dot, rest = name.partition(".")
        if first == "environment" and dot:
            overrides.setdefault("environment", {})[rest] = value
        elif OVERRIDABLE.get(name) is int:
            if not value.isascii() or not value.isdecimal():
                raise OverridesInvalid(f"{name}: must be a whole number")
            overrides[name] = int(value)
        else:
            overrides[name] = value
    return overrides
