"""`manage.py replay_dlq`: plan a replay of dead letters, start it, and follow it to its end.

The run is a row, and the cluster of workers goes on with it if this process ends; while it lives it helps. Exit code 0
means that all is well, 1 that some failed again or that the run is not finished, 2 that the arguments make no sense.
"""

import signal
import sys
import time
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime, parse_time
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kanikojobs import amqp
from kanikojobs.audit import ReasonMissing, at_the_command_line
from kanikojobs.models import DeadLetter, FailureGroup, ReplayRun
from kanikojobs.replay import from_broker, running, runs
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import NothingToReplay, Pace, PaceError
from kanikojobs.replay.selection import Selection, SelectionError, parse
from kanikojobs.replay.tables import as_text, plan_table, result_table

FAILED_AGAIN, USAGE = 1, 2
FEWEST_CHARACTERS_OF_A_GROUP = 8


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
            "--from-broker", action="store_true", help="Take messages straight from RabbitMQ's dead-letter queue."
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
        note = options["note"] or "Replayed from the command line."
        if options["from_broker"]:
            self.from_broker(selection=selection, pace=pace, options=options)
            return
        planned = plan(selection=selection, most=options["limit"])
        self.stdout.write(as_text(plan_table(planned, rate=pace.rate, limit=options["limit"])))
        if not planned.total:
            self.stdout.write("There is nothing to replay.")
            return
        if not self.confirmed(options, question=f"Replay {min(planned.total, options['limit'] or planned.total)}?"):
            self.stdout.write("Nothing was replayed. Add --yes to do it.")
            return
        try:
            run = runs.start(
                selection=selection,
                cut_off=planned.cut_off,
                pace=pace,
                author=at_the_command_line(),
                reason=note,
                limit=options["limit"],
            )
        except NothingToReplay as nothing:
            self.stdout.write(str(nothing))
            return
        except ReasonMissing as missing:
            raise CommandError(f"--note: {missing}", returncode=USAGE) from None
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

    def from_broker(self, *, selection: Selection, pace: Pace, options: dict[str, Any]) -> None:
        if selection != Selection() or pace.probe or pace.max_failure_rate is not None:
            raise CommandError(
                "--from-broker takes messages as they come: it knows --limit, --rate and --batch only.",
                returncode=USAGE,
            )
        if not settings.RABBITMQ_URL:
            raise CommandError("RABBITMQ_URL is not set. Write amqp://user:password@host:5672/.", returncode=USAGE)
        url, queue = settings.RABBITMQ_URL, settings.KANIKOJOBS_DLQ
        try:
            waiting = from_broker.depth(url, queue=queue)
            count = min(waiting, options["limit"] or waiting)
            self.stdout.write(f"{waiting} messages wait in {queue}.")
            if not count or not self.confirmed(options, question=f"Take {count}?"):
                self.stdout.write("Nothing was taken." + (" Add --yes to do it." if count else ""))
                return
            asked: list[int] = []
            with _stopping_on(signal.SIGINT, signal.SIGTERM, into=asked), _progress("taking", total=count) as bar:
                taken = from_broker.replay(
                    url,
                    queue=queue,
                    batch=pace.batch,
                    rate=pace.rate,
                    limit=options["limit"],
                    on_progress=lambda taken: bar.update(bar.task_ids[0], completed=taken.messages),
                    stopped=lambda: bool(asked),
                )
        except amqp.CONNECTION_ERRORS as error:
            raise CommandError(f"RabbitMQ cannot be reached: {type(error).__name__} {error}".rstrip()) from None
        self.stdout.write(
            f"{taken.messages} messages: {taken.recorded} queued for a build, {taken.duplicates} duplicates, "
            f"{taken.dead} dead again, {taken.not_ours} not ours"
        )
        if taken.dead:
            raise CommandError(f"{taken.dead} of {taken.messages} failed again.", returncode=FAILED_AGAIN)


