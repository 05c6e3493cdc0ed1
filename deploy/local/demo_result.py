"""What became of the demo's messages: the database and the simulator, held against what was sent."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import psycopg
from rich import box
from rich.table import Table

from deploy.local.demo_events import Kind, Message, Traffic
from tests.sample_events import EVENT_SOURCE

COLUMNS = {
    "recorded": "Recorded",
    "duplicates": "Dupli-\ncates",
    "dead_letters": "Dead\nletters",
    "jobs_created": "Jobs\ncreated",
    "jobs_failed": "Jobs\nfailed",
    "retried": "Retried",
}

_EVENTS = """
    SELECT event.event_id, event.times_seen, job.job_uid IS NOT NULL, job.state = 'failed',
           (SELECT count(*) FROM kanikojobs_jobattempt WHERE kaniko_job_id = job.id)
    FROM kanikojobs_jobstartevent event LEFT JOIN kanikojobs_kanikojob job ON job.event_id = event.id AND job.number = 1
    WHERE event.source = %s AND event.event_id = ANY (%s)
"""
_LETTERS = """
    SELECT letter.body, event.event_id
    FROM kanikojobs_deadletter letter
    LEFT JOIN kanikojobs_kanikojob job ON job.id = letter.kaniko_job_id
    LEFT JOIN kanikojobs_jobstartevent event ON event.id = job.event_id
    WHERE letter.body = ANY (%s) OR (event.source = %s AND event.event_id = ANY (%s))
"""


@dataclass(frozen=True, slots=True)
class Result:
    """Per kind and column what was found, and every difference to what was sent, as a sentence."""

    found: dict[Kind, Counter[str]]
    differences: tuple[str, ...]

    @property
    def jobs(self) -> int:
        return sum(counts["jobs_created"] for counts in self.found.values())


def read(traffic: Traffic, *, database: psycopg.Connection, cluster: dict[str, int] | None) -> Result:
    """Reads what there is now. `cluster` counts the creates per identity, as the simulator's stats do."""
    found = _found(traffic, database=database)
    differences = [
        f"{kind.name}: {column.replace('_', ' ')} {found[kind][column]}, not {count * getattr(kind, column)}"
        for kind, count in traffic.sent.items()
        for column in COLUMNS
        if getattr(kind, column) is not None and found[kind][column] != count * getattr(kind, column)
    ]
    if cluster is not None:
        differences += _cluster_differences(traffic, cluster=cluster)
    return Result(found=found, differences=tuple(differences))


def _found(traffic: Traffic, *, database: psycopg.Connection) -> dict[Kind, Counter[str]]:
    found: dict[Kind, Counter[str]] = defaultdict(Counter)
    first: dict[str, Message] = {}
    again: dict[str, Message] = {}
    by_body = {message.body: message for message in traffic.messages}
    for message in traffic.messages:
        if message.kind.recorded:
            first[message.event_id] = message
        elif message.kind.duplicates:
            again[message.event_id] = message
    ids = [message.event_id for message in traffic.messages if message.event_id]
    with database.transaction():
        events = database.execute(_EVENTS, [EVENT_SOURCE, ids]).fetchall()
        letters = database.execute(_LETTERS, [list(by_body), EVENT_SOURCE, ids]).fetchall()
    for event_id, times_seen, created, failed, attempts in events:
        # An event that should not have been recorded counts for the message that it came with.
        kind = (first.get(event_id) or again.get(event_id) or _any(traffic, event_id)).kind
        found[kind] += Counter(
            recorded=1, jobs_created=int(created), jobs_failed=int(failed or 0), retried=int(attempts > 1)
        )
        seen_again = again.get(event_id)
        found[seen_again.kind if seen_again else kind]["duplicates"] += times_seen - 1
    for body, event_id in letters:
        # By the event first: its body may have been sent twice.
        message = first.get(event_id) or by_body[bytes(body)]
        found[message.kind]["dead_letters"] += 1
    return found


def _any(traffic: Traffic, event_id: str) -> Message:
    return next(message for message in traffic.messages if message.event_id == event_id)


def _cluster_differences(traffic: Traffic, *, cluster: dict[str, int]) -> list[str]:
    """Every event that should have a Job has exactly one in the cluster, and no other has any."""
    wanted: Counter[str] = Counter()
    kinds: dict[str, Kind] = {}
    for message in traffic.messages:
        if message.event_id:
            identity = f"{EVENT_SOURCE}|{message.event_id}|1"
            wanted[identity] += message.kind.jobs_created
            if message.kind.recorded:
                kinds[identity] = message.kind
    return [
        f"{kinds[identity].name if identity in kinds else 'unrecorded'}: "
        f"the cluster created {cluster.get(identity, 0)} Jobs for {identity}, not {count}"
        for identity, count in wanted.items()
        if cluster.get(identity, 0) != count
    ]


def sum_line(traffic: Traffic, result: Result) -> str:
    """The account of everything sent: each message is an event, a repetition of one, or a dead letter."""
    total = {column: sum(counts[column] for counts in result.found.values()) for column in COLUMNS}
    on_arrival = sum(counts["dead_letters"] for kind, counts in result.found.items() if not kind.recorded)
    return (
        f"{traffic.sent.total()} sent = {total['recorded']} recorded + {total['duplicates']} duplicates "
        f"+ {on_arrival} dead letters on arrival"
    )


def table(traffic: Traffic, result: Result) -> Table:
    """What became of each kind, and the sums."""
    shown = Table(
        title="What became of the sample events",
        show_footer=True,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    sent = traffic.sent
    shown.add_column("Kind", footer="all", no_wrap=True)
    shown.add_column("Sent", justify="right", footer=str(sent.total()))
    for column, title in COLUMNS.items():
        total = sum(counts[column] for counts in result.found.values())
        shown.add_column(title, justify="right", footer=str(total))
    for kind, count in sent.items():
        cells: list[Any] = [result.found[kind][column] for column in COLUMNS]
        shown.add_row(kind.name, str(count), *(str(cell) if cell else "·" for cell in cells))
    return shown
