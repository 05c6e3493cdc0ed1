"""What a wrong environment is answered with: every fault at once, with an id and what to write, and no secret."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

CHECKOUT = Path(__file__).resolve().parent.parent
SECRET = "s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret"
LEAST = {
    "DJANGO_SECRET_KEY": SECRET,
    "DJANGO_ALLOWED_HOSTS": "kanikojobs.example",
    "DATABASE_URL": "postgres://user:s3cret@localhost:5432/kanikojobs",
}


def manage(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """`manage.py` with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=CHECKOUT,
        env={"PATH": os.environ["PATH"]} | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def settings_of(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> dict[str, Any]:
    """The settings of an environment, read anew in this process."""
    for name in list(os.environ):
        if name.startswith(("KANIKOJOBS_", "DJANGO_", "DATABASE_", "RABBITMQ_", "KUBECONFIG")):
            monkeypatch.delenv(name)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return runpy.run_path(str(CHECKOUT / "project" / "settings.py"))


def faults_of(monkeypatch: pytest.MonkeyPatch, env: dict[str, str]) -> list[str]:
    with pytest.raises(ImproperlyConfigured) as told:
        settings_of(monkeypatch, env)
    return str(told.value).splitlines()


def test_the_check_tells_what_is_missing_one_a_line_and_without_a_traceback() -> None:
    ended = manage("check", env={})

    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.splitlines() == [
        "kanikojobs.E001: DJANGO_SECRET_KEY is not set. Write at least 50 random characters, or name a file with them "
        "in DJANGO_SECRET_KEY_FILE.",
        "kanikojobs.E001: DJANGO_ALLOWED_HOSTS is not set. Write the host names that this serves, with commas between "
        "them.",
        "kanikojobs.E001: DATABASE_URL is not set. Write for example postgres://user:password@host:5432/kanikojobs.",
    ]


def test_the_check_tells_wrong_values_and_missing_ones_together() -> None:
    env = LEAST | {"DJANGO_SECRET_KEY": "", "KANIKOJOBS_RETRY_DELAY": "100", "KANIKOJOBS_WORKER_COUNT": "five"}

    ended = manage("check", env=env)

    assert ended.returncode == 2
    assert [line.split(" ")[1].split("=")[0] for line in ended.stderr.splitlines()] == [
        "DJANGO_SECRET_KEY",
        "KANIKOJOBS_WORKER_COUNT",
        "KANIKOJOBS_RETRY_DELAY",
    ]
    assert 'KANIKOJOBS_RETRY_DELAY="100" has no unit. Write 100ms, 2s or 1m.' in ended.stderr


def test_the_check_passes_with_what_is_demanded_and_warns_of_what_is_wise() -> None:
    ended = manage("check", env=LEAST)

    assert ended.returncode == 0
    assert "kanikojobs.W001" in ended.stderr
    assert "RABBITMQ_URL is not set" in ended.stderr


def test_the_check_for_deployment_warns_of_doors_without_a_token() -> None:
    ended = manage("check", "--deploy", env=LEAST | {"RABBITMQ_URL": "amqp://localhost/"})

    assert ended.returncode == 0
    assert "kanikojobs.W002" in ended.stderr
    assert "kanikojobs.W003" in ended.stderr
    assert "kanikojobs.W001" not in ended.stderr
    assert SECRET not in ended.stderr


def test_traces_without_what_they_need_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))

    (fault,) = faults_of(monkeypatch, LEAST | {"KANIKOJOBS_TRACES": "1"})

    assert fault.startswith("KANIKOJOBS_TRACES is on and OpenTelemetry is not installed. Run pip install -r deploy/")
    assert settings_of(monkeypatch, LEAST)["KANIKOJOBS_TRACES"] is False


@pytest.mark.parametrize("template", ["https://traces.example/", "{trace_id}", "javascript:alert('{trace_id}')"])
def test_the_address_of_traces_has_a_place_for_the_trace(monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    env = LEAST | {"KANIKOJOBS_TRACE_URL": template}

    (fault,) = faults_of(monkeypatch, env)

    assert fault.startswith(f'KANIKOJOBS_TRACE_URL="{template}" is no address with a place for the trace. Write for')


def test_the_check_fails_with_settings_that_cannot_work_together() -> None:
    env = LEAST | {"KANIKOJOBS_LEASE": "60s", "KANIKOJOBS_TASK_TIMEOUT": "60s", "KANIKOJOBS_KUBERNETES_TIMEOUT": "20s"}

    ended = manage("check", env=env)

    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    for id in ("E002", "E003", "E004"):
        assert f"kanikojobs.{id}" in ended.stderr


def test_a_database_url_that_cannot_be_read_is_told_without_its_password_and_without_a_traceback() -> None:
    ended = manage("check", env=LEAST | {"DATABASE_URL": "postgres://user:s3c#ret@localhost:5432/kanikojobs"})

    assert ended.returncode == 2
    assert ended.stderr.startswith("kanikojobs.E001: DATABASE_URL cannot be read")
    assert "percent-encoded" in ended.stderr
    assert "s3c" not in ended.stderr.replace(SECRET, "")
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "url",
    [
        "postgres://user:s3cret@localhost:port/kanikojobs",
        "postgres://user:s3c#ret@localhost/kanikojobs",
        "postgres://user:s3cret@[::1/kanikojobs",
        "s3cret",
        "user:s3cret@localhost/kanikojobs",
        "oracle-nosuch://user:s3cret@localhost/kanikojobs",
        "mysql://user:s3cret@localhost/kanikojobs",
        "sqlite:////tmp/s3cret",
    ],
)
def test_a_database_url_that_is_none_is_one_fault_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    faults = faults_of(monkeypatch, LEAST | {"DATABASE_URL": url})

    assert len(faults) == 1
    assert faults[0].startswith("DATABASE_URL ")
    assert "postgres://user:password@host:5432/" in faults[0]
    assert "s3c" not in faults[0]


