"""Intake while old rows are pruned, beside intake alone: on 1,000,000 events with all that was written of them.

Both drain the same burst into the same database, in turn. The pruning runs as in production, a tenth of the time;
it is killed at the end of each run, and the next run goes on with what is left. How fast it would be without the rests
is a case of its own.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from itertools import count

import psycopg

from deploy.local.stack import CHECKOUT
from tests.bench import intake
from tests.bench.dead_letters import database
from tests.bench.harness import Bench, Case, Contender, Sample
from tests.sample_events import sample_event
from tests.seed import seed

EVENTS = 1_000_000
BURST = 50_000
ALONE_SECONDS = 10.0
SHARE = 10.0  # percent of the time, as the command's default
# The seeded history is of thirty days. What belongs to an event is to go with it, so that each batch is a heavy one.
ENVIRONMENT = intake.ENVIRONMENT | {"KANIKOJOBS_KEEP_EVENTS": "3d", "KANIKOJOBS_KEEP_ATTEMPTS": "0s"}
FURTHER_ROWS = (
    """
    INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, outcome, http_status, started_at, finished_at, duration)
    SELECT id, 1, 'created', 201, created_at, created_at, 0.01 FROM kanikojobs_kanikojob ORDER BY id
    """,
    """
    INSERT INTO kanikojobs_jobevidence (kaniko_job_id, noted_at, captured_at)
    SELECT id, finished_at, finished_at FROM kanikojobs_kanikojob ORDER BY id
    """,
    "VACUUM ANALYZE",
)

_rounds = count(1)


def cases(bench: Bench) -> list[Case]:
    intake.declare(bench)
    url = seeded(bench, bench.amount(EVENTS))
    return [
        Case(
            name="prune: intake beside it",
            units={"rate": "events/s", "removed": "events/s"},
            ours=Contender("intake while pruning", partial(drained, bench, url, pruning=True)),
            baselines=[Contender("intake alone", partial(drained, bench, url, pruning=False))],
        ),
        Case(
            name="prune: without rests",
            units={"removed": "events/s"},
            ours=Contender("prune --share 100", partial(alone, bench, url)),
        ),
    ]


def seeded(bench: Bench, events: int) -> Callable[[], str]:
    """The URL of a database with so many events, made when first asked for."""

    def make() -> str:
        url, there = database(bench, f"prune_{events}")
        if not there:
            seed(url, events=events, dead_letters=max(1, events // 20))
            with psycopg.connect(url, autocommit=True) as connection:
                for statement in FURTHER_ROWS:
                    connection.execute(statement.encode())
        return url

    return make


def drained(bench: Bench, url: Callable[[], str], *, pruning: bool) -> Sample:
    """Fill the queue with a burst that was never there before, and drain it."""
    events, seed = bench.amount(BURST), f"prune {next(_rounds)} {time.time()}"
    database_url = url()
    intake.publish(bench, [json.dumps(sample_event(n, seed=seed)).encode() for n in range(events)])
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    environment = intake.ENVIRONMENT | {"DATABASE_URL": database_url}
    beside: AbstractContextManager[dict[str, float]] = nullcontext({})
    if pruning:
        beside = pruned(bench, database_url, share=SHARE)
    with beside as sample:
        found = bench.run_program("tests.bench.drains", "consume_queue", intake.QUEUE, str(events), env=environment)
    return {**sample, "rate": events / found["seconds"]}


def alone(bench: Bench, url: Callable[[], str]) -> Sample:
    with pruned(bench, url(), share=100) as sample:
        time.sleep(ALONE_SECONDS)
    return sample


@contextmanager
def pruned(bench: Bench, url: str, *, share: float) -> Iterator[dict[str, float]]:
    """Prune as long as this lasts; what is yielded has, at its end, how many events a second were removed."""
    sample: dict[str, float] = {}
    before = removed(url)
    child = subprocess.Popen(
        [sys.executable, "manage.py", "prune", "--share", str(share)],
        cwd=CHECKOUT,
        env=bench.environment() | ENVIRONMENT | {"DATABASE_URL": url},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while (there := removed(url)) == before:
            if child.poll() is not None:
                raise RuntimeError(f"prune ended with {child.returncode}")
            time.sleep(0.05)
        started = time.perf_counter()
        yield sample
        if child.poll() is not None:
            raise RuntimeError("prune was finished before the measurement: there were too few events")
        sample["removed"] = (removed(url) - there) / (time.perf_counter() - started)
    finally:
        child.kill()
        child.wait()


def removed(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT COALESCE(sum((removed ->> 'events')::bigint), 0) FROM kanikojobs_prunerun"
        ).fetchone()
    return int(row[0]) if row else 0
