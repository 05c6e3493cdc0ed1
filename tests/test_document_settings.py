"""The document's own settings file: what it means for the environment, and what is said of a wrong one."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from project.document_settings import variables, with_document_settings
from project.environment import Environment

# "Configuration" of the document about job start events, as it stands there.
DOCUMENT = """
rabbitmq:
  clusterName: "rabbitmq-cluster"
  namespace: "rabbitmq-dev"
  connectionSecretName: "rabbitmq-connection"
  queues:
    kanikoJobs:
      name: "kaniko-jobs"
      durable: true
      autoDelete: false
      messageTtl: 86400000
      maxLength: 10000
      overflow: "drop-head"
asyncJobCreator:
  workerCount: 5
  maxRetries: 3
  retryDelay: 100ms
  maxQueueSize: 100
"""


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(DOCUMENT)
    return path


def test_it_translates_the_documents_blocks_to_the_environment() -> None:
    found, faults = variables(yaml.safe_load(DOCUMENT))

    assert faults == []
    assert found == {
        "KANIKOJOBS_QUEUE": "kaniko-jobs",
        "KANIKOJOBS_MESSAGE_TTL_MS": "86400000",
        "KANIKOJOBS_MAX_LENGTH": "10000",
        "KANIKOJOBS_OVERFLOW": "drop-head",
        "KANIKOJOBS_WORKER_COUNT": "5",
        "KANIKOJOBS_MAX_RETRIES": "3",
        "KANIKOJOBS_RETRY_DELAY": "100ms",
        "KANIKOJOBS_MAX_QUEUE_SIZE": "100",
    }


def test_every_key_may_be_missing() -> None:
    assert variables(None) == ({}, [])
    assert variables({"rabbitmq": None}) == ({}, [])
    assert variables({"asyncJobCreator": {"workerCount": 9}}) == ({"KANIKOJOBS_WORKER_COUNT": "9"}, [])


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        pytest.param(
            {"asyncJobCreator": {"workerCounts": 5}},
            "asyncJobCreator.workerCounts is not known. Did you mean workerCount?",
            id="a misspelt key",
        ),
        pytest.param(
            {"asyncJobCreator": {"timeout": "5s"}},
            "asyncJobCreator.timeout is not known. Write one of: workerCount, maxRetries, retryDelay, maxQueueSize.",
            id="a key that is none of the document's",
        ),
        pytest.param({"postgres": {}}, "postgres is not known. Write one of: rabbitmq, asyncJobCreator.", id="a block"),
        pytest.param(
            {"rabbitmq": {"queues": {"kanikoJobs": {"durable": False}}}},
            "rabbitmq.queues.kanikoJobs.durable (False) cannot be changed: the queue is a quorum queue. Write true.",
            id="a queue that would not last",
        ),
        pytest.param(
            {"rabbitmq": {"queues": {"kanikoJobs": {"autoDelete": True}}}},
            "rabbitmq.queues.kanikoJobs.autoDelete (True) cannot be changed: the queue is a quorum queue. Write false.",
            id="a queue that goes with its consumer",
        ),
        pytest.param(
            {"rabbitmq": {"queues": {"kanikoJobs": {"maxLength": "10000"}}}},
            "rabbitmq.queues.kanikoJobs.maxLength ('10000') is not a whole number. "
            "Write it without quotes, unit or point.",
            id="a number in quotes",
        ),
        pytest.param(
            {"asyncJobCreator": {"maxRetries": True}},
            "asyncJobCreator.maxRetries (True) is not a whole number. Write it without quotes, unit or point.",
            id="a truth value for a number",
        ),
        pytest.param(
            {"rabbitmq": {"queues": {"kanikoJobs": {"name": 5}}}},
            "rabbitmq.queues.kanikoJobs.name (5) is not a text. Write it in quotes.",
            id="a number for a name",
        ),
        pytest.param(
            {"asyncJobCreator": {"retryDelay": ["100ms"]}},
            "asyncJobCreator.retryDelay (['100ms']) is not a duration. Write for example 100ms, 2s or 1m.",
            id="a list for a duration",
        ),
        pytest.param(
            {"rabbitmq": {"queues": "kaniko-jobs"}},
            "rabbitmq.queues is not a block of keys. Write below it: kanikoJobs.",
            id="a value for a block",
        ),
        pytest.param(
            ["rabbitmq"],
            "the file is not a block of keys. Write below it: rabbitmq, asyncJobCreator.",
            id="a list for the whole",
        ),
    ],
)
def test_it_says_what_to_write_instead_of_what_cannot_be_meant(document: Any, fault: str) -> None:
    found, faults = variables(document)

    assert faults == [fault]
    assert found == {}


def test_what_the_environment_sets_wins(settings_file: Path) -> None:
    environ = {
        "KANIKOJOBS_SETTINGS_FILE": str(settings_file),
        "KANIKOJOBS_WORKER_COUNT": "50",
        "KANIKOJOBS_QUEUE_FILE": "/run/secrets/queue",
        "KANIKOJOBS_MAX_RETRIES": "",
    }

    completed, faults = with_document_settings(environ)

    assert faults == []
    assert completed["KANIKOJOBS_WORKER_COUNT"] == "50"
    assert "KANIKOJOBS_QUEUE" not in completed
    assert completed["KANIKOJOBS_MAX_RETRIES"] == "3"


def test_without_a_file_the_environment_stays_as_it_is() -> None:
    assert with_document_settings({"HOME": "/"}) == ({"HOME": "/"}, [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(None, "No such file", id="no file"),
        pytest.param("rabbitmq: [", "cannot be read as YAML", id="no YAML"),
        pytest.param("\x00", "cannot be read as YAML", id="control characters"),
    ],
)
def test_it_names_a_file_that_cannot_be_read(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)

    completed, faults = with_document_settings({"KANIKOJOBS_SETTINGS_FILE": str(path)})

    assert completed == {"KANIKOJOBS_SETTINGS_FILE": str(path)}
    assert len(faults) == 1
    assert faults[0].startswith(f"KANIKOJOBS_SETTINGS_FILE names {path}")
    assert words in faults[0]
    assert "\n" not in faults[0]


def test_values_out_of_range_are_told_by_the_reader_of_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("asyncJobCreator: {retryDelay: 100, workerCount: 0}")

    completed, faults = with_document_settings({"KANIKOJOBS_SETTINGS_FILE": str(path)})
    env = Environment(completed)
    env.duration("KANIKOJOBS_RETRY_DELAY", "100ms")
    env.integer("KANIKOJOBS_WORKER_COUNT", 5, least=1)

    assert faults == []
    assert env.faults == [
        'KANIKOJOBS_RETRY_DELAY="100" has no unit. Write 100ms, 2s or 1m.',
        "KANIKOJOBS_WORKER_COUNT=0 is out of range. Write a whole number of at least 1.",
    ]
