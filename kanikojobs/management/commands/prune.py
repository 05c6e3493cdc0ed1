"""`manage.py prune`: remove what is old and needed by nobody. The removing is `kanikojobs.retention`."""

from collections.abc import Mapping
from typing import IO, Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from kanikojobs.models import PruneRun
from kanikojobs.retention import pruning
from kanikojobs.retention.ages import ages
from kanikojobs.retention.kinds import KINDS, NAMES
from kanikojobs.retention.pruning import Batch


class Command(BaseCommand):
    help = (
        "Removes rows that are older than the KANIKOJOBS_KEEP_… settings say, in small batches, beside the work that "
        "goes on. It may be interrupted or killed at any time; the next one goes on where it was. The cluster of "
        "workers does the same every day at KANIKOJOBS_PRUNE_AT."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only count what would go.")
        parser.add_argument(
            "--share",
            type=float,
            default=pruning.SHARE,
            metavar="PERCENT",
            help="How much of the time is spent on it; the rest belongs to the work (default: %(default)g).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["share"] <= 100:
            raise CommandError("--share must be more than 0 and at most 100.")
        console = Console(file=cast("IO[str]", self.stdout), soft_wrap=True)
        if options["dry_run"]:
            console.print(_table(pruning.plan(), title="would be removed"))
            return
        told = Console(stderr=True)
        # The counting costs some seconds on a long history: only for a person who looks on.
        total = sum(pruning.plan().values()) if told.is_terminal else None
        run = pruning.begin()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=told, disable=not told.is_terminal) as bar:
            task = bar.add_task("pruning", total=total)

            def step(batch: Batch) -> None:
                bar.update(task, description=batch.kind, advance=sum(batch.removed.values()))

            try:
                pruning.prune(share=options["share"], on_batch=step)
            except KeyboardInterrupt:
                raise CommandError("Interrupted. The next one goes on from here.", returncode=130) from None
        console.print(_table(PruneRun.objects.get(pk=run.pk).removed, title="removed"))


def _table(counts: Mapping[str, int], *, title: str) -> Table:
    table = Table("kind", "kept for", title)
    table.columns[2].justify = "right"
    kept = ages()
    for name in NAMES:
        # What has no age of its own goes with something else.
        age = kept[KINDS[name].kept] if name in KINDS else None
        lasting = "" if age is None else f"{age.total_seconds() / 86400:g} days" if age else "ever"
        table.add_row(name, lasting, f"{counts.get(name, 0):,}")
    return table
