"""What a rate of events asks for: consumers, workers, Postgres, and what the cluster itself has to bear.

Pure. A model on paper: rates that `make bench` has measured, divided by the rate that is wanted, and Little's law for
what is in the cluster at once. It does not know your builds, your disks or your API server; each line says whether it
was measured, or is extrapolated beyond what was, and from what.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

# Of what was measured at full load, so much is planned with: bursts and neighbours need the rest.
USED = 0.5
# One of each may be gone at any time.
LEAST = 2
SECONDS_PER_DAY = 86_400
# The API server's own limit (Kubernetes documentation, "Considerations for large clusters").
PODS_PER_NODE = 110
# etcd's default quota is 2 GiB, and 8 GiB is what its authors suggest at most (etcd documentation, "System limits").
ETCD_BYTES = 8 * 2**30
# A Job with its pod: the manifest is 11 KB, the pod has its template again, and both get a status and managed fields.
BYTES_PER_BUILD_IN_ETCD = 30_000


@dataclass(frozen=True, slots=True)
class Measured:
    """What one process did on two cores of a small machine, with PostgreSQL and RabbitMQ beside it.

    `intake_rate` events/s of one consumer at `intake_cpu` µs of its CPU each; `creation_rate` Jobs/s of one cluster of
    five workers, against a simulated API server, at `creation_cpu` ms each; `bytes_per_event` in Postgres, indexes
    included, of an event with its Kaniko Job and attempt; `api_creates` per second of a real API server with etcd.
    """

    intake_rate: float = 13_700
    intake_cpu: float = 57
    creation_rate: float = 980
    creation_cpu: float = 0.71
    bytes_per_event: float = 3_600
    api_creates: float = 500


# Where each constant comes from: the case of `make bench` and its metric. The last two have none: the one was read off
# the tables after a burst of 2,000 Jobs, the other was measured by itself, on two cores, with five posting processes.
CASES = {
    "intake_rate": ("intake: a burst", "rate"),
    "intake_cpu": ("intake: a burst", "cpu"),
    "creation_rate": ("creation: a burst", "rate"),
    "creation_cpu": ("creation: a burst", "cpu"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """The load: events/s, seconds that a build runs and that its Job is kept after, days that rows are kept."""

    rate: float
    build_seconds: float = 60
    job_ttl: float = 3600
    days_kept: float = 90
    queue_length: int = 10_000


@dataclass(frozen=True, slots=True)
class Need:
    """One line of the answer. `basis` says what it rests on; `warning` is there where a limit is passed."""

    part: str
    needs: str
    because: str
    basis: str
    warning: str = ""


def measured(entries: Iterable[Mapping[str, Any]]) -> Measured:
    """The constants as another machine has measured them: the entries of `.local/bench.json`.

    What was not measured there stays as it is here.
    """
    found = {(entry["case"], entry["metric"]): float(entry["value"]) for entry in entries}
    values = {name: found[source] for name, source in CASES.items() if source in found}
    return replace(Measured(), **values)


def needs(wanted: Wanted, *, constants: Measured | None = None) -> list[Need]:
    """What the load asks of each part. Raises `ValueError` for a rate or a time that is none."""
    if not wanted.rate > 0 or min(wanted.build_seconds, wanted.job_ttl, wanted.days_kept, wanted.queue_length) < 0:
        raise ValueError("the rate must be above 0, and no time below it")
    known = constants or Measured()
    return [
        _consumers(wanted, known),
        _workers(wanted, known),
        _queue(wanted),
        _database(wanted, known),
        _creates(wanted, known),
        _pods(wanted),
        _objects(wanted),
    ]


def _processes(rate: float, *, each: float) -> int:
    return max(LEAST, math.ceil(rate / (USED * each)))


def _consumers(wanted: Wanted, known: Measured) -> Need:
    number = _processes(wanted.rate, each=known.intake_rate)
    return Need(
        "consumers (consume_queue)",
        f"{number}, {wanted.rate * known.intake_cpu / 1e6:.2f} cores in all",
        f"one drains {known.intake_rate:,.0f} events/s; {USED:.0%} of that is planned with, and {LEAST} at least",
        "measured for one; extrapolated for several, which share Postgres" if number > LEAST else "measured",
    )


def _workers(wanted: Wanted, known: Measured) -> Need:
    number = _processes(wanted.rate, each=known.creation_rate)
    return Need(
        "worker pods (qcluster, 5 workers each)",
        f"{number}, {wanted.rate * known.creation_cpu / 1e3:.2f} cores in all",
        f"one creates {known.creation_rate:,.0f} Jobs/s; {USED:.0%} of that is planned with, and {LEAST} at least",
        "measured against a simulated API server" + ("; extrapolated for several" if number > LEAST else ""),
    )


def _queue(wanted: Wanted) -> Need:
    seconds = wanted.queue_length / wanted.rate
    return Need(
        "RabbitMQ",
        f"{seconds:,.0f} s without a consumer until {wanted.queue_length:,} messages are full",
        "length of the queue / rate; beyond it the oldest is dropped",
        "arithmetic",
        "A restart of the consumers may take longer: raise KANIKOJOBS_MAX_LENGTH." if seconds < 60 else "",
    )


def _database(wanted: Wanted, known: Measured) -> Need:
    per_day = wanted.rate * SECONDS_PER_DAY * known.bytes_per_event
    return Need(
        "Postgres",
        f"{per_day / 1e9:,.1f} GB a day, {per_day * wanted.days_kept / 1e9:,.0f} GB in {wanted.days_kept:g} days",
        f"{known.bytes_per_event:,.0f} bytes per event with its Kaniko Job and attempt, indexes included",
        "measured for small tables, extrapolated in time; on top what is kept of a build's end, logs up to 256 KB",
    )


def _creates(wanted: Wanted, known: Measured) -> Need:
    share = wanted.rate / known.api_creates
    return Need(
        "API server: creates",
        f"{share:.0%} of {known.api_creates:,.0f} creates/s",
        "a real API server and etcd on two cores took so many from five processes, and did nothing else",
        "measured once; your server differs, and its own flow control (APF) comes on top",
        "More than half of what was measured: measure yours (make test-cluster)." if share > USED else "",
    )


def _pods(wanted: Wanted) -> Need:
    pods = wanted.rate * wanted.build_seconds
    nodes = math.ceil(pods / PODS_PER_NODE)
    return Need(
        "builds at once",
        f"{pods:,.0f} pods, {nodes:,} nodes of {PODS_PER_NODE} pods at least",
        "rate × seconds per build (Little's law)",
        "arithmetic; the CPU that builds need is yours to know",
        "More than Kubernetes is tested with (150,000 pods, 5,000 nodes)." if pods > 150_000 or nodes > 5_000 else "",
    )


def _objects(wanted: Wanted) -> Need:
    held = wanted.rate * (wanted.build_seconds + wanted.job_ttl)
    size = held * BYTES_PER_BUILD_IN_ETCD
    return Need(
        "etcd",
        f"{held:,.0f} Jobs with their pods, {size / 2**30:,.1f} GiB",
        f"rate × (seconds per build + KANIKOJOBS_JOB_TTL) × {BYTES_PER_BUILD_IN_ETCD:,} bytes",
        "estimated",
        f"Beyond {ETCD_BYTES / 2**30:.0f} GiB etcd takes no more: lower KANIKOJOBS_JOB_TTL to "
        f"{max(0, math.floor(ETCD_BYTES * USED / BYTES_PER_BUILD_IN_ETCD / wanted.rate - wanted.build_seconds))}s."
        if size > ETCD_BYTES * USED
        else "",
    )
