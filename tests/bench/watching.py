"""From the server's change to the row: how late, through breaks and kills; and what watching costs when all is quiet.

The watcher is a process of its own, `manage.py watch_jobs`. What the rows should say is what was scripted.
"""

import time
from functools import partial

from tests.bench.harness import Bench, Case, Contender, Sample

ENDED, IDLE, IDLE_SECONDS, EVENTS = 1_000, 5_000, 60, 200


def cases(bench: Bench) -> list[Case]:
    bench.migrate()
    return [
        Case(
            name="watching: all outcomes, 50 breaks, 10 times 410, 5 kills",
            units={
                "wrong rows": "rows",
                "lag, median": "ms",
                "lag, 99th percentile": "ms",
                "lag in breaks, 99th percentile": "ms",
            },
            ours=Contender("watch_jobs", partial(ended, bench)),
        ),
        Case(
            name="watching: active Jobs, nothing changes",
            units={"CPU": "% of a core", "memory": "MB", "memory growth": "MB", "CPU of a list": "s"},
            ours=Contender("watch_jobs", partial(idle, bench)),
        ),
        *(
            Case(
                name=f"concurrency: {policy}, 3 clusters, 10 parsers",
                units={"most at once": "Jobs", "out of order": "Jobs", "unfinished": "rows", "time": "s"},
                ours=Contender("qcluster", partial(concurrency, bench, policy)),
            )
            for policy in ("Queue", "Allow", "Forbid", "Replace")
        ),
    ]


def concurrency(bench: Bench, policy: str) -> Sample:
    _fresh(bench)
    return bench.run_program(
        "tests.bench.programs.watched",
        "concurrency",
        str(bench.amount(EVENTS)),
        env={"KANIKOJOBS_CONCURRENCY_POLICY": policy},
    )


def ended(bench: Bench) -> Sample:
    _fresh(bench)
    return bench.run_program("tests.bench.programs.watched", "ended", str(bench.amount(ENDED)))


def idle(bench: Bench) -> Sample:
    _fresh(bench)
    return bench.run_program(
        "tests.bench.programs.watched", "idle", str(bench.amount(IDLE)), str(IDLE_SECONDS * min(1.0, bench.size))
    )


def _fresh(bench: Bench) -> None:
    simulator = bench.stack.simulator
    if simulator is None:
        raise RuntimeError("this bench scripts the simulated cluster, and a real one was asked for")
    simulator.start()
    simulator.reset()
    time.sleep(0.1)
