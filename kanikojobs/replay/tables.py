"""A plan and a run as tables for a terminal or a log."""

import shutil
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kanikojobs.models import ReplayItem, ReplayRun
from kanikojobs.replay import results
from kanikojobs.replay.plan import ReplayPlan

DESCRIPTIONS = {
    ReplayItem.Outcome.QUEUED: "queued for a build",
    ReplayItem.Outcome.DUPLICATE: "same event as another one here",
    ReplayItem.Outcome.ALREADY_BUILT: "built already",
    ReplayItem.Outcome.ACTIVE: "has an active Job",
    ReplayItem.Outcome.INVALID: "still invalid",
    ReplayItem.Outcome.CONFLICT: "identity taken by other content",
    ReplayItem.Outcome.NOT_OURS: "not for this system",
    ReplayItem.Outcome.GONE: "settled by somebody else meanwhile",
    ReplayItem.Outcome.WITHDRAWN: "withdrawn",
}


def as_text(table: Table) -> str:
    """The table as wide as the terminal; 100 columns where there is none."""
    out = StringIO()
    Console(file=out, width=shutil.get_terminal_size((100, 24)).columns).print(table)
    return out.getvalue()


def plan_table(planned: ReplayPlan, *, rate: float | None, limit: int | None) -> Table:
    """What would happen."""
    table = Table(title=Text(f"Plan: {planned.selection}"), title_justify="left")
    table.add_column("what would come of them")
    table.add_column("dead letters", justify="right")
    for outcome, description in DESCRIPTIONS.items():
        if planned.of(outcome):
            table.add_row(description, str(planned.of(outcome)))
    table.add_section()
    table.add_row("in all" if planned.is_whole or limit else f"in all, of {planned.total}", str(planned.counted))
    if planned.elsewhere:
        table.add_row("besides, waiting in another replay", str(planned.elsewhere))
    table.add_row("cut-off", f"{planned.cut_off:%Y-%m-%d %H:%M:%S %Z}")
    table.add_row("estimated time to hand over", f"{planned.seconds(rate=rate, limit=limit):.0f} s")
    for problem in planned.problems:
        table.add_section()
        first = problem.message.splitlines()[0][:200] if problem.message else ""
        # What an event says is hostile text: not to be read as rich's markup.
        words = Text(f"{DESCRIPTIONS[problem.outcome]}: {first} (for example {problem.example})")
        table.add_row(words, str(problem.count))
    return table


def result_table(run: ReplayRun) -> Table:
    """What has happened."""
    table = Table(title=f"Replay {run.pk}: {run.state}", title_justify="left")
    table.add_column("what came of them")
    table.add_column("dead letters", justify="right")
    for outcome, description in DESCRIPTIONS.items():
        if count := getattr(run, outcome.value.replace("-", "_")):
            table.add_row(description, str(count))
    if waiting := run.total - run.handled - run.withdrawn:
        table.add_row("wait", str(waiting))
    table.add_section()
    table.add_row("of the queued: got past where they died", str(run.passed))
    table.add_row("of the queued: failed again", str(run.failed_again))
    table.add_row("of the queued: no result yet", str(results.unknown(run)))
    return table
