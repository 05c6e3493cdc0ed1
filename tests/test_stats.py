"""The numbers that admin, REST and metrics share."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from kanikojobs import backlog, stats, tallies
from kanikojobs.retention import pruning
from kanikojobs.states import State
from tests.factories import a_dead_letter, a_kaniko_job
from tests.old_rows import an_old_event

pytestmark = pytest.mark.django_db

FLAT = ["worker_count", "queue_size", "max_queue_size", "total_queued", "results_count", "is_shutdown"]


def test_the_backlog_is_what_is_unfinished() -> None:
    oldest = datetime.now(UTC) - timedelta(hours=3)
    a_kaniko_job(state=State.QUEUED, queued_at=oldest)
    # Older, but no longer waiting.
    a_kaniko_job(state=State.RUNNING, queued_at=oldest - timedelta(hours=1))
    for state in (*State, State.QUEUED, State.CREATED):
        a_kaniko_job(state=state)

    waiting = backlog.backlog()

    assert (waiting.queued, waiting.creating, waiting.created, waiting.running) == (3, 1, 2, 2)
    assert waiting.oldest_queued_at == oldest


def test_without_a_backlog_nothing_is_the_oldest() -> None:
    a_kaniko_job(state=State.SUCCEEDED)

    assert backlog.backlog() == backlog.Backlog(0, 0, 0, 0, None)


def test_the_first_versions_keys_are_read_from_rows_and_tallies(settings: Settings) -> None:
    settings.KANIKOJOBS_WORKER_COUNT, settings.KANIKOJOBS_MAX_QUEUE_SIZE = 7, 70
    for state in (State.QUEUED, State.QUEUED, State.CREATING, State.CREATED, State.FAILED):
        a_kaniko_job(state=state)
    tallies.add(
        tallies.counts(
            {
                "intake/queue/recorded": 10,
                "intake/direct/recorded": 5,
                "intake/queue/duplicate": 100,
                "intake/queue/dead": 1000,
                "creation/created": 1,
                "creation/adopted": 2,
                "creation/retry": 4,
                "creation/refused": 8,
                "creation/unavailable": 16,
                "creation/lost": 32,
            }
        )
    )

    found = stats.first_version()

    assert found == {
        "worker_count": 7,
        "queue_size": 3,
        "max_queue_size": 70,
        "total_queued": 15,
        "results_count": 63,
        "is_shutdown": False,
    }
    assert list(found) == FLAT


def test_everything_has_the_flat_keys_and_the_rest_beside_them() -> None:
    a_kaniko_job(state=State.QUEUED)
    a_dead_letter()
    a_dead_letter(state="discarded")
    tallies.add(
        tallies.counts(
            {"intake/queue/recorded": 2, "intake/direct/not-ours": 3, "creation/retry": 4, "dead-letter/invalid": 5}
        )
    )

    found = stats.everything()

    assert {key: found[key] for key in FLAT} == stats.first_version()
    assert found["kaniko_jobs"]["queued"] == 1
    assert found["intake"] == {"direct": {"not_ours": 3}, "queue": {"recorded": 2}}
    assert found["attempts"] == {"retry": 4}
    assert found["dead_letters"] == {"open": 1, "recorded": {"invalid": 5}}
    assert found["settings"]["max_retries"] == 3
    assert found["settings"]["retry_delay_ms"] == 100
    assert json.dumps(found, default=str)


def test_what_was_pruned_is_told_of_the_last_run_and_ever() -> None:
    for _ in range(2):
        an_old_event()
        pruning.begin()
        pruning.prune(share=100)
    ongoing = pruning.begin()

    found = stats.everything()["retention"]

    assert found["removed"] == {"events": 1}
    assert found["removed_ever"] == {"events": 2}
    assert found["ongoing_since"] == ongoing.started_at
    assert found["finished_at"] is not None


def test_an_empty_house_has_numbers_too() -> None:
    found = stats.everything()

    assert [found[key] for key in ("queue_size", "total_queued", "results_count")] == [0, 0, 0]
    assert found["kaniko_jobs"]["oldest_queued_at"] is None


def test_open_dead_letters_are_counted_up_to_a_number() -> None:
    for _ in range(4):
        a_dead_letter()

    assert (backlog.open_dead_letters(), backlog.open_dead_letters(most=3)) == (4, 3)