@pytest.mark.parametrize("url", ["amqp://user:s3c#ret@host/", "http://user:s3cret@host/", "host:5672"])
def test_a_rabbitmq_url_that_is_none_is_one_fault_without_its_password(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    faults = faults_of(monkeypatch, LEAST | {"RABBITMQ_URL": url})

    assert faults == [
        "RABBITMQ_URL cannot be read. Write for example amqp://user:password@host:5672/, with special characters "
        "percent-encoded."
    ]


@pytest.mark.parametrize("name", ["DJANGO_SECRET_KEY", "DATABASE_URL", "RABBITMQ_URL", "KANIKOJOBS_SINK_TOKEN"])
def test_a_secret_can_come_from_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    values = LEAST | {"RABBITMQ_URL": "amqp://host/", "KANIKOJOBS_SINK_TOKEN": "token"}
    file = tmp_path / name
    file.write_text(values.pop(name) + "\n")

    settings = settings_of(monkeypatch, values | {f"{name}_FILE": str(file)})

    assert settings["SECRET_KEY"] == SECRET
    assert settings["DATABASES"]["default"]["PASSWORD"] == "s3cret"
    assert settings["RABBITMQ_URL"] == "amqp://host/"
    assert settings["KANIKOJOBS_SINK_TOKEN"] == "token"


def test_the_defaults_are_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, LEAST)

    assert settings["DEBUG"] is False
    assert settings["SECRET_KEY"] == SECRET
    assert settings["ALLOWED_HOSTS"] == ["kanikojobs.example"]
    assert settings["SESSION_COOKIE_SECURE"] is True
    assert settings["CSRF_COOKIE_SECURE"] is True
    directives = settings["CONTENT_SECURITY_POLICY"]["DIRECTIVES"]
    assert directives["default-src"] == ["'none'"]
    assert not {"'unsafe-inline'", "'unsafe-eval'", "*"} & {
        source for sources in directives.values() for source in sources
    }


def test_debug_asks_for_neither_a_secret_key_nor_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, {"DJANGO_DEBUG": "1", "DATABASE_URL": LEAST["DATABASE_URL"]})

    assert settings["DEBUG"] is True
    assert settings["SECRET_KEY"]
    assert "*" not in settings["ALLOWED_HOSTS"]


PROMISED = {
    "KANIKOJOBS_QUEUE": "kaniko-jobs",
    "KANIKOJOBS_DLQ": "kaniko-jobs.dlq",
    "KANIKOJOBS_DLX": "dlx",
    "KANIKOJOBS_MESSAGE_TTL_MS": 86_400_000,
    "KANIKOJOBS_MAX_LENGTH": 10_000,
    "KANIKOJOBS_OVERFLOW": "drop-head",
    "KANIKOJOBS_WORKER_COUNT": 5,
    "KANIKOJOBS_MAX_RETRIES": 3,
    "KANIKOJOBS_MAX_QUEUE_SIZE": 100,
    "KANIKOJOBS_EVENT_TYPE": "network.notifi.lambda.job.start",
    "KANIKOJOBS_EVENT_SOURCE": "network.notifi.kaniko-jobs",
    "KANIKOJOBS_DIRECT_EVENTS": "accept",
}


def test_the_defaults_are_the_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch, LEAST)

    assert {name: settings[name] for name in PROMISED} == PROMISED
    assert settings["KANIKOJOBS_RETRY_DELAY"].total_seconds() == 0.1


def test_the_queue_of_tasks_never_runs_one_for_ever_or_twice_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = settings_of(monkeypatch, LEAST)["Q_CLUSTER"]

    assert cluster["retry"] > cluster["timeout"]
    assert cluster["max_attempts"] == 1
    assert cluster["ack_failures"] is True
