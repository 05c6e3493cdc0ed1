"""`python -m tests.bench.programs.watched ended|idle|concurrency COUNT …`: what the group `watching` measures."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import django

django.setup()

from django.db import connection, connections  # noqa: E402
from django.db.models import Count  # noqa: E402

from kanikojobs import claims, kube, naming  # noqa: E402
from kanikojobs.manifest.settings import build_options  # noqa: E402
from kanikojobs.models import KanikoJob  # noqa: E402
from kanikojobs.states import FINISHED  # noqa: E402
from tests.factories import a_kaniko_job, an_event  # noqa: E402
from tests.test_watching import ENDS  # noqa: E402
from tests.watched_jobs import create_some  # noqa: E402

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
BREAKS, COMPACTIONS, KILLS = 50, 10, 5
# How long a trouble may be felt, in seconds: until the lists are there again; a killed watcher starts Python first.
FELT = {"break": 0.5, "compact": 0.5, "kill": 6.0}
LAST = 90.0  # seconds over which the Jobs are created and the troubles are spread


def start_watcher() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "manage.py", "watch_jobs"], stdout=subprocess.DEVNULL)


def control(verb: str, **body: Any) -> dict[str, Any]:
    """The simulator's control API, on its API port."""
    url = kube_url() + "/simulator/" + verb
    data = None if verb.startswith("stats") else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=30) as answer:  # noqa: S310
        return dict(json.load(answer))


def kube_url() -> str:
    return str(kube._way(os.getpid(), os.environ["KUBECONFIG"]).client.configuration.host)


def empty() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "TRUNCATE kanikojobs_jobstartevent, kanikojobs_tally, kanikojobs_drift, kanikojobs_outage CASCADE"
        )


def queue(count: int, *, parser: Any) -> list[KanikoJob]:
    jobs = []
    for n in range(count):
        event = an_event(
            event_id=f"bench-{time.time_ns()}-{n}",
            source_url="https://github.com/notifi/parsers/p",
            parser_id=parser(n),
        )
        name = naming.kubernetes_name(source=event.source, event_id=event.event_id, number=1, job_name=event.job_name)
        jobs.append(a_kaniko_job(event=event, namespace=build_options().namespace, name=name))
    return jobs


def create_all() -> None:
    while create_some():
        pass


