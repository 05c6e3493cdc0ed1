"""The programs that the intake's bench compares: `python -m tests.bench.drains NAME QUEUE EVENTS`.

`consume_queue` is ours. `unchecked` is the simplest program that stores the same rows: it parses the JSON and copies
batches into the same tables, and believes everything. `one_by_one` is what most consumers look like: a commit and an
acknowledgement per message. `nothing` only takes and acknowledges.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pika
import psycopg

from tests.bench.meter import Meter, report

# The best of 250 and 500, and as much as the command's.
BATCH = 500
PREFETCH = 2000
COLUMNS = (
    "event_id, source, type, specversion, subject, time, datacontenttype, dataschema, extensions, data, "
    "third_party_id, parser_id, correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout, "
    "content_hash, origin"
)
EVENTS = f"COPY kanikojobs_jobstartevent (id, {COLUMNS}) FROM STDIN"
JOBS = "COPY kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id) FROM STDIN"
IDS = "SELECT nextval('kanikojobs_jobstartevent_id_seq') FROM generate_series(1, %s)"


def consume_queue(queue: str, events: int) -> dict[str, float]:
    """The command's own consumer, with its settings and its log, until so many messages are settled."""
    import django

    django.setup()
    from kanikojobs.consumer_status import Counts
    from kanikojobs.management.commands import consume_queue as command

    consuming = command.consuming_by_settings()
    command.spare_the_collector()
    command.take_short_turns()
    memory: list[float] = []

    def progress(counts: Counts) -> None:
        if counts.taken >= events:
            consuming.stop.set()
        if counts.taken > events / 5:
            memory.append(resident_mb())

    consuming.on_progress = progress
    meter = Meter()
    meter.start()
    if profile := os.environ.get("BENCH_PROFILE"):
        profiled(consuming.run, part=profile)
    else:
        consuming.run()
    found = meter.stop(at=consuming.counts.last_message_at)
    return found | {"growth_mb": max(memory) - memory[0]}


def profiled(call: Callable[[], object], *, part: str) -> None:
    """Prints the top ten of the `main` thread, or of the `writer`'s."""
    import cProfile
    import pstats

    from kanikojobs.writer import Writer

    profiler = cProfile.Profile()
    if part == "writer":
        unprofiled = Writer._run
        Writer._run = lambda self: profiler.runcall(unprofiled, self)  # type: ignore[method-assign]
        call()
    else:
        profiler.runcall(call)
    pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(10)


def resident_mb() -> float:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a path object per batch would be measured, too
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def unchecked(queue: str, events: int) -> dict[str, float]:
    database = psycopg.connect(os.environ["DATABASE_URL"])
    return drain(queue, events, batch=BATCH, store=lambda bodies: copy(database, bodies))


def one_by_one(queue: str, events: int) -> dict[str, float]:
    database = psycopg.connect(os.environ["DATABASE_URL"])
    return drain(queue, events, batch=1, store=lambda bodies: insert(database, bodies[0]))


def nothing(queue: str, events: int) -> dict[str, float]:
    return drain(queue, events, batch=BATCH, store=lambda bodies: None)


def drain(queue: str, events: int, *, batch: int, store: Callable[[Sequence[bytes]], None]) -> dict[str, float]:
    """Take, store a batch, acknowledge it; what is left at the end is a batch, too."""
    meter = Meter()
    meter.start()
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    held: list[bytes] = []
    done = 0

    def take(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        nonlocal done
        held.append(body)
        if len(held) == batch or done + len(held) == events:
            store(held)
            channel.basic_ack(method.delivery_tag, multiple=True)
            done += len(held)
            held.clear()

    channel.basic_consume(queue, take)
    while done < events:
        connection.process_data_events(1)
    connection.close()
    return meter.stop()


Row = tuple[Any, ...]


def row_of(body: bytes) -> Row:
    event = json.loads(body)
    data = event["data"]
    parameters = data["parameters"]
    return (
        event["id"],
        event["source"],
        event["type"],
        event["specversion"],
        event["subject"],
        event["time"],
        event["datacontenttype"],
        "",
        "{}",
        json.dumps(data),
        data["third_party_id"],
        data["parser_id"],
        data["correlation_id"],
        data["job_name"],
        data["priority"],
        parameters["build_type"],
        parameters["runtime"],
        parameters["source_url"],
        parameters["build_timeout"],
        hashlib.sha256(body).digest(),
        "queue",
    )


def job_row(event_id: int, row: Row) -> Row:
    return event_id, f"kaniko-job-{row[0]}", "kaniko-builds", row[14], row[10], row[11]


def copy(database: psycopg.Connection, bodies: Sequence[bytes]) -> None:
    """COPY, for which the ids are fetched first: half as long as an INSERT from arrays."""
    rows = [row_of(body) for body in bodies]
    with database.cursor() as cursor:
        ids = [id for (id,) in cursor.execute(IDS, [len(rows)], prepare=True)]
        with cursor.copy(EVENTS) as events:
            for id, row in zip(ids, rows, strict=True):
                events.write_row((id, *row))
        with cursor.copy(JOBS) as jobs:
            for id, row in zip(ids, rows, strict=True):
                jobs.write_row(job_row(id, row))
    database.commit()


def insert(database: psycopg.Connection, body: bytes) -> None:
    row = row_of(body)
    with database.cursor() as cursor:
        values = ", ".join(["%s"] * len(row))
        cursor.execute(
            f"INSERT INTO kanikojobs_jobstartevent ({COLUMNS}) VALUES ({values}) RETURNING id",  # noqa: S608
            row,
            prepare=True,
        )
        (id,) = cursor.fetchone() or (0,)
        cursor.execute(
            "INSERT INTO kanikojobs_kanikojob (event_id, name, namespace, priority, third_party_id, parser_id) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            job_row(id, row),
            prepare=True,
        )
        cursor.execute("NOTIFY kanikojobs_queued")
    database.commit()


if __name__ == "__main__":
    program, queue, events = sys.argv[1:]
    report(globals()[program](queue, int(events)))
