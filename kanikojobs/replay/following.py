"""A run that somebody follows on a terminal: driven along with the cluster, shown as a bar, paused by Ctrl-C."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from django.utils import timezone
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kanikojobs.audit import at_the_command_line
from kanikojobs.models import ReplayRun
from kanikojobs.replay import running, runs


def follow(run: ReplayRun, *, wait: float) -> ReplayRun:
    """Drive the run until it is over, or until `wait` seconds after its last item. Ctrl-C pauses it."""
    asked: list[int] = []
    with stopping_on(signal.SIGINT, signal.SIGTERM, into=asked), progress_bar("replaying", total=run.total) as progress:
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
            # Never at once: this clock may be ahead of the database's, or somebody else may be taking the step.
            time.sleep(min(0.2, max(0.02, (run.next_step_at - timezone.now()).total_seconds())))
    if asked and run.is_live:
        reason = f"Interrupted ({signal.Signals(asked[0]).name})."
        runs.pause(run_id=run.pk, author=at_the_command_line(), reason=reason)
        run.refresh_from_db()
    return run


@contextmanager
def stopping_on(*numbers: signal.Signals, into: list[int]) -> Iterator[None]:
    """Within it these signals are noted instead of ending the process."""
    before = {}
    try:
        for number in numbers:
            before[number] = signal.signal(number, lambda received, _frame: into.append(received))
    except ValueError:
        pass  # not in the main thread, where no signal arrives
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress_bar(word: str, *, total: int) -> Progress:
    """A bar on the terminal, none elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn(word), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = Progress(*columns, console=console, disable=not console.is_terminal)
    progress.add_task(word, total=total)
    return progress
