"""A look at every part and permission that kanikojobs needs, in plain words, each with what to do: `manage.py doctor`.

It changes nothing. Each check stands alone, so that what is wrong with one part hides nothing of the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from django.conf import settings
from django.core import checks
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor

from kanikojobs import amqp, heartbeats, kube, overview
from kanikojobs.errors import CreationError
from kanikojobs.kube_answers import AlreadyExists
from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import Heartbeat
from kanikojobs.retention import seen
from kanikojobs.topology import topology

OLDEST_POSTGRES = 140_000
MOST_CLOCK_DIFFERENCE = 5.0  # seconds
DEEP = 1000  # messages

Right = tuple[str, str]
# What the processes ask the API server for, by the role that the deploy files give them.
CREATING: frozenset[Right] = frozenset(("jobs", verb) for verb in ("create", "get", "list"))
WATCHING: frozenset[Right] = frozenset(
    {
        *(("jobs", verb) for verb in ("get", "list", "watch", "delete")),
        *(("pods", verb) for verb in ("list", "watch")),
        ("pods/log", "get"),
        ("events", "list"),
    }
)
READING_LOGS: frozenset[Right] = frozenset({("pods", "list"), ("pods/log", "get")})


class State(StrEnum):
    WELL = "well"
    ODD = "odd"  # works, and may not be meant
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found out about a part, and what to do about it, if anything."""

    part: str
    state: State
    text: str
    advice: str = ""


def checkup(*, processes: frozenset[str]) -> Iterator[Finding]:
    """Look at every part that these processes (web, consumer, workers, watcher) need."""
    yield from _settings()
    postgres = list(_postgres())
    yield from postgres
    if processes & {"web", "consumer"}:
        yield from _rabbitmq()
    if processes & {"web", "workers", "watcher"}:
        yield from _kubernetes(processes)
    if all(finding.state != State.BAD for finding in postgres):
        yield from _signs_of_life()


def _settings() -> Iterator[Finding]:
    found = [message for message in checks.run_checks(include_deployment_checks=True) if not message.is_silenced()]
    for message in found:
        state = State.BAD if message.level >= checks.ERROR else State.ODD
        yield Finding("settings", state, f"{message.msg} ({message.id})", message.hint or "")
    if not found:
        yield Finding("settings", State.WELL, "nothing speaks against them")


def _postgres() -> Iterator[Finding]:
    try:
        yield from _postgres_in_reach()
    except Error as error:
        connection.close()
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        yield Finding(
            "Postgres",
            State.BAD,
            f"cannot be used: {text}",
            "Check DATABASE_URL, the network to it, and that the server runs.",
        )


