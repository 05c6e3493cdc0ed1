"""Signs of life: written from the loop, no oftener than needed, and gone with the process that ends in order."""

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import Error
from django.db.models import F

from kanikojobs import heartbeats
from kanikojobs.models import Heartbeat
from tests.database_away import database_away
from tests.stack_plugin import StartCommand

pytestmark = pytest.mark.django_db

CONSUMER, WORKERS = Heartbeat.Role.CONSUMER, Heartbeat.Role.WORKERS


def test_a_process_that_beats_is_alive_with_what_it_says_of_itself() -> None:
    heartbeats.Pulse(CONSUMER).beat({"depth": 7})

    (beat,) = heartbeats.alive(CONSUMER)

    assert beat.details == {"depth": 7}
    assert heartbeats.alive(WORKERS) == []


@pytest.mark.django_db(transaction=True)
def test_the_file_for_the_probe_is_touched_even_while_the_database_is_away(settings: Any, tmp_path: Path) -> None:
    settings.KANIKOJOBS_LIVENESS_FILE = str(tmp_path / "alive")

    with database_away(), pytest.raises(Error):
        heartbeats.Pulse(CONSUMER).beat()

    assert (tmp_path / "alive").exists()


def test_it_writes_no_oftener_than_needed() -> None:
    pulse = heartbeats.Pulse(CONSUMER)

    written = [pulse.beat(), pulse.beat()]

    assert written == [True, False]


def test_a_process_that_fell_silent_is_not_alive_and_stays_to_be_seen() -> None:
    heartbeats.Pulse(CONSUMER).beat()
    Heartbeat.objects.update(seen_at=F("seen_at") - heartbeats.SILENT_AFTER)

    alive = heartbeats.alive(CONSUMER)

    assert alive == []
    assert Heartbeat.objects.count() == 1


def test_one_that_was_silent_for_a_day_is_forgotten_by_the_next_beat() -> None:
    Heartbeat.objects.create(role=WORKERS, instance="gone/1")
    Heartbeat.objects.update(seen_at=F("seen_at") - heartbeats.FORGOTTEN_AFTER - timedelta(seconds=1))

    heartbeats.Pulse(CONSUMER).beat()

    assert not Heartbeat.objects.filter(instance="gone/1").exists()


def test_a_process_that_ends_in_order_leaves_no_sign() -> None:
    pulse = heartbeats.Pulse(CONSUMER)
    pulse.beat()

    pulse.rest()

    assert not Heartbeat.objects.exists()


def beats(role: Heartbeat.Role) -> list[dict[str, Any]]:
    return [beat.details for beat in heartbeats.alive(role)]


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("queues", "simulator")
@pytest.mark.parametrize(
    ("role", "command", "says"),
    [
        (CONSUMER, "consume_queue", {"rabbitmq": True, "paused": False}),
        (WORKERS, "qcluster", {"workers": 1}),
        (Heartbeat.Role.WATCHER, "watch_jobs", {"leads": True}),
    ],
)
def test_each_long_running_process_gives_signs_of_life_and_leaves_none_when_asked_to_stop(
    start_command: StartCommand, role: Heartbeat.Role, command: str, says: dict[str, Any]
) -> None:
    process = start_command(command, env={"KANIKOJOBS_WORKER_COUNT": "1"})
    until(lambda: beats(role))

    (details,) = beats(role)
    process.stop()

    assert details.items() >= says.items()
    assert beats(role) == []


@pytest.mark.django_db(transaction=True)
def test_a_consumer_without_rabbitmq_lives_and_says_so(start_command: StartCommand) -> None:
    start_command("consume_queue", env={"RABBITMQ_URL": "amqp://127.0.0.1:1/"})

    until(lambda: beats(CONSUMER))

    (details,) = beats(CONSUMER)
    assert details["rabbitmq"] is False
    assert details["queue_depth"] is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("queues")
def test_the_consumer_tells_how_deep_the_queue_is(start_command: StartCommand) -> None:
    start_command("consume_queue")

    until(lambda: any(details["queue_depth"] == 0 for details in beats(CONSUMER)))
