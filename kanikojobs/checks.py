"""System checks: what only shows when settings are put together. Each has an id and a hint of what to write.

`kanikojobs.E001` is not here: a value that cannot be read at all stops the start (`project.environment`).
"""

import re
from typing import Any

from django.conf import settings
from django.core import checks

from kanikojobs.cloudevent.attributes import MAX_SOURCE_LENGTH, MAX_TYPE_LENGTH
from kanikojobs.cloudevent.hostile_text import text_problem
from kanikojobs.manifest.settings import build_options
from kanikojobs.retention.checks import check_events_kept, check_tallies_kept


def register_all() -> None:
    checks.register(check_timeouts)
    checks.register(check_rabbitmq_url)
    checks.register(check_build_options)
    checks.register(check_names)
    checks.register(check_ways_in)
    checks.register(check_events_kept)
    checks.register(check_tallies_kept)
    checks.register(check_sink_token, deploy=True)
    checks.register(check_metrics_token, deploy=True)
    checks.register(check_caps, deploy=True)


def check_timeouts(**_: Any) -> list[checks.CheckMessage]:
    found: list[checks.CheckMessage] = []
    timeout, lease = settings.KANIKOJOBS_TASK_TIMEOUT, settings.KANIKOJOBS_LEASE
    cluster: dict[str, Any] = settings.Q_CLUSTER
    if lease <= timeout:
        found.append(
            checks.Error(
                f"KANIKOJOBS_LEASE ({lease.total_seconds():g}s) is not longer than "
                f"KANIKOJOBS_TASK_TIMEOUT ({timeout.total_seconds():g}s).",
                hint="A row would be claimed again while its first worker may still be at it. "
                f"Write a lease of at least {timeout.total_seconds() * 1.5:g}s.",
                id="kanikojobs.E002",
            )
        )
    if cluster["retry"] <= cluster["timeout"]:
        found.append(
            checks.Error(
                f"Django-Q2's retry ({cluster['retry']}s) is not longer than its timeout ({cluster['timeout']}s).",
                hint="Django-Q2 would run a task again while it still runs. "
                "Make KANIKOJOBS_LEASE longer than KANIKOJOBS_TASK_TIMEOUT.",
                id="kanikojobs.E003",
            )
        )
    api = settings.KANIKOJOBS_KUBERNETES_TIMEOUT
    if timeout < 4 * api:
        found.append(
            checks.Error(
                f"KANIKOJOBS_TASK_TIMEOUT ({timeout.total_seconds():g}s) is shorter than four times "
                f"KANIKOJOBS_KUBERNETES_TIMEOUT ({api.total_seconds():g}s).",
                hint="A worker would be killed while it waits for the API server. "
                f"Write a task timeout of at least {4 * api.total_seconds():g}s, or a shorter Kubernetes timeout.",
                id="kanikojobs.E004",
            )
        )
    return found


def check_rabbitmq_url(**_: Any) -> list[checks.CheckMessage]:
    if settings.RABBITMQ_URL:
        return []
    return [
        checks.Warning(
            "RABBITMQ_URL is not set: nothing can be consumed or replayed through RabbitMQ.",
            hint="Write amqp://user:password@host:5672/, or name a file with it in RABBITMQ_URL_FILE.",
            id="kanikojobs.W001",
        )
    ]


def check_build_options(**_: Any) -> list[checks.CheckMessage]:
    try:
        build_options()
    except ValueError as error:
        name, colon, problem = str(error).partition(": ")
        return [
            checks.Error(
                f"KANIKOJOBS_{name.upper()} cannot work{colon}{problem}.",
                hint="Every Job would be refused. The README's table of settings has an example of each.",
                id="kanikojobs.E005",
            )
        ]
    return []


def check_names(**_: Any) -> list[checks.CheckMessage]:
    """What is written into every row has to fit there."""
    problems: dict[str, str] = {}
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", settings.KANIKOJOBS_NAMESPACE):
        problems["KANIKOJOBS_NAMESPACE"] = "not a name of at most 63 lower-case letters, digits and hyphens"
    for name, most in (("KANIKOJOBS_EVENT_SOURCE", MAX_SOURCE_LENGTH), ("KANIKOJOBS_EVENT_TYPE", MAX_TYPE_LENGTH)):
        if problem := text_problem(getattr(settings, name), max_length=most):
            problems[name] = problem
    return [
        checks.Error(
            f"{name} cannot work: {problem}.",
            hint="Every event would become a dead letter.",
            id="kanikojobs.E006",
        )
        for name, problem in problems.items()
    ]


def check_ways_in(**_: Any) -> list[checks.CheckMessage]:
    """Knative brings what it reads from the queue over HTTP."""
    if settings.KANIKOJOBS_DIRECT_EVENTS == "accept" or settings.KANIKOJOBS_QUEUE_READER == "consumer":
        return []
    return [
        checks.Error(
            "No event can come in: Knative reads the queue and posts here, and direct events are refused.",
            hint="Write KANIKOJOBS_DIRECT_EVENTS=accept, or let a consumer read the queue: "
            "KANIKOJOBS_QUEUE_READER=consumer.",
            id="kanikojobs.E009",
        )
    ]


def check_sink_token(**_: Any) -> list[checks.CheckMessage]:
    if settings.KANIKOJOBS_SINK_TOKEN or settings.KANIKOJOBS_DIRECT_EVENTS == "reject":
        return []
    return [
        checks.Warning(
            "Anybody who reaches this server can ask for builds: KANIKOJOBS_SINK_TOKEN is not set.",
            hint="Set a bearer token, let a network policy admit only the broker, or refuse direct events with "
            "KANIKOJOBS_DIRECT_EVENTS=reject.",
            id="kanikojobs.W002",
        )
    ]


def check_metrics_token(**_: Any) -> list[checks.CheckMessage]:
    if settings.KANIKOJOBS_METRICS_TOKEN:
        return []
    return [
        checks.Warning(
            "/metrics is readable without a token: KANIKOJOBS_METRICS_TOKEN is not set.",
            hint="Set a bearer token that Prometheus sends, or let a network policy admit only Prometheus.",
            id="kanikojobs.W003",
        )
    ]


def check_caps(**_: Any) -> list[checks.CheckMessage]:
    missing = [
        name
        for name in ("KANIKOJOBS_MAX_ACTIVE_JOBS", "KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY")
        if not getattr(settings, name)
    ]
    if not missing:
        return []
    return [
        checks.Warning(
            f"Nothing limits how many builds are in the cluster at once: {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} 0.",
            hint="A burst becomes as many pods. Write as many as the cluster can hold, and fewer for one third party, "
            "for example 50 and 10; or leave it to Kueue with KANIKOJOBS_KUEUE_QUEUE and silence this.",
            id="kanikojobs.W004",
        )
    ]
