"""Fill a database with a long history: `python -m tests.seed --events 2000000 --dead-letters 200000`.

Into the empty tables of DATABASE_URL, by SQL in the server: two million events take a minute or two. The same history
is what `make bench` measures pages and replays on.
"""

import argparse
import os
import sys
import time

import psycopg

# The failures of one cause that an on-call has to replay, among those of many others.
THE_412 = 412
CAUSE = "RegistryUnavailable: dial tcp <address>: connect: connection refused"
FINGERPRINT = "f" * 64

STATEMENTS = {
    "events": """
        INSERT INTO kanikojobs_jobstartevent (
            event_id, source, type, specversion, subject, datacontenttype, dataschema, data, third_party_id, parser_id,
            correlation_id, job_name, priority, build_type, runtime, source_url, build_timeout, content_hash, origin,
            received_at, last_seen_at
        )
        SELECT 'event-' || n, 'network.notifi.kaniko-jobs', 'network.notifi.lambda.job.start', '1.0', '',
               'application/json', '', jsonb_build_object(
                   'third_party_id', 'third-party-' || n %% 500, 'parser_id', 'parser-' || n %% 20000,
                   'parameters', jsonb_build_object('source_url', 'https://github.com/notifi/parsers/' || n)
               ),
               'third-party-' || n %% 500, 'parser-' || n %% 20000, 'correlation-' || n, 'kaniko-job-' || n,
               1 + n %% 10, 'container', 'python3.11', 'https://github.com/notifi/parsers/' || n, 1800,
               sha256(n::text::bytea), 'queue', at, at
        FROM generate_series(1, %(events)s) n,
             LATERAL (
                 SELECT now() - interval '1 hour' - (%(events)s - n) * interval '30 days' / %(events)s AS at
             ) arrived
        ORDER BY n
    """,
    "Kaniko Jobs": """
        INSERT INTO kanikojobs_kanikojob (
            event_id, number, state, reason, message, name, namespace, job_uid, priority, third_party_id, parser_id,
            place, queued_at, created_at, finished_at
        )
        SELECT id, 1, state, CASE state WHEN 'failed' THEN 'RegistryUnavailable' ELSE '' END, '', 'kaniko-job-' || id,
               'kaniko-builds', gen_random_uuid(), priority, third_party_id, parser_id, 0, received_at, received_at,
               received_at + interval '90 seconds'
        FROM (
            SELECT *, CASE WHEN id %% %(every)s = 0 THEN 'failed' ELSE 'succeeded' END AS state
            FROM kanikojobs_jobstartevent
        ) event ORDER BY id
    """,
    "dead letters": """
        INSERT INTO kanikojobs_deadletter (
            cause, state, origin, reason, fingerprint, body, content_type, message_hash, ce_source, ce_id, event_id,
            kaniko_job_id, third_party_id, parser_id, arrived_at, first_died_at, last_died_at, settled_at
        )
        SELECT 'build-failed', CASE WHEN chosen OR n %% 2 = 0 THEN 'open' ELSE 'replayed' END, 'queue',
               'RegistryUnavailable: dial tcp 10.0.0.' || n %% 250 || ':443: connect: connection refused',
               CASE WHEN chosen THEN %(fingerprint)s ELSE encode(sha256((n %% 60)::text::bytea), 'hex') END,
               convert_to(jsonb_build_object('id', job.event_id, 'data', repeat('x', 400))::text, 'UTF8'),
               'application/cloudevents+json', sha256(job.id::text::bytea), 'network.notifi.kaniko-jobs',
               'event-' || job.event_id, job.event_id, job.id, third_party_id, parser_id, queued_at, finished_at,
               finished_at, CASE WHEN NOT chosen AND n %% 2 = 1 THEN finished_at END
        FROM (
            SELECT *, row_number() OVER (ORDER BY id DESC) AS n,
                   row_number() OVER (ORDER BY id DESC) <= %(the_412)s AS chosen
            FROM kanikojobs_kanikojob WHERE state = 'failed'
        ) job ORDER BY id
    """,
    "failure groups": """
        INSERT INTO kanikojobs_failuregroup (
            fingerprint, cause, signature, sample, transient_class, deaths, open_letters, third_parties,
            first_seen_at, last_seen_at
        )
        SELECT fingerprint, 'build-failed', CASE fingerprint WHEN %(fingerprint)s THEN %(cause)s ELSE
               'BuildStepFailed: cause ' || translate(left(fingerprint, 8), '0123456789', 'ghijklmnop') END,
               min(reason), 'registry-away', count(*), count(*) FILTER (WHERE state = 'open'),
               (array_agg(DISTINCT third_party_id))[:20], min(first_died_at), max(last_died_at)
        FROM kanikojobs_deadletter GROUP BY fingerprint
    """,
    "trends": """
        INSERT INTO kanikojobs_failuregrouphour (group_id, hour, deaths)
        SELECT failed.id, date_trunc('hour', letter.last_died_at, 'UTC'), count(*)
        FROM kanikojobs_deadletter letter JOIN kanikojobs_failuregroup failed USING (fingerprint) GROUP BY 1, 2
    """,
}


def seed(url: str, *, events: int, dead_letters: int, told: bool = False) -> None:
    """Fill empty tables. Some `dead_letters` of the `events` failed; `THE_412` are of one cause, all open."""
    parameters = {
        "events": events,
        "every": max(1, events // dead_letters),
        "the_412": THE_412,
        "fingerprint": FINGERPRINT,
        "cause": CAUSE,
    }
    with psycopg.connect(url, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM kanikojobs_jobstartevent LIMIT 1").fetchone():
            raise SystemExit("The tables are not empty.")
        # In one transaction: whoever interrupts it finds the indexes that are dropped here again.
        with connection.transaction():
            connection.execute("SET LOCAL synchronous_commit = off")
            connection.execute("SET LOCAL work_mem = '256MB'")
            connection.execute("SET LOCAL maintenance_work_mem = '512MB'")
            # The rows fit together; checking each against the next table would take longer than writing it.
            connection.execute("SET LOCAL session_replication_role = replica")
            indexes = _without_indexes(connection)
            for what, statement in STATEMENTS.items():
                started = time.monotonic()
                # Rendered here: the server would have to guess the types of parameters in these expressions.
                rendered = psycopg.ClientCursor(connection).mogrify(statement, parameters)
                count = connection.execute(rendered.encode()).rowcount
                if told:
                    sys.stdout.write(f"{count:>10,} {what} in {time.monotonic() - started:.0f} s\n")
            for definition in indexes:
                connection.execute(definition.encode())
        connection.execute("VACUUM ANALYZE")


def _without_indexes(connection: psycopg.Connection) -> list[str]:
    """Drop the plain indexes of the large tables; return how to make them. One built at the end costs a fifth."""
    found = connection.execute(
        """
        SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE NOT indisunique AND indrelid = ANY (
            ARRAY['kanikojobs_jobstartevent', 'kanikojobs_kanikojob', 'kanikojobs_deadletter']::regclass[]
        )
        """
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}".encode())
    return [definition for _, definition in found]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.seed", description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--dead-letters", type=int, default=200_000)
    arguments = parser.parse_args()
    if not (url := os.environ.get("DATABASE_URL")):
        parser.error("DATABASE_URL is not set")
    seed(url, events=arguments.events, dead_letters=arguments.dead_letters, told=True)


if __name__ == "__main__":
    main()
