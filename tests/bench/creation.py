"""From queued rows to Jobs in Kubernetes: how fast a burst is created, how soon a lone event, and at what cost.

All contenders create the same rows' Jobs on the same simulated API server with five workers, which are started and
idle before the rows are there. A burst ends when the server has the last Job and, where records are kept, the last
attempt is closed. The baselines are in `creators.py` and `orm_broker.py`.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import uniform
from typing import Any

import pika
import psycopg

from deploy.local.process_tree import tree
from deploy.local.processes import Child
from deploy.local.simulator import Simulator
from tests.bench.harness import Bench, Case, Contender, Sample
from tests.sample_events import sample_event

WORKERS = 5
BURST = 2_000
LONE_EVENTS = 200
HISTORY, LONG_HISTORY = 1_000, 1_000_000
TICKS = os.sysconf("SC_CLK_TCK")
QUEUE = "bench-creation"
ENVIRONMENT = {
    "KANIKOJOBS_QUEUE": QUEUE,
    "KANIKOJOBS_DLQ": f"{QUEUE}.dlq",
    "KANIKOJOBS_DLX": f"{QUEUE}.dlx",
    "KANIKOJOBS_WORKER_COUNT": str(WORKERS),
}

UNITS = {"rate": "Jobs/s", "cpu": "ms/Job"}


def cases(bench: Bench) -> list[Case]:
    bench.migrate()
    simulator(bench).settings(run_seconds=3600)
    subprocess.run(
        [sys.executable, "manage.py", "declare_topology"],
        env=bench.environment() | ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    burst = bench.amount(BURST)
    ours = Contender("qcluster", partial(by_cluster, bench, count=burst))
    return [
        Case(
            name="creation: a burst",
            units=UNITS,
            ours=ours,
            baselines=[
                Contender("simplest, same records", partial(by_program, bench, "simplest", count=burst)),
                Contender("posts only, no records", partial(by_program, bench, "post", count=burst)),
                Contender("create_namespaced_job, no records", partial(by_program, bench, "client", count=burst)),
                Contender("Django-Q2's ORM broker", partial(by_orm_broker, bench, count=burst)),
            ],
        ),
        Case(
            name="creation: a lone event",
            units={"median": "ms", "99th percentile": "ms"},
            ours=Contender("publish to Job", partial(latency, bench)),
        ),
        Case(
            name="creation: after 1,000,000 builds",
            units=UNITS,
            ours=Contender(
                "1,000,000 finished rows",
                partial(by_cluster, bench, count=burst, history=bench.amount(LONG_HISTORY)),
            ),
            baselines=[Contender("1,000 finished rows", partial(by_cluster, bench, count=burst, history=HISTORY))],
        ),
    ]


def by_cluster(bench: Bench, *, count: int, history: int = 0) -> Sample:
    """The burst by `manage.py qcluster`, with its settings and its log."""
    database = with_history(bench, finished=history) if history else empty(bench)
    simulator(bench).reset()
    with command(bench, "qcluster", DATABASE_URL=database) as cluster:
        return burst(bench, cluster, database=database, count=count, start=partial(queue_rows, database, count=count))


def by_program(bench: Bench, program: str, *, count: int) -> Sample:
    """The burst by one of the programs in `creators.py`."""
    database = empty(bench)
    queue_rows(database, count=count)
    simulator(bench).reset()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.creators", program, str(WORKERS)],
        env=bench.environment() | ENVIRONMENT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{program} did not start")
        started = time.time()
        process.stdin.write("\n")
        process.stdin.flush()
        cpu_seconds = json.loads(process.stdout.readline())["cpu_seconds"]
    ended = end_of(bench, database=database, count=count, recorded=program == "simplest")
    return {"rate": count / (ended - started), "cpu": cpu_seconds / count * 1e3}


def by_orm_broker(bench: Bench, *, count: int) -> Sample:
    """The burst as tasks of Django-Q2 as it comes."""
    database = empty(bench)
    queue_rows(database, count=count)
    simulator(bench).reset()
    bench.run_program("tests.bench.orm_broker", env=ENVIRONMENT)
    with command(bench, "qcluster", DJANGO_SETTINGS_MODULE="tests.bench.orm_broker") as cluster:
        return burst(bench, cluster, database=database, count=count, start=partial(unlock_tasks, database))


def unlock_tasks(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("UPDATE django_q_ormq SET lock = now() - interval '1 second'")


def burst(bench: Bench, cluster: Child, *, database: str, count: int, start: Callable[[], object]) -> Sample:
    """Start a burst for a cluster at rest and measure until all is created and recorded."""
    before = cpu_seconds_of(cluster.pid)
    start()
    started = time.time()
    ended = end_of(bench, database=database, count=count, recorded=True)
    return {"rate": count / (ended - started), "cpu": (cpu_seconds_of(cluster.pid) - before) / count * 1e3}


def end_of(bench: Bench, *, database: str, count: int, recorded: bool) -> float:
    """Wait until the API server has so many Jobs and, if recorded, all attempts are closed; return when that was."""
    deadline = time.monotonic() + 170
    closed_at = 0.0
    with psycopg.connect(database, autocommit=True) as connection:
        while recorded and one_row(connection, "SELECT count(*) FROM kanikojobs_kanikojob WHERE state = 'created'") != (
            count,
        ):
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all {count} Jobs were created in time")
            time.sleep(0.2)
        if recorded:
            (closed_at,) = one_row(
                connection,
                "SELECT extract(epoch FROM max(finished_at))::float8 FROM kanikojobs_jobattempt",
            )
    stats = simulator(bench).stats()
    if (stats["creates"]["total"], stats["creates"]["identities"]) != (count, count):
        raise RuntimeError(f"the server has {stats['creates']['total']} Jobs, not {count}")
    return max([closed_at, *(entry["at"] for entry in stats["sequence"] if entry["do"] == "create")])


def latency(bench: Bench) -> Sample:
    """Publish lone events, and see when the API server has their Jobs."""
    count = bench.amount(LONE_EVENTS)
    database = empty(bench)
    simulator(bench).reset()
    events = [sample_event(n, seed="lone") for n in range(count + 1)]
    published: dict[str, float] = {}
    properties = pika.BasicProperties(content_type="application/cloudevents+json", delivery_mode=2)
    with command(bench, "consume_queue"), command(bench, "qcluster"):
        with pika.BlockingConnection(pika.URLParameters(bench.stack.rabbitmq.url)) as connection:
            channel = connection.channel()
            for event in events:
                published[event["id"]] = time.time()
                channel.basic_publish("", QUEUE, json.dumps(event).encode(), properties)
                connection.sleep(uniform(0.03, 0.12))
        end_of(bench, database=database, count=count + 1, recorded=True)
    sequence = simulator(bench).stats()["sequence"]
    created = {entry["identity"].split("|")[1]: entry["at"] for entry in sequence if entry["do"] == "create"}
    seconds = sorted(created[event["id"]] - published[event["id"]] for event in events[1:])
    return {
        "median": statistics.median(seconds) * 1000,
        "99th percentile": seconds[int(len(seconds) * 0.99)] * 1000,
    }


@contextmanager
def command(bench: Bench, name: str, **environment: str) -> Iterator[Child]:
    """A command of ours, started and at rest."""
    child = Child(
        name=name,
        command=[sys.executable, "manage.py", name],
        log=bench.stack.folder / "logs" / f"bench-{name}.log",
        env=bench.environment() | ENVIRONMENT | environment,
    )
    child.start()
    try:
        wait_until_at_rest(child)
        yield child
    finally:
        child.stop()


def wait_until_at_rest(child: Child) -> None:
    """Waits until the processes below it are all there and use no more CPU time for a second."""
    deadline = time.monotonic() + 60
    before, since = -1.0, time.monotonic()
    while time.monotonic() - since < 1.0:
        if time.monotonic() > deadline or not child.running:
            raise RuntimeError(f"{child.name} did not come to rest\n{child.log_tail()}")
        time.sleep(0.1)
        now = cpu_seconds_of(child.pid)
        if now - before > 0.05 or now < 0.5:
            before, since = now, time.monotonic()


def cpu_seconds_of(pid: int) -> float:
    """CPU time of a process and all below it, those that have ended included."""
    total = 0
    for member in tree(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(") ")[2].split()
        except FileNotFoundError:
            continue
        total += sum(map(int, fields[11:15]))
    return total / TICKS


def queue_rows(database: str, *, count: int) -> None:
    """Rows as intake writes them, in one transaction that wakes the queue when it commits."""
    with psycopg.connect(database) as connection:
        (before,) = one_row(connection, "SELECT count(*) FROM kanikojobs_jobstartevent")
        events = [sample_event(n, seed="bench") for n in range(before, before + count)]
        with connection.cursor() as cursor:
            cursor.executemany(ROWS, [columns_of(event) for event in events])
        connection.execute("SELECT pg_notify('kanikojobs_queued', '')")


ROWS = """
    WITH event AS (
        INSERT INTO kanikojobs_jobstartevent (
            event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id, parser_id,
            correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout, content_hash, origin
        ) VALUES (
            %(id)s, %(source)s, %(type)s, '1.0', '', 'application/json', '', %(data)s, %(third_party_id)s,
            %(parser_id)s, %(correlation_id)s, %(job_name)s, %(priority)s, 'container', %(runtime)s, %(source_url)s,
            1800, %(content_hash)s, 'queue'
        ) RETURNING id, priority, third_party_id, parser_id
    )
    INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id)
    SELECT id, 'bench-' || id, 'kaniko-builds', priority, third_party_id, parser_id FROM event