def _postgres_in_reach() -> Iterator[Finding]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT current_setting('server_version_num')::int, current_setting('server_version'), now()")
        number, version, now = cursor.fetchone()
    if number < OLDEST_POSTGRES:
        yield Finding("Postgres", State.BAD, f"is version {version}", "PostgreSQL 14 or newer is needed.")
    apart = abs((datetime.now(UTC) - now).total_seconds())
    if apart > MOST_CLOCK_DIFFERENCE:
        yield Finding(
            "Postgres",
            State.ODD,
            f"its clock and this machine's are {apart:.0f} s apart",
            "Let both follow a time server (chrony, systemd-timesyncd): ages and charts are off by that much.",
        )
    executor = MigrationExecutor(connection)
    missing = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if missing:
        names = ", ".join(f"{migration.app_label}.{migration.name}" for migration, _ in missing[:3])
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        yield Finding("Postgres", State.BAD, f"lacks {names}{more}", "Run manage.py migrate.")
        return
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT tablename FROM pg_tables
            WHERE schemaname = current_schema() AND starts_with(tablename, 'kanikojobs_')
              AND NOT has_table_privilege(format('%I.%I', schemaname, tablename), 'SELECT, INSERT, UPDATE, DELETE')
            """
        )
        refused = [row[0] for row in cursor.fetchall()]
    if refused:
        yield Finding(
            "Postgres",
            State.BAD,
            f"does not let this user write {', '.join(refused[:3])}",
            "GRANT SELECT, INSERT, UPDATE, DELETE on its tables to the user of DATABASE_URL.",
        )
    else:
        yield Finding("Postgres", State.WELL, f"version {version}, with all tables of this version")


def _rabbitmq() -> Iterator[Finding]:
    url: str = settings.RABBITMQ_URL
    if not amqp.is_url(url):
        yield Finding(
            "RABBITMQ_URL", State.BAD, "is not set, or no URL of a broker", "Write amqp://user:password@host:5672/."
        )
        return
    wanted = topology()
    try:
        depths = amqp.depths(url, queues=[queue.name for queue in wanted.queues])
        if missing := [queue.name for queue in wanted.queues if queue.name not in depths]:
            yield Finding(
                "RabbitMQ", State.BAD, f"has no queue {' and no '.join(missing)}", "Run manage.py declare_topology."
            )
            return
        with amqp.connect(url, name="kanikojobs doctor") as link:
            # Declaring again what is there changes nothing, and makes RabbitMQ name every difference.
            amqp.declare(link, wanted)
    except amqp.TopologyConflict as conflict:
        yield Finding(
            "RabbitMQ",
            State.BAD,
            f"has other arguments: {'; '.join(conflict.differences)}",
            "manage.py declare_topology says what the ways out are.",
        )
    except amqp.CONNECTION_ERRORS as error:
        yield Finding(
            "RabbitMQ",
            State.BAD,
            f"cannot be used: {amqp.brief(error)}",
            amqp.refusal(error) or "Check RABBITMQ_URL, the network to it, and that the broker runs.",
        )
    else:
        yield from _depths(depths)


def _depths(depths: dict[str, int]) -> Iterator[Finding]:
    told = ", ".join(f"{queue} with {depth} messages" for queue, depth in depths.items())
    if depths[settings.KANIKOJOBS_QUEUE] > DEEP:
        advice = "Start more consumers (manage.py consume_queue), unless Postgres is what is slow."
        yield Finding("RabbitMQ", State.ODD, f"has {told}", advice)
    else:
        yield Finding("RabbitMQ", State.WELL, f"has {told}, as the settings want them")


def _kubernetes(processes: frozenset[str]) -> Iterator[Finding]:
    try:
        kube.probe()
    except CreationError as error:
        yield Finding(
            "Kubernetes",
            State.BAD,
            f"cannot be used: {error.reason}: {error.message}",
            "Check KUBECONFIG or the service account of this pod, and the network to the API server.",
        )
        return
    needs = {"workers": CREATING, "watcher": WATCHING, "web": READING_LOGS}
    missing: dict[Right, list[str]] = {}
    for process, rights in needs.items():
        for right in sorted(rights) if process in processes else ():
            if not kube.may(resource=right[0], verb=right[1], namespace=settings.KANIKOJOBS_NAMESPACE):
                missing.setdefault(right, []).append(process)
    for (resource, verb), wanted_by in missing.items():
        yield Finding(
            "Kubernetes",
            State.BAD,
            f"does not let this account {verb} {resource} in {settings.KANIKOJOBS_NAMESPACE}, "
            f"which {' and '.join(wanted_by)} must",
            "Grant it: deploy/kubernetes/base/builds/rbac.yaml has the roles. "
            "In a pod of one process only, name that with --process.",
        )
    if ("jobs", "create") not in missing and "workers" in processes:
        yield from _trial()
    elif not missing:
        yield Finding("Kubernetes", State.WELL, "answers, and grants what is needed")


def _trial() -> Iterator[Finding]:
    """Ask the API server whether it would take a Job as ours are, and have it make none."""
    host = next((host for host in settings.KANIKOJOBS_ALLOWED_HOSTS if "*" not in host), "github.com")
    build = Build(
        source="doctor",
        event_id="doctor",
        number=1,
        third_party_id="doctor",
        parser_id="doctor",
        job_name="doctor",
        source_url=f"https://{host.partition('/')[0]}/notifi/parsers/doctor",
    )
    try:
        body = job_manifest(build=build, options=build_options())
        kube.would_create_job(body, namespace=settings.KANIKOJOBS_NAMESPACE)
    except AlreadyExists:
        pass
    except (CreationError, ValueError) as error:
        yield Finding(
            "Kubernetes",
            State.BAD,
            f"would refuse a Job: {error}",
            "Its words name the rule: a quota, an admission webhook, a setting of KANIKOJOBS_… that it does not take.",
        )
        return
    yield Finding("Kubernetes", State.WELL, "answers, grants what is needed, and would take a Job (tried, none made)")


_COMMANDS = {
    Heartbeat.Role.CONSUMER: "manage.py consume_queue",
    Heartbeat.Role.WORKERS: "manage.py qcluster",
    Heartbeat.Role.WATCHER: "manage.py watch_jobs",
}


def _signs_of_life() -> Iterator[Finding]:
    signs = heartbeats.signs()
    for role in Heartbeat.Role:
        sign = signs.get(role)
        if sign and sign.beats:
            yield Finding(role.label, State.WELL, f"{sign.alive} running, heard {sign.age.total_seconds():.0f} s ago")
            continue
        if role == Heartbeat.Role.CONSUMER and settings.KANIKOJOBS_QUEUE_READER == "knative":
            advice = "Start manage.py consume_queue, so that what RabbitMQ dead-letters becomes rows."
            yield Finding(role.label, State.ODD, "is not running; Knative reads the queue", advice)
            continue
        ago = f"fell silent {sign.age.total_seconds() / 60:.0f} min ago" if sign else "is not running"
        yield Finding(role.label, State.BAD, ago, f"Start {_COMMANDS[role]}, or read the end of its log.")
    yield from _retention()
    now = overview.overview()
    if now.mood != "well":
        yield Finding("verdict", State.ODD, f"{now.mood}: {now.sentence}", "The admin's home shows more.")


def _retention() -> Iterator[Finding]:
    if settings.KANIKOJOBS_PRUNE_AT is None:
        yield Finding("retention", State.WELL, "is not scheduled (KANIKOJOBS_PRUNE_AT=never)")
        return
    last = seen.last_run()
    days = last.since.total_seconds() / 86400
    told = f"was finished {days:.1f} days ago" if last.finished_at else f"was not finished in {days:.1f} days"
    if last.since > seen.LATE_AFTER:
        yield Finding(
            "retention",
            State.ODD,
            f"{told}: old rows are not removed",
            "Read the workers' log for kanikojobs.tasks.prune; manage.py prune does it now.",
        )
    else:
        yield Finding("retention", State.WELL, told)
