"""The system checks: each fault of settings that were put together has its id, its names and a hint."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core import checks
from pytest_django import Settings

from kanikojobs.overview import WINDOWS
from kanikojobs.retention.checks import LEAST_FOR_CHARTS


@pytest.fixture(autouse=True)
def sound(settings: Settings) -> None:
    """Settings of which no check complains."""
    settings.RABBITMQ_URL = "amqp://localhost/"
    settings.KANIKOJOBS_SINK_TOKEN = "token"
    settings.KANIKOJOBS_METRICS_TOKEN = "token"
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 50
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY = 10


def found() -> dict[str, checks.CheckMessage]:
    """What the checks say of this application, by id."""
    messages = checks.run_checks(include_deployment_checks=True)
    return {str(message.id): message for message in messages if str(message.id).startswith("kanikojobs.")}


def test_sound_settings_are_passed_over_in_silence() -> None:
    assert found() == {}


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


CASES: list[tuple[str, dict[str, Any], str, str]] = [
    (
        "E002",
        {"KANIKOJOBS_LEASE": seconds(60), "KANIKOJOBS_TASK_TIMEOUT": seconds(60)},
        "KANIKOJOBS_LEASE (60s) is not longer than KANIKOJOBS_TASK_TIMEOUT (60s).",
        "Write a lease of at least 90s.",
    ),
    (
        "E003",
        {"Q_CLUSTER": {"retry": 60, "timeout": 60}},
        "retry (60s) is not longer than its timeout (60s).",
        "Make KANIKOJOBS_LEASE longer",
    ),
    (
        "E004",
        {"KANIKOJOBS_KUBERNETES_TIMEOUT": seconds(15.5)},
        "KANIKOJOBS_TASK_TIMEOUT (60s) is shorter than four times KANIKOJOBS_KUBERNETES_TIMEOUT (15.5s).",
        "Write a task timeout of at least 62s",
    ),
    ("E005", {"KANIKOJOBS_DESTINATION": "registry/{nonsense}:1"}, "KANIKOJOBS_DESTINATION cannot work: ", "README"),
    ("E005", {"KANIKOJOBS_KANIKO_ARGUMENTS": ["-v"]}, "KANIKOJOBS_KANIKO_ARGUMENTS cannot work: ", "README"),
    ("E005", {"KANIKOJOBS_BUILD_RESOURCES": {"ram": "1Gi"}}, "KANIKOJOBS_BUILD_RESOURCES cannot work: 'ram'", "README"),
    ("E005", {"KANIKOJOBS_SECRET_ENVIRONMENT": {"A": "b"}}, "A=b is not ARGUMENT=secret/key", "README"),
    ("E005", {"KANIKOJOBS_PRIORITY_CLASSES": {"11": "high"}}, "KANIKOJOBS_PRIORITY_CLASSES cannot work", "README"),
    ("E005", {"KANIKOJOBS_RUNTIMES": "/no/such/folder"}, "KANIKOJOBS_RUNTIMES cannot work: /no/such/folder", "README"),
    ("E006", {"KANIKOJOBS_NAMESPACE": "n" * 64}, "KANIKOJOBS_NAMESPACE cannot work: ", "dead letter"),
    ("E006", {"KANIKOJOBS_NAMESPACE": "Builds"}, "KANIKOJOBS_NAMESPACE cannot work: ", "dead letter"),
    ("E006", {"KANIKOJOBS_EVENT_SOURCE": "s" * 513}, "KANIKOJOBS_EVENT_SOURCE cannot work: 513 char", "dead letter"),
    ("E006", {"KANIKOJOBS_EVENT_TYPE": "a\nb"}, "KANIKOJOBS_EVENT_TYPE cannot work: has U+000A", "dead letter"),
    (
        "E007",
        {"KANIKOJOBS_KEEP_EVENTS": timedelta(hours=47)},
        "KANIKOJOBS_KEEP_EVENTS (47h) is too short: a message may come again for 24h",
        "Write at least 48h, or 0s",
    ),
    (
        "E007",
        {"KANIKOJOBS_KEEP_EVENTS": timedelta(days=7), "KANIKOJOBS_MESSAGE_TTL_MS": 4 * 86_400_000},
        "may come again for 96h",
        "Write at least 192h",
    ),
    (
        "E007",
        {"KANIKOJOBS_KEEP_EVENTS": timedelta(days=7), "KANIKOJOBS_JOB_TTL": 7 * 86_400},
        "a Job stays in the cluster for 168h",
        "Write at least 192h",
    ),
    (
        "E008",
        {"KANIKOJOBS_KEEP_TALLIES": timedelta(days=7)},
        "KANIKOJOBS_KEEP_TALLIES (168h) is shorter than what the charts show",
        "Write at least 192h, or 0s",
    ),
    ("W005", {"KANIKOJOBS_DRAIN_DLQ": False}, "KANIKOJOBS_DRAIN_DLQ is 0", "KANIKOJOBS_KEEP_EVENTS=0s"),
    (
        "E009",
        {"KANIKOJOBS_QUEUE_READER": "knative", "KANIKOJOBS_DIRECT_EVENTS": "reject"},
        "No event can come in",
        "KANIKOJOBS_QUEUE_READER=consumer",
    ),
    ("W001", {"RABBITMQ_URL": ""}, "RABBITMQ_URL is not set", "RABBITMQ_URL_FILE"),
    ("W002", {"KANIKOJOBS_SINK_TOKEN": ""}, "KANIKOJOBS_SINK_TOKEN is not set", "KANIKOJOBS_DIRECT_EVENTS=reject"),
    ("W003", {"KANIKOJOBS_METRICS_TOKEN": ""}, "KANIKOJOBS_METRICS_TOKEN is not set", "network policy"),
    ("W004", {"KANIKOJOBS_MAX_ACTIVE_JOBS": 0}, "at once: KANIKOJOBS_MAX_ACTIVE_JOBS is 0", "50 and 10"),
    ("W004", {"KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY": 0}, "_PER_THIRD_PARTY is 0", "50 and 10"),
]


@pytest.mark.parametrize(("id", "changes", "message", "hint"), CASES)
def test_a_fault_has_its_id_its_name_and_a_hint(
    settings: Settings, id: str, changes: dict[str, Any], message: str, hint: str
) -> None:
    for name, value in changes.items():
        setattr(settings, name, value)

    told = found()

    assert list(told) == [f"kanikojobs.{id}"]
    (fault,) = told.values()
    assert message in fault.msg
    assert hint in str(fault.hint)
    assert fault.level == (checks.ERROR if id.startswith("E") else checks.WARNING)


def test_what_is_kept_for_ever_is_never_kept_too_short(settings: Settings) -> None:
    settings.KANIKOJOBS_KEEP_EVENTS = settings.KANIKOJOBS_KEEP_TALLIES = timedelta()
    settings.KANIKOJOBS_DRAIN_DLQ = False

    assert found() == {}


def test_a_runtime_template_without_its_head_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "rust.Dockerfile").write_text("FROM scratch\n")
    settings.KANIKOJOBS_RUNTIMES = str(tmp_path)

    fault = found()["kanikojobs.E005"]

    assert fault.msg.startswith("KANIKOJOBS_RUNTIMES cannot work: ")
    assert "rust.Dockerfile" in fault.msg


def test_a_sink_that_refuses_everything_needs_no_token(settings: Settings) -> None:
    settings.KANIKOJOBS_SINK_TOKEN = ""
    settings.KANIKOJOBS_DIRECT_EVENTS = "reject"

    assert found() == {}


def test_the_charts_show_no_more_than_is_kept_at_least() -> None:
    assert max(window.length for window in WINDOWS) < LEAST_FOR_CHARTS
