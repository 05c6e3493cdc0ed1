"""What every group measures with: cases and their baselines, rounds in turn, medians, ratios, the table, the file."""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from deploy.local.stack import CHECKOUT, LOCAL, LocalStack

RESULTS = LOCAL / "bench.json"

Sample = Mapping[str, float]
"""What one run measured: values by the name of their metric."""


@dataclass(frozen=True, slots=True)
class Contender:
    """One program that is measured: a name, and one run of it, which prepares its own ground and measures."""

    name: str
    run: Callable[[], Sample]


@dataclass(frozen=True, slots=True)
class Case:
    """Something that kanikojobs does, beside the programs that it is compared with.

    `units` gives each metric's unit; only these metrics are reported. The baselines may be none. `runs` overrules how
    often it is run.
    """

    name: str
    units: Mapping[str, str]
    ours: Contender
    baselines: Sequence[Contender] = ()
    runs: int | None = None


@dataclass(slots=True)
class Bench:
    """What a group's cases may use: the servers, and how much to do."""

    stack: LocalStack
    runs: int
    size: float

    def amount(self, whole: int) -> int:
        """So many, scaled by BENCH_SIZE."""
        return max(1, int(whole * self.size))

    def environment(self) -> dict[str, str]:
        """The environment of a process of kanikojobs in the bench."""
        return (
            os.environ
            | self.stack.environment()
            | {
                "DJANGO_SETTINGS_MODULE": "project.settings",
                "DJANGO_DEBUG": "0",
                "DJANGO_SECRET_KEY": "for the bench only, nobody can log in to it",
                "DJANGO_ALLOWED_HOSTS": "localhost",
                "KANIKOJOBS_LOG_FORMAT": "json",
            }
        )

    def migrate(self, *, env: Mapping[str, str] | None = None) -> None:
        """Make the tables, for the groups that need them."""
        subprocess.run(
            [sys.executable, "manage.py", "migrate", "--verbosity=0"],
            cwd=CHECKOUT,
            env=self.environment() | dict(env or {}),
            check=True,
        )

    def empty_tables(self) -> None:
        """As after `migrate`, and nothing left for Postgres to write from before."""
        with psycopg.connect(self.stack.postgres.url, autocommit=True) as connection:
            connection.execute("TRUNCATE kanikojobs_jobstartevent, kanikojobs_deadletter, kanikojobs_tally CASCADE")
            connection.execute("CHECKPOINT")

    def run_program(
        self, module: str, *arguments: str, env: Mapping[str, str] | None = None, seconds: float = 170
    ) -> dict[str, Any]:
        """Run `python -m MODULE` in a process of its own and return the JSON object that is the last line it prints.

        Its standard error, where the log goes, is written to a file as in production.
        """
        log = self.stack.folder / "logs" / f"{module}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            done = subprocess.run(
                [sys.executable, "-m", module, *arguments],
                cwd=CHECKOUT,
                env=self.environment() | dict(env or {}),
                stdout=subprocess.PIPE,
                stderr=errors,
                timeout=seconds,
            )
        if done.returncode != 0:
            raise RuntimeError(f"{module} {' '.join(arguments)} ended with {done.returncode}, see {log}")
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


@dataclass(slots=True)
class Result:
    """One metric of one case, with a baseline or without."""

    case: str
    metric: str
    unit: str
    values: list[float]
    baseline: str | None = None
    baseline_values: list[float] = field(default_factory=list)

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        """The median of the rounds' ratios: what disturbs one round disturbs both of its runs."""
        if not self.baseline_values or not all(self.baseline_values):
            return None
        return statistics.median(a / b for a, b in zip(self.values, self.baseline_values, strict=True))

    def as_json(self) -> dict[str, Any]:
        ratio = self.ratio
        return {
            "case": self.case,
            "metric": self.metric,
            "value": round(self.value, 3),
            "unit": self.unit,
            "baseline": self.baseline,
            "ratio": None if ratio is None else round(ratio, 3),
            "runs": len(self.values),
        }


def measure(case: Case, *, runs: int, progress: Callable[[str], None]) -> list[Result]:
    """Run a case and its baselines in turn, so many times each."""
    contenders = [case.ours, *case.baselines]
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for round_number in range(case.runs or runs):
        # The order turns round, so that nobody always runs on the ground that another has warmed.
        for contender in contenders if round_number % 2 == 0 else reversed(contenders):
            progress(f"{case.name}: {contender.name}")
            samples[contender.name].append(contender.run())
    return list(_results(case, samples))


def _results(case: Case, samples: Mapping[str, list[Sample]]) -> Iterator[Result]:
    for metric, unit in case.units.items():
        ours = [sample[metric] for sample in samples[case.ours.name] if metric in sample]
        if not ours:
            continue
        compared = [other for other in case.baselines if all(metric in sample for sample in samples[other.name])]
        for other in compared:
            theirs = [sample[metric] for sample in samples[other.name]]
            yield Result(case.name, metric, unit, ours, other.name, theirs)
        if not compared:
            yield Result(case.name, metric, unit, ours)


def table_of(results: Sequence[Result]) -> Table:
    table = Table(title="medians")
    for title in ("case", "metric", "ours", "unit", "baseline", "its median", "ratio", "runs", "spread"):
        table.add_column(title, justify="left" if title in ("case", "metric", "unit", "baseline") else "right")
    before = ""
    for result in results:
        if before and before != result.case:
            table.add_section()
        ratio = result.ratio
        table.add_row(
            result.case if result.case != before else "",
            result.metric,
            number(result.value),
            result.unit,
            result.baseline or "",
            number(statistics.median(result.baseline_values)) if result.baseline_values else "",
            "" if ratio is None else f"{ratio:.2f}",
            str(len(result.values)),
            f"{number(min(result.values))} to {number(max(result.values))}",
        )
        before = result.case
    return table


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def write_results(results: Sequence[Result], *, path: Path = RESULTS) -> None:
    """Add results to the file, in the place of earlier ones of the same cases."""
    kept = []
    if path.exists():
        cases = {result.case for result in results}
        kept = [entry for entry in json.loads(path.read_text()) if entry["case"] not in cases]
    path.write_text(json.dumps([*kept, *(result.as_json() for result in results)], indent=1) + "\n")


@contextmanager
def progress_bar(console: Console, *, total: int) -> Iterator[Callable[[str], None]]:
    """Counts runs on a terminal. Elsewhere each run is a line."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        started = 0

        def step(what: str) -> None:
            nonlocal started
            bar.update(task, description=what, completed=started)
            started += 1
            if not console.is_terminal:
                console.print(f"[{started}/{total}] {what}", highlight=False)

        yield step
        bar.update(task, completed=total)
