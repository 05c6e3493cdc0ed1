"""Dead letters at 200,000 of them and 2,000,000 events: the clicks to a running replay, a plan, and the run itself.

The pages are compared with the same pages of a small history. A run is compared with the simplest thing that could be
called a replay: the same messages put through intake in batches, without plan, items, lineage or results.
`python -m tests.bench.dead_letters pages|replay|intake` is the process that is measured.
"""

import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from html import unescape
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.bench.harness import Bench, Case, Contender, Sample

EVENTS, LETTERS, SMALL = 2_000_000, 200_000, 100
ROUNDS = 7
REPLAYED = 5_000
CLICKS = (
    "0 home",
    "1 groups",
    "2 group",
    "3 plan of 412",
    "4 start of 412",
    "plan of all open",
    "page of the run",
    "list of letters",
    "page of a letter",
    "groups new since",
)


def cases(bench: Bench) -> list[Case]:
    large, small = seeded(bench, bench.amount(EVENTS)), seeded(bench, bench.amount(EVENTS) // SMALL)
    count = str(bench.amount(REPLAYED))
    return [
        Case(
            name="dead letter pages",
            units=dict.fromkeys(CLICKS, "ms"),
            ours=Contender("at 200,000 dead letters", partial(_measured, bench, large, "pages")),
            baselines=[Contender(f"at a {SMALL}th of that", partial(_measured, bench, small, "pages"))],
        ),
        Case(
            name="replay",
            units={"letters/s": "1/s", "planned/s": "1/s"},
            ours=Contender("a run", partial(_measured, bench, fresh(bench), "replay", count)),
            baselines=[Contender("intake alone", partial(_measured, bench, fresh(bench), "intake", count))],
        ),
    ]


def _measured(bench: Bench, url: Callable[[], str], *arguments: str) -> Sample:
    return bench.run_program("tests.bench.dead_letters", *arguments, env={"DATABASE_URL": url(), "RABBITMQ_URL": ""})


def database(bench: Bench, name: str) -> tuple[str, bool]:
    """The URL of a database of the bench's server, with its tables, and whether it was there already."""
    url = urlunsplit(urlsplit(bench.stack.postgres.url)._replace(path=f"/{name}"))
    with psycopg.connect(bench.stack.postgres.url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return url, True
        connection.execute(f"CREATE DATABASE {name}")
    bench.migrate(env={"DATABASE_URL": url})
    return url, False


def seeded(bench: Bench, events: int) -> Callable[[], str]:
    """The URL of a database with so many events and a tenth as many dead letters, made when first asked for."""

    def make() -> str:
        from tests.seed import seed

        url, there = database(bench, f"dead_letters_{events}")
        if not there:
            seed(url, events=events, dead_letters=max(1, events * LETTERS // EVENTS))
        return url

    return make


def fresh(bench: Bench) -> Callable[[], str]:
    """The URL of a database with empty tables."""

    def make() -> str:
        url, _ = database(bench, "dead_letters_fresh")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "TRUNCATE kanikojobs_jobstartevent, kanikojobs_deadletter, kanikojobs_failuregroup, "
                "kanikojobs_replayrun, kanikojobs_tally, kanikojobs_operatoraction CASCADE"
            )
            connection.execute("CHECKPOINT")
        return url

    return make


def pages() -> Sample:
    """Click the way of the on-call, again and again; the median of each page, in milliseconds."""
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    from kanikojobs.models import DeadLetter, FailureGroup, ReplayRun
    from kanikojobs.replay import runs
    from tests.replay_cases import AN_OPERATOR
    from tests.seed import FINGERPRINT

    settings.ALLOWED_HOSTS = ["*"]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    user, _ = User.objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    group = FailureGroup.objects.get(fingerprint=FINGERPRINT)
    letter = DeadLetter.objects.filter(fingerprint=FINGERPRINT).latest("id")
    took: dict[str, list[float]] = {click: [] for click in CLICKS}

    def ask(click: str, path: str, form: dict[str, str] | None = None, **query: Any) -> Any:
        started = time.perf_counter()
        answer = client.get(path, query) if form is None else client.post(path, form)
        took[click].append(1000 * (time.perf_counter() - started))
        if answer.status_code not in (200, 302):
            sys.exit(f"{click}: {answer.status_code}")
        return answer

    for _ in range(ROUNDS):
        ask("0 home", "/admin/")
        ask("1 groups", "/admin/kanikojobs/failuregroup/")
        page = ask("2 group", f"/admin/kanikojobs/failuregroup/{group.pk}/change/")
        (way,) = {unescape(link) for link in re.findall(r'href="([^"]*/plan/[^"]*)"', page.content.decode())}
        page = ask("3 plan of 412", way)
        html = page.content.decode()
        form = {name: unescape(value) for name, value in re.findall(r'name="([^"]+)" value="([^"]*)"', html)}
        (action,) = re.findall(r'action="([^"]*/start/[^"]*)"', html)
        ask("4 start of 412", unescape(action), form)
        run = ReplayRun.objects.latest("id")
        if run.total != min(412, group.open_letters):
            sys.exit(f"the run has {run.total} dead letters")
        ask("page of the run", f"/admin/kanikojobs/replayrun/{run.pk}/change/")
        runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="Measured.")
        ask("plan of all open", "/admin/kanikojobs/replayrun/plan/?all=1")
        ask("list of letters", "/admin/kanikojobs/deadletter/", state__exact="open")
        ask("page of a letter", f"/admin/kanikojobs/deadletter/{letter.pk}/change/")
        ask("groups new since", "/admin/kanikojobs/failuregroup/", new_since="24h")
    return {click: statistics.median(times[1:]) for click, times in took.items()}


def messages(count: int) -> list[Any]:
    from kanikojobs.messages import Message
    from tests.sample_events import sample_event

    return [
        Message(json.dumps(sample_event(number)).encode(), "application/cloudevents+json") for number in range(count)
    ]


def replay(count: int) -> Sample:
    """Expired messages: each is read, recorded and queued, in one run as fast as it goes."""
    from kanikojobs import dead_letters
    from kanikojobs.models import ReplayRun
    from kanikojobs.replay import running, runs
    from kanikojobs.replay.plan import plan
    from kanikojobs.replay.selection import Selection
    from tests.replay_cases import AN_OPERATOR

    dead_letters.record_from_broker(messages(count))
    started = time.perf_counter()
    planned = plan(selection=Selection())
    planning = time.perf_counter() - started
    started = time.perf_counter()
    run = runs.start(
        selection=Selection(),
        cut_off=planned.cut_off,
        pace=runs.Pace(batch=250),
        author=AN_OPERATOR,
        reason="Measured.",
    )
    while run.state == ReplayRun.State.RUNNING:
        for due in running.claim_due(run_id=run.pk):
            running.advance(due, seconds=10)
        run.refresh_from_db()
    took = time.perf_counter() - started
    if run.queued != count:
        sys.exit(f"{run.queued} of {count} were queued")
    return {"letters/s": count / took, "planned/s": count / planning}


def intake_alone(count: int) -> Sample:
    from kanikojobs import intake
    from kanikojobs.models import JobStartEvent

    ready = messages(count)
    started = time.perf_counter()
    for start in range(0, count, 250):
        intake.record(ready[start : start + 250], origin=JobStartEvent.Origin.REPLAY)
    return {"letters/s": count / (time.perf_counter() - started)}


def main() -> None:
    import django

    django.setup()
    match sys.argv[1:]:
        case ["pages"]:
            result = pages()
        case ["replay", count]:
            result = replay(int(count))
        case ["intake", count]:
            result = intake_alone(int(count))
        case _:
            sys.exit("pages, replay COUNT or intake COUNT")
    print(json.dumps(dict(result)))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    main()
