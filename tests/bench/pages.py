"""What a person or a scraper asks for, at 2,000,000 events and at 2,000: the times must not grow with the history.

Each size has a database of its own, seeded by SQL. What is measured is the server's time: the request is made in the
process that answers it. `python -m tests.bench.pages` is that process.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tests.bench.harness import Bench, Case, Contender, Sample

LARGE, SMALL = 2_000_000, 2_000
REQUESTS = 15
PAGES = ("home", "stats", "event page", "list of events", "list of failed jobs", "search", "metrics")


def cases(bench: Bench) -> list[Case]:
    large, small = bench.amount(LARGE), min(SMALL, bench.amount(LARGE))
    return [
        Case(
            name="pages",
            units=dict.fromkeys(PAGES, "ms"),
            ours=Contender(f"at {large:,} events", partial(measured, bench, seeded(bench, large))),
            baselines=[Contender(f"at {small:,} events", partial(measured, bench, seeded(bench, small)))],
        )
    ]


def measured(bench: Bench, url: Callable[[], str]) -> Sample:
    return bench.run_program("tests.bench.pages", env={"DATABASE_URL": url(), "RABBITMQ_URL": ""})


def seeded(bench: Bench, events: int) -> Callable[[], str]:
    """The URL of a database with so many events, made when it is first asked for."""
    name = f"pages_{events}"
    parts = urlsplit(bench.stack.postgres.url)
    url = urlunsplit(parts._replace(path=f"/{name}"))

    def make() -> str:
        with psycopg.connect(bench.stack.postgres.url, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
                return url
            connection.execute(f"CREATE DATABASE {name}")
        bench.migrate(env={"DATABASE_URL": url})
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in SEED.split(";"):
                if statement.strip():
                    connection.execute(statement.replace("%(events)s", str(events)).encode())
        return url

    return make


# One in sixteen failed; the last 300 are unfinished. Ids are in the order of arrival, over thirty days.
SEED = """
INSERT INTO kanikojobs_jobstartevent (
    id, event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id, parser_id,
    correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout, content_hash, origin,
    received_at, last_seen_at
)
SELECT n, 'event-' || n, 'network.notifi.bench', 'network.notifi.lambda.job.start', '1.0', '', 'application/json', '',
       jsonb_build_object('parser_id', 'parser-' || n % 20000, 'note', repeat('x', 300)),
       'third-party-' || n % 500, 'parser-' || n % 20000, 'correlation-' || n, 'kaniko-job-asked-for-' || n, 1 + n % 10,
       'container', 'python', 'https://github.com/notifi/parsers/' || n, 1800, sha256(n::text::bytea),
       CASE WHEN n % 50 = 0 THEN 'direct' ELSE 'queue' END, at, at
FROM generate_series(1, %(events)s) n,
     LATERAL (SELECT now() - (%(events)s - n) * interval '30 days' / %(events)s AS at) arrived;
INSERT INTO kanikojobs_kanikojob (
    id, event_id, number, state, reason, message, name, namespace, job_uid, priority, third_party_id, parser_id, place,
    queued_at, created_at, running_at, finished_at
)
SELECT id, id, 1, state, CASE state WHEN 'failed' THEN (ARRAY['OOMKilled', 'BuildStepFailed', 'PushDenied'])[1 + id % 3]
       ELSE '' END, '', 'kaniko-job-' || id, 'builds', CASE WHEN state <> 'queued' THEN gen_random_uuid() END, priority,
       third_party_id, parser_id, 0, received_at, CASE WHEN state <> 'queued' THEN received_at END,
       CASE WHEN state NOT IN ('queued', 'created') THEN received_at END,
       CASE WHEN state IN ('succeeded', 'failed') THEN received_at + interval '90 seconds' END
