"""The programs that the bench of creation compares with: `python -m tests.bench.creators NAME PROCESSES`.

`simplest` keeps the same records with the least code: each process claims a row, posts its manifest over a connection
that stays open, and writes attempt and state in one transaction. `post` posts manifests that were made before, and
records nothing. `client` does so through the kubernetes package's own call. Each waits for a line on standard input,
works until nothing is left, and prints its CPU seconds.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import urllib3
import yaml

CLAIM = """
    UPDATE kanikojobs_kanikojob job SET state = 'creating', claim = %s, creating_at = clock_timestamp(),
        leased_until = clock_timestamp() + interval '90 seconds'
    FROM kanikojobs_jobstartevent event
    WHERE event.id = job.event_id AND job.id = ({which})
    RETURNING job.id, {fields}
"""
NEXT = """
    SELECT id FROM kanikojobs_kanikojob WHERE state = 'queued' AND run_at IS NULL
    ORDER BY priority, id LIMIT 1 FOR UPDATE SKIP LOCKED
"""
ATTEMPT = """
    INSERT INTO kanikojobs_jobattempt
        (kaniko_job_id, number, outcome, http_status, worker, started_at, finished_at, duration)
    VALUES (%s, 1, 'created', 201, %s, clock_timestamp() - make_interval(secs => %s), clock_timestamp(), %s)
"""
CREATED = """
    UPDATE kanikojobs_kanikojob SET state = 'created', job_uid = %s, created_at = clock_timestamp(), claim = NULL,
        leased_until = NULL
    WHERE id = %s AND claim = %s
"""
# What a manifest is made of, and where it is in the rows.
FIELDS = {
    "number": "job.number",
    "source": "event.source",
    "event_id": "event.event_id",
    "third_party_id": "event.third_party_id",
    "parser_id": "event.parser_id",
    "correlation_id": "event.correlation_id",
    "job_name": "event.job_name",
    "priority": "event.priority",
    "runtime": "event.runtime",
    "source_url": "event.source_url",
    "build_timeout": "event.build_timeout",
    "environment": "event.data -> 'parameters' -> 'environment'",
}


def simplest(share: int, of: int) -> None:
    """One process of the simplest program that keeps the same records."""
    create_next = creator(which=NEXT)
    ready()
    while create_next([]):
        pass


def creator(*, which: str) -> Callable[[list[Any]], bool]:
    """What creates the Job of one row, chosen by a query with its parameters; it returns whether there was one."""
    import django

    django.setup()
    from kanikojobs.manifest import job_manifest
    from kanikojobs.manifest.builds import Build
    from kanikojobs.manifest.settings import build_options

    options, send, token, worker = build_options(), poster(), uuid4(), f"simplest/{os.getpid()}"
    connection = psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)
    claim = CLAIM.format(which=which, fields=", ".join(FIELDS.values()))

    def create(parameters: list[Any]) -> bool:
        row = connection.execute(claim, [token, *parameters], prepare=True).fetchone()
        if row is None:
            return False
        body = job_manifest(build=Build(**dict(zip(FIELDS, row[1:], strict=True))), options=options)
        started = time.monotonic()
        uid = send(json.dumps(body).encode())
        seconds = time.monotonic() - started
        with connection.transaction():
            connection.execute(ATTEMPT, [row[0], worker, seconds, seconds], prepare=True)
            connection.execute(CREATED, [uid, row[0], token], prepare=True)
        return True

    return create


def post(share: int, of: int) -> None:
    """One process that only posts its share of what is queued."""
    bodies = [json.dumps(body).encode() for body in queued(share, of)]
    send = poster()
    ready()
    for body in bodies:
        send(body)


def client(share: int, of: int) -> None:
    """As `post`, through BatchV1Api.create_namespaced_job."""
    from kubernetes import client as kubernetes
    from kubernetes import config

    bodies = list(queued(share, of))
    api = kubernetes.BatchV1Api(config.new_client_from_config(config_file=os.environ["KUBECONFIG"]))
    ready()
    for body in bodies:
        api.create_namespaced_job(body["metadata"]["namespace"], body)  # type: ignore[arg-type]


def queued(share: int, of: int) -> Iterator[dict[str, Any]]:
    """The manifests of every so many-th queued row."""
    import django

    django.setup()
    from kanikojobs.manifest import job_manifest
    from kanikojobs.manifest.builds import Build
    from kanikojobs.manifest.settings import build_options

    with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
        rows = connection.execute(
            f"SELECT {', '.join(FIELDS.values())} FROM kanikojobs_kanikojob job JOIN kanikojobs_jobstartevent event"  # noqa: S608
            " ON event.id = job.event_id WHERE job.state = 'queued' AND job.id %% %s = %s",
            [of, share],
        ).fetchall()
    for row in rows:
        yield job_manifest(build=Build(**dict(zip(FIELDS, row, strict=True))), options=build_options())


def poster() -> Callable[[bytes], UUID]:
    """Posts to the API server over one connection that stays open; gives the new Job's uid."""
    with open(os.environ["KUBECONFIG"]) as file:  # noqa: PTH123 - a program of few imports
        kubeconfig = yaml.safe_load(file)
    server = kubeconfig["clusters"][0]["cluster"]["server"]
    token = kubeconfig["users"][0]["user"].get("token", "")
    namespace = os.environ.get("KANIKOJOBS_NAMESPACE", "kaniko-builds")
    pool = urllib3.connection_from_url(server)
    headers = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": f"Bearer {token}"}

    def send(body: bytes) -> UUID:
        answer = pool.request("POST", f"/apis/batch/v1/namespaces/{namespace}/jobs", body=body, headers=headers)
        if answer.status != 201:
            raise RuntimeError(answer.data)
        return UUID(json.loads(answer.data)["metadata"]["uid"])

    return send


_started = multiprocessing.Event()
_ready = multiprocessing.Semaphore(0)
_cpu_seconds = multiprocessing.Value("d", 0.0)


def ready() -> None:
    """Says that this process is ready and waits for the others."""
    _ready.release()
    _started.wait()
    _add_cpu_seconds(-1)


def _add_cpu_seconds(sign: int) -> None:
    with _cpu_seconds.get_lock():
        _cpu_seconds.value += sign * time.process_time()


def run(program: Callable[[int, int], None], share: int, of: int) -> None:
    program(share, of)
    _add_cpu_seconds(1)


def main() -> None:
    program, processes = {"simplest": simplest, "post": post, "client": client}[sys.argv[1]], int(sys.argv[2])
    workers = [multiprocessing.Process(target=run, args=[program, n, processes]) for n in range(processes)]
    for worker in workers:
        worker.start()
    for _ in workers:
        _ready.acquire()
    print("ready", flush=True)
    sys.stdin.readline()
    _started.set()
    for worker in workers:
        worker.join()
    print(json.dumps({"cpu_seconds": _cpu_seconds.value}), flush=True)
    sys.exit(max(worker.exitcode or 0 for worker in workers))


if __name__ == "__main__":
    main()