def create_slowly(count: int, *, seconds: float) -> None:
    """A few at a time, so that Jobs end all the while."""
    try:
        while most := create_some(max(1, count // 200)):
            time.sleep(seconds * most / count)
    finally:
        connections.close_all()


def ended(count: int) -> dict[str, float]:
    """Create Jobs of all outcomes while watches break, versions are forgotten and the watcher is killed."""
    empty()
    outcomes = list(ENDS)
    control("settings", run_seconds=2.0, pod_start_seconds=0.2, termination_seconds=1.0)
    jobs = queue(count, parser=lambda n: f"{outcomes[n % len(outcomes)]}-{n}")
    rules = [{"name": f"^{job.name}$", "outcome": outcomes[n % len(outcomes)]} for n, job in enumerate(jobs)]
    control("outcomes", default="succeed", rules=rules)
    watcher = start_watcher()
    time.sleep(3.0)
    randomness = random.Random(1)
    troubles = ["break"] * BREAKS + ["compact"] * COMPACTIONS + ["kill"] * KILLS
    randomness.shuffle(troubles)
    broken: list[tuple[float, float]] = []
    with ThreadPoolExecutor(1) as workers:
        creating = workers.submit(create_slowly, count, seconds=LAST)
        for trouble in troubles:
            time.sleep(randomness.uniform(0.5, 1.5) * LAST / len(troubles))
            broken.append((time.time(), FELT[trouble]))
            if trouble == "kill":
                watcher.send_signal(signal.SIGKILL)
                watcher.wait()
                watcher = start_watcher()
            else:
                if trouble == "compact":
                    control("compact")
                control("break-watches", politely=trouble == "compact")
        creating.result()
    until = time.monotonic() + 120
    while KanikoJob.objects.exclude(state__in=FINISHED).exists() and time.monotonic() < until:
        time.sleep(0.1)
    watcher.terminate()
    watcher.wait(10)
    ends = {
        step["name"]: step["at"]
        for step in control("stats?detail=1")["sequence"]
        if step["do"] in ("Complete", "Failed", "Deleted")
    }
    wrong = 0
    outside: list[float] = []
    inside: list[float] = []
    for n, (job, row) in enumerate(zip(jobs, KanikoJob.objects.select_related("evidence").order_by("id"), strict=True)):
        if (row.state, row.reason) != ENDS[outcomes[n % len(outcomes)]]:
            wrong += 1
            print(job.name, outcomes[n % len(outcomes)], row.state, row.reason, row.message, file=sys.stderr)
        if row.state in FINISHED and job.name in ends:
            at = ends[job.name]
            # Written with the state. The row's own time is Kubernetes' where it was learned late.
            lag = 1000 * (row.evidence.noted_at.timestamp() - at)
            (inside if any(moment < at + 0.1 < moment + felt for moment, felt in broken) else outside).append(lag)
    every = sorted(outside) or sorted(inside)
    return {
        "wrong rows": wrong,
        "lag, median": statistics.median(every),
        "lag, 99th percentile": every[int(0.99 * (len(every) - 1))],
        "lag in breaks, 99th percentile": sorted(inside)[int(0.99 * (len(inside) - 1))] if inside else 0.0,
        "measured outside": len(outside),
    }


def idle(count: int, seconds: float) -> dict[str, float]:
    """Watch active Jobs of which nothing is heard."""
    empty()
    control("settings", run_seconds=86_400.0, pod_start_seconds=0.0)
    queue(count, parser=lambda n: f"idle-{n}")
    create_all()
    watcher = start_watcher()
    until = time.monotonic() + 120
    while KanikoJob.objects.filter(state="running").count() < count:
        assert time.monotonic() < until, "not all are running"
        time.sleep(0.5)
    time.sleep(3.0)
    begun, resident = cpu_seconds(watcher.pid), memory(watcher.pid)
    started = cpu_seconds(watcher.pid)
    time.sleep(seconds)
    used, grown = cpu_seconds(watcher.pid) - begun, memory(watcher.pid) - resident
    watcher.terminate()
    watcher.wait(10)
    return {
        "CPU": 100 * used / seconds,
        "memory": resident,
        "memory growth": grown,
        "CPU of a list": started,
    }


def concurrency(count: int) -> dict[str, float]:
    """Events of ten parsers through three clusters, while the policy of the settings holds."""
    empty()
    control("settings", run_seconds=0.1, pod_start_seconds=0.0, termination_seconds=0.05)
    processes = [start_watcher()]
    processes += [
        subprocess.Popen([sys.executable, "manage.py", "qcluster"], stdout=subprocess.DEVNULL) for _ in range(3)
    ]
    time.sleep(6.0)
    begun = time.monotonic()
    # A part at once, and the rest while the first ones run.
    jobs = queue(count // 2, parser=lambda n: f"parser-{n % 10}")
    claims.notify()
    for _ in range(5):
        time.sleep(0.5)
        jobs += queue(count // 10, parser=lambda n: f"parser-{n % 10}")
        claims.notify()
    until = time.monotonic() + 120
    while KanikoJob.objects.exclude(state__in=FINISHED).exists() and time.monotonic() < until:
        time.sleep(0.05)
    took = time.monotonic() - begun
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(20)
    stats = control("stats?detail=1")
    made: dict[str, list[str]] = {}
    for step in stats["sequence"]:
        if step["do"] == "create":
            made.setdefault(step["parser"], []).append(step["name"])
    order = {job.name: n for n, job in enumerate(jobs)}
    disorder = sum(order[first] > order[second] for names in made.values() for first, second in pairwise(names))
    print({f"{s} {r}": n for s, r, n in summary()}, file=sys.stderr)
    return {
        "most at once": max(stats["max_active_by"]["parser"].values()),
        "out of order": disorder,
        "unfinished": KanikoJob.objects.exclude(state__in=FINISHED).count(),
        "time": took,
    }


def summary() -> list[tuple[str, str, int]]:
    return list(KanikoJob.objects.values_list("state", "reason").annotate(n=Count("id")))


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def memory(pid: int) -> float:
    """Resident, in MB."""
    with open(f"/proc/{pid}/statm") as statm:  # noqa: PTH123
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ended", count]:
            print(json.dumps(ended(int(count))))
        case ["idle", count, seconds]:
            print(json.dumps(idle(int(count), float(seconds))))
        case ["concurrency", count]:
            print(json.dumps(concurrency(int(count))))
        case _:
            sys.exit(str(__doc__))