"""


def columns_of(event: Mapping[str, Any]) -> dict[str, Any]:
    data = event["data"]
    content_hash = sha256(event["id"].encode()).digest()
    return {**event, **data, **data["parameters"], "data": json.dumps(data), "content_hash": content_hash}


def empty(bench: Bench) -> str:
    """The bench's database as after `migrate`; returns its URL."""
    url = bench.stack.postgres.url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE kanikojobs_jobstartevent, kanikojobs_deadletter, kanikojobs_tally, kanikojobs_turn,"
            " kanikojobs_outage, django_q_ormq CASCADE"
        )
        connection.execute("CHECKPOINT")
    return url


def with_history(bench: Bench, *, finished: int) -> str:
    """A database of its own, with about so many builds that are over; made when it is first asked for."""
    base = bench.stack.postgres.url
    name = f"history_{finished}"
    url = base.rpartition("/")[0] + f"/{name}"
    with psycopg.connect(base, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            connection.execute(f"CREATE DATABASE {name}")
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "--verbosity=0"],
                env=bench.environment() | {"DATABASE_URL": url},
                check=True,
            )
            with psycopg.connect(url, autocommit=True) as history:
                for statement in HISTORY_ROWS:
                    history.execute(statement, {"count": finished})
    with psycopg.connect(url, autocommit=True) as connection:
        # The last run's builds are over, too.
        connection.execute(
            "UPDATE kanikojobs_kanikojob SET state = 'succeeded', finished_at = now() WHERE state = 'created'"
        )
        # What a database of this age has had from autovacuum.
        connection.execute("VACUUM (ANALYZE) kanikojobs_jobstartevent, kanikojobs_kanikojob, kanikojobs_jobattempt")
        connection.execute("CHECKPOINT")
    return url


