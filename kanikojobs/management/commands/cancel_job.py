"""`manage.py cancel_job`: cancel a Kaniko Job that is not finished. The work is `kanikojobs.retry`."""

import getpass
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from kanikojobs import audit, retry
from kanikojobs.audit import Author
from kanikojobs.models import KanikoJob, OperatorAction


class Command(BaseCommand):
    help = "Cancels a Kaniko Job. One that may be in the cluster is cancelled once its Job and pods are gone."

    def add_arguments(self, parser: CommandParser) -> None:
        add_job_arguments(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            act = retry.cancel(kaniko_job(options["job"]).pk, author=author(), reason=options["reason"])
        except audit.ReasonMissing as problem:
            raise CommandError(str(problem)) from None
        if not act.done:
            raise CommandError(act.message)
        self.stdout.write(act.message)


def add_job_arguments(parser: CommandParser) -> None:
    parser.add_argument("job", help="The Kaniko Job: its number in the admin, or its name in Kubernetes.")
    parser.add_argument("--reason", required=True, help="Why; it is kept.")


def kaniko_job(text: str) -> KanikoJob:
    """The Kaniko Job that is meant. Raises `CommandError`."""
    meant = {"pk": int(text)} if text.isascii() and text.isdecimal() and len(text) < 19 else {"name": text}
    job = KanikoJob.objects.filter(**meant).first()
    if job is None:
        raise CommandError(f"There is no Kaniko Job {text}.")
    return job


def author() -> Author:
    """Who the operating system says is asking. A container's user need not have a name."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "unknown"
    return Author(name=name[:150], via=OperatorAction.Via.COMMAND)