def selection_of(options: dict[str, Any]) -> Selection:
    """Raises `SelectionError`."""
    causes = [reason for reason in options["reason"] if reason in DeadLetter.Cause.values]
    reasons = [reason for reason in options["reason"] if reason not in DeadLetter.Cause.values]
    if len(reasons) > 1:
        raise SelectionError(f"--reason: one Kaniko Job's reason at a time, not {' and '.join(reasons)}")
    if reasons and not reasons[0].isalnum():
        raise SelectionError(f"--reason: {reasons[0]!r} is neither a cause nor a CamelCase reason")
    return parse(
        {
            "ids": options["id"],
            "groups": [fingerprint_of(group) for group in options["group"]],
            "causes": causes,
            "reason": reasons[0] if reasons else "",
            "third_party_id": options["third_party"],
            "parser_id": options["parser"],
            "died_from": moment_of("--since", options["since"]),
            "died_until": moment_of("--until", options["until"]),
        }
    )


def fingerprint_of(group: str) -> str:
    """The whole fingerprint of a group by its start. Raises `SelectionError`."""
    if len(group) < FEWEST_CHARACTERS_OF_A_GROUP:
        raise SelectionError(f"--group: write at least {FEWEST_CHARACTERS_OF_A_GROUP} characters of its fingerprint")
    found = list(FailureGroup.objects.filter(fingerprint__startswith=group).values_list("fingerprint", flat=True)[:2])
    if len(found) != 1:
        raise SelectionError(f"--group: {'no group starts' if not found else 'several groups start'} with {group!r}")
    return found[0]


def moment_of(option: str, text: str | None) -> str | None:
    """A time of today as a whole one. Raises `SelectionError`."""
    if not text:
        return None
    try:
        if clock := parse_time(text):
            return datetime.combine(timezone.now().date(), clock, tzinfo=UTC).isoformat()
        if moment := parse_datetime(text):
            return (moment if timezone.is_aware(moment) else timezone.make_aware(moment)).isoformat()
    except ValueError:
        pass
    raise SelectionError(f"{option}: {text!r} is no time; write 14:00 (today, UTC) or 2026-01-31T14:00:00Z")


def follow(run: ReplayRun, *, wait: float) -> ReplayRun:
    """Drive the run until it is over, or until `wait` seconds after its last item. Ctrl-C pauses it."""
    asked: list[int] = []
    with _stopping_on(signal.SIGINT, signal.SIGTERM, into=asked), _progress("replaying", total=run.total) as progress:
        all_out_at: float | None = None
        while run.is_live and not asked:
            for due in running.claim_due(run_id=run.pk):
                running.advance(due, seconds=1)
            run.refresh_from_db()
            progress.update(progress.task_ids[0], completed=run.handled)
            if run.state == ReplayRun.State.SETTLING:
                all_out_at = all_out_at or time.monotonic()
                if time.monotonic() - all_out_at >= wait:
                    break
            time.sleep(min(0.2, max(0.0, (run.next_step_at - timezone.now()).total_seconds())))
    if asked and run.is_live:
        reason = f"Interrupted ({signal.Signals(asked[0]).name})."
        runs.pause(run_id=run.pk, author=at_the_command_line(), reason=reason)
        run.refresh_from_db()
    return run


class _stopping_on:  # noqa: N801 - reads as a statement
    """Within it these signals are noted instead of ending the process."""

    def __init__(self, *numbers: signal.Signals, into: list[int]) -> None:
        self.numbers, self.into = numbers, into
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        try:
            for number in self.numbers:
                self.before[number] = signal.signal(number, lambda received, _frame: self.into.append(received))
        except ValueError:
            pass  # not in the main thread, where no signal arrives

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _progress(word: str, *, total: int) -> Progress:
    """A bar on the terminal, none elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    progress.add_task(word, total=total)
    return progress


def tell(run: ReplayRun) -> None:
    """Raises `CommandError` with exit code 1 unless all is well."""
    if run.state == ReplayRun.State.PAUSED:
        raise CommandError(f"Replay {run.pk} is paused. {run.note}", returncode=FAILED_AGAIN)
    if run.state == ReplayRun.State.CANCELLED:
        raise CommandError(f"Replay {run.pk} was cancelled. {run.note}", returncode=FAILED_AGAIN)
    if run.failures:
        raise CommandError(f"{run.failures} of {run.handled} failed again.", returncode=FAILED_AGAIN)