FROM (
    SELECT *, CASE WHEN id > %(events)s - 100 THEN 'queued' WHEN id > %(events)s - 200 THEN 'created'
        WHEN id > %(events)s - 300 THEN 'running' WHEN id % 16 = 0 THEN 'failed' ELSE 'succeeded' END AS state
    FROM kanikojobs_jobstartevent
) event;
INSERT INTO kanikojobs_jobattempt (
    kaniko_job_id, number, outcome, http_status, worker, started_at, finished_at, duration
)
SELECT id, 1, 'created', 201, 'bench', created_at, created_at, 0.01 FROM kanikojobs_kanikojob
WHERE created_at IS NOT NULL;
INSERT INTO kanikojobs_failuregroup (fingerprint, cause, signature, sample, deaths, open_letters)
SELECT md5(n::text), 'build-failed', 'failure ' || n, 'failure ' || n, 5000, 100
FROM generate_series(1, 40) n;
INSERT INTO kanikojobs_failuregrouphour (group_id, hour, deaths)
SELECT id, date_trunc('hour', now()) - h * interval '1 hour', 3 FROM kanikojobs_failuregroup, generate_series(0, 24) h;
INSERT INTO kanikojobs_deadletter (
    cause, state, origin, reason, fingerprint, body, message_hash, event_id, kaniko_job_id, arrived_at, first_died_at,
    last_died_at
)
SELECT 'build-failed', CASE WHEN id % 160 = 0 THEN 'open' ELSE 'replayed' END, 'queue', 'failure',
       md5((1 + id % 40)::text), repeat('x', 500)::bytea, sha256(id::text::bytea), event_id, id,
       queued_at, finished_at, finished_at
FROM kanikojobs_kanikojob WHERE state = 'failed';
INSERT INTO kanikojobs_tally (span, since, series, shard, count, seconds, buckets)
SELECT span, at, series, shard, 5, 0.05, CASE WHEN series ~ 'creation/' THEN array_fill(1::bigint, ARRAY[14])
       ELSE '{}' END
FROM (
    SELECT 'hour', date_trunc('hour', now()) - n * interval '1 hour'
    FROM generate_series(0, greatest(168, least(720, %(events)s / 2700))) n
    UNION ALL
    SELECT 'minute', date_trunc('minute', now()) - n * interval '1 minute' FROM generate_series(0, 2879) n
    UNION ALL
    SELECT 'all', 'epoch'::timestamptz
) AS slot (span, at),
unnest(ARRAY['creation/created', 'creation/retry', 'creation/refused', 'intake/queue/recorded',
             'intake/queue/duplicate', 'intake/direct/recorded', 'dead-letter/build-failed', 'finished/succeeded',
             'finished/failed/OOMKilled']) series,
generate_series(0, 5) shard;
INSERT INTO kanikojobs_heartbeat (role, instance, details)
SELECT role, role || '/1', '{"leads": true, "queue_depth": 3}'
FROM unnest(ARRAY['consumer', 'workers', 'watcher']) role;
VACUUM ANALYZE
"""


def main() -> None:
    """Ask for each page in turn and print the medians, in milliseconds, as one JSON object."""
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.core.cache import cache
    from django.db import connection
    from django.test import Client
    from django.utils import timezone

    from kanikojobs.models import Heartbeat

    settings.ALLOWED_HOSTS = ["*"]
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    user, _ = User.objects.get_or_create(username="bench", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(user)
    with connection.cursor() as cursor:
        cursor.execute("SELECT max(id) FROM kanikojobs_jobstartevent")
        newest = cursor.fetchone()[0]
    middle = newest // 2
    addresses: dict[str, tuple[str, dict[str, Any]]] = {
        "home": ("/admin/", {"window": "7d"}),
        "stats": ("/async-jobs/stats", {}),
        "event page": (f"/admin/kanikojobs/jobstartevent/{middle}/change/", {}),
        "list of events": ("/admin/kanikojobs/jobstartevent/", {"before": middle}),
        "list of failed jobs": ("/admin/kanikojobs/kanikojob/", {"state__exact": "failed", "reason": "OOMKilled"}),
        "search": ("/admin/find/", {"q": f"kaniko-job-{middle}"}),
        "metrics": ("/metrics", {}),
    }
    took: dict[str, list[float]] = {page: [] for page in PAGES}
    for _ in range(REQUESTS):
        cache.clear()  # the rate limits
        Heartbeat.objects.update(seen_at=timezone.now())
        for page, (path, query) in addresses.items():
            started = time.perf_counter()
            answer = client.get(path, query)
            took[page].append(1000 * (time.perf_counter() - started))
            if answer.status_code not in (200, 302):
                sys.exit(f"{page}: {answer.status_code}")
    print(json.dumps({page: statistics.median(times[1:]) for page, times in took.items()}))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    main()
