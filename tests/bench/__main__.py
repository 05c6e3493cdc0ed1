"""`python -m tests.bench [GROUP]`: measure, print the table, write `.local/bench.json`."""

import argparse
import importlib
import os
import sys
from pathlib import Path

from rich.console import Console

import tests.bench
from deploy.local.processes import StackError
from deploy.local.stack import LOCAL, LocalStack
from tests.bench.harness import RESULTS, Bench, Result, measure, progress_bar, table_of, write_results


def groups() -> list[str]:
    """The modules here that have cases. Read, not imported: others are programs that are started on their own."""
    folder = Path(tests.bench.__file__).parent
    return sorted(path.stem for path in folder.glob("*.py") if "\ndef cases(" in path.read_text())


def main() -> int:
    """Measures and returns the exit code."""
    there = groups()
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=tests.bench.__doc__)
    parser.add_argument("group", nargs="?", choices=there, help="only this group (default: all)")
    arguments = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)
    results: list[Result] = []
    try:
        with LocalStack(folder=LOCAL / "bench", durable=True) as stack:
            bench = Bench(
                stack=stack,
                runs=int(os.environ.get("BENCH_RUNS", "3")),
                size=float(os.environ.get("BENCH_SIZE", "1")),
            )
            cases = [
                case
                for name in there
                if arguments.group in (None, name)
                for case in importlib.import_module(f"tests.bench.{name}").cases(bench)
            ]
            total = sum((case.runs or bench.runs) * (1 + len(case.baselines)) for case in cases)
            with progress_bar(console, total=total) as step:
                for case in cases:
                    results += measure(case, runs=bench.runs, progress=step)
    except StackError as error:
        console.print(str(error), markup=False)
        return 1
    write_results(results)
    console.print(table_of(results))
    console.print(f"Written to {RESULTS.relative_to(LOCAL.parent)}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