HISTORY_ROWS = (
    """
    INSERT INTO kanikojobs_jobstartevent (
        event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id, parser_id,
        correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout, content_hash, origin
    )
    SELECT 'history-' || n, 'bench', 'bench', '1.0', '', 'application/json', '',
        '{"parameters": {"environment": {"NODE_ENV": "production"}}}', md5((n %% 1000)::text), md5(n::text),
        'history-' || n, 'kaniko-job-' || n, n %% 10 + 1, 'container', 'nodejs18', 'https://github.com/notifi/parsers',
        1800, sha256(n::text::bytea), 'queue'
    FROM generate_series(1, %(count)s) n
    """,
    """
    INSERT INTO kanikojobs_kanikojob (
        event_id, name, namespace, priority, third_party_id, parser_id, state, job_uid, created_at, finished_at
    )
    SELECT id, 'history-' || id, 'kaniko-builds', priority, third_party_id, parser_id,
        CASE WHEN id %% 20 = 0 THEN 'failed' ELSE 'succeeded' END, gen_random_uuid(), now(), now()
    FROM kanikojobs_jobstartevent
    """,
    """
    INSERT INTO kanikojobs_jobattempt (kaniko_job_id, number, outcome, http_status, finished_at, duration)
    SELECT id, 1, 'created', 201, now(), 0.01 FROM kanikojobs_kanikojob
    """,
)


def one_row(connection: psycopg.Connection[Any], query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)


def simulator(bench: Bench) -> Simulator:
    assert bench.stack.simulator is not None
    return bench.stack.simulator
