"""`manage.py replay_dlq`: plan a replay of dead letters, start it, and follow it to its end.

The run is a row, and the cluster of workers goes on with it if this process ends; while it lives it helps. Exit code 0
means that all were handed over and none is known to have failed again, 1 that some did or that the run was stopped, 2
that the arguments make no sense.
"""

import signal
import sys
from datetime import datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from kanikojobs import amqp
from kanikojobs.audit import ReasonMissing, at_the_command_line, checked_reason
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, ReplayRun
from kanikojobs.replay import from_broker, runs
from kanikojobs.replay.arguments import selection_of
from kanikojobs.replay.following import follow, progress_bar, stopping_on
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import NothingToReplay, Pace, PaceError
from kanikojobs.replay.selection import Selection, SelectionError
from kanikojobs.replay.tables import as_text, plan_table, result_table

FAILED_AGAIN, USAGE = 1, 2


class Command(BaseCommand):
    help = (
        "Replays open dead letters through intake. Without --yes it shows what would happen and, on a terminal, asks. "
        "Exit code 0: all well; 1: some failed again; 2: usage."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        which = parser.add_argument_group("which dead letters (all conditions must hold; none means all open ones)")
        which.add_argument("--id", action="append", type=int, default=[], metavar="ID", help="May be given often.")
        which.add_argument("--group", action="append", default=[], help="Fingerprint of a failure group, or its start.")
        which.add_argument(
            "--reason",
            action="append",
            default=[],
            help=f"A cause ({', '.join(DeadLetter.Cause.values)}) or a Kaniko Job's reason, such as OOMKilled.",
        )
        which.add_argument("--third-party", default="", metavar="ID")
        which.add_argument("--parser", default="", metavar="ID")
        which.add_argument("--since", help="First died at or after: 14:00 (today, UTC) or 2026-01-31T14:00:00Z.")
        which.add_argument("--until", help="First died before.")
        which.add_argument("--limit", type=int, help="The first so many, in the order of arrival.")
        how = parser.add_argument_group("how")
        how.add_argument("--dry-run", action="store_true", help="Only show the plan. The default without a terminal.")
        how.add_argument("--yes", action="store_true", help="Do not ask.")
        how.add_argument("--rate", type=float, help="Per second; without it as fast as it goes.")
        how.add_argument("--batch", type=int, default=100, help="Per transaction at most.")
        how.add_argument("--probe", type=int, default=0, help="So many first; the rest when they are well.")
        how.add_argument("--max-failure-rate", type=float, metavar="PERCENT", help="Pause when more fail again.")
        how.add_argument("--note", default="", help="Why; it is kept with the run.")
        how.add_argument("--wait", type=float, default=60.0, metavar="SECONDS", help="For the last results, at most.")
        how.add_argument(
            "--from-broker",
            action="store_true",
            help=f"Replay messages, at most {from_broker.MOST_AT_ONCE}, from RabbitMQ's dead-letter queue.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"] and options["yes"]:
            raise CommandError("--dry-run and --yes contradict each other.", returncode=USAGE)
        if options["limit"] is not None and options["limit"] < 1:
            raise CommandError("--limit must be at least 1.", returncode=USAGE)
        try:
            selection = selection_of(options)
            pace = Pace(
                rate=options["rate"],
                batch=options["batch"],
                probe=options["probe"],
                max_failure_rate=options["max_failure_rate"],
            )
        except (SelectionError, PaceError) as error:
            raise CommandError(str(error), returncode=USAGE) from None
        try:
            note = checked_reason(options["note"] or "Replayed from the command line.")
        except ReasonMissing as missing:
            raise CommandError(f"--note: {missing}", returncode=USAGE) from None
        if options["from_broker"]:
            self.from_broker(selection=selection, pace=pace, note=note, options=options)
            return
        planned = plan(selection=selection, most=options["limit"])
        self.stdout.write(as_text(plan_table(planned, rate=pace.rate, limit=options["limit"])))
        if not planned.total:
            self.stdout.write("There is nothing to replay.")
            return
        if not self.confirmed(options, question=f"Replay {min(planned.total, options['limit'] or planned.total)}?"):
            self.stdout.write("Nothing was replayed. Add --yes to do it.")
            return
        self.replay(selection=selection, cut_off=planned.cut_off, pace=pace, note=note, options=options)

    def replay(
        self, *, selection: Selection, cut_off: datetime, pace: Pace, note: str, options: dict[str, Any]
    ) -> None:
        """Start the run and follow it."""
        try:
            run = runs.start(
                selection=selection,
                cut_off=cut_off,
                pace=pace,
                author=at_the_command_line(),
                reason=note,
                limit=options["limit"],
            )
        except NothingToReplay as nothing:
            self.stdout.write(str(nothing))
            return
        self.stdout.write(f"Replay {run.pk} has {run.total} dead letters. It goes on in the cluster if this ends.")
        run = follow(run, wait=options["wait"])
        self.stdout.write(as_text(result_table(run)))
        tell(run)

    def confirmed(self, options: dict[str, Any], *, question: str) -> bool:
        if options["dry_run"]:
            return False
        if options["yes"]:
            return True
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            return False
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")

    def from_broker(self, *, selection: Selection, pace: Pace, note: str, options: dict[str, Any]) -> None:
        if selection != Selection():
            raise CommandError(
                "--from-broker takes messages as they come: it knows no filter but --limit.", returncode=USAGE
            )
        if not settings.RABBITMQ_URL:
            raise CommandError("RABBITMQ_URL is not set. Write amqp://user:password@host:5672/.", returncode=USAGE)
        url, queue = settings.RABBITMQ_URL, settings.KANIKOJOBS_DLQ
        try:
            waiting = from_broker.depth(url, queue=queue)
            count = min(waiting, options["limit"] or waiting, from_broker.MOST_AT_ONCE)
            self.stdout.write(f"{waiting} messages wait in {queue}.")
            if not count or not self.confirmed(options, question=f"Take {count}?"):
                self.stdout.write("Nothing was taken." + (" Add --yes to do it." if count else ""))
                return
            asked: list[int] = []
            with stopping_on(signal.SIGINT, signal.SIGTERM, into=asked), progress_bar("taking", total=count) as bar:
                taken = from_broker.take(
                    url,
                    queue=queue,
                    batch=pace.batch,
                    limit=count,
                    on_progress=lambda messages: bar.update(bar.task_ids[0], completed=messages),
                    stopped=lambda: bool(asked),
                )
        except amqp.CONNECTION_ERRORS as error:
            raise CommandError(f"RabbitMQ cannot be reached: {type(error).__name__} {error}".rstrip()) from None
        self.stdout.write(f"{taken.messages} messages were taken and are {len(taken.letters)} dead letters now.")
        if waiting > taken.messages:
            self.stdout.write(f"{waiting - taken.messages} still wait in {queue}.")
        if asked:
            raise CommandError("Interrupted: nothing was replayed. `replay_dlq` replays them.", returncode=FAILED_AGAIN)
        if taken.letters:
            self.replay(selection=Selection(ids=taken.letters), cut_off=now(), pace=pace, note=note, options=options)


def tell(run: ReplayRun) -> None:
    """Raises `CommandError` with exit code 1 unless all is well."""
    if run.state == ReplayRun.State.PAUSED:
        raise CommandError(f"Replay {run.pk} is paused. {run.note}", returncode=FAILED_AGAIN)
    if run.state == ReplayRun.State.CANCELLED:
        raise CommandError(f"Replay {run.pk} was cancelled. {run.note}", returncode=FAILED_AGAIN)
    if run.failures:
        raise CommandError(f"{run.failures} of {run.handled} failed again.", returncode=FAILED_AGAIN)
