"""`manage.py replay_dlq`: filters, dry run, exit codes, and straight from the broker."""

import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from io import StringIO

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.utils import timezone

from kanikojobs import amqp
from kanikojobs.amqp import Publication
from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob, OperatorAction, ReplayRun
from kanikojobs.topology import topology
from tests.factories import a_dead_letter, a_failure_group, a_message
from tests.replay_cases import a_failed_build, an_expired, an_invalid
from tests.stack_plugin import StartCommand

pytestmark = pytest.mark.django_db


def replay_dlq(*arguments: str) -> str:
    out = StringIO()
    call_command("replay_dlq", *arguments, "--wait", "0", stdout=out)
    return out.getvalue()


def test_without_a_terminal_and_without_yes_it_only_plans() -> None:
    an_expired()
    an_invalid()

    said = replay_dlq()

    assert "queued for a build" in said
    assert "still invalid" in said
    assert "Nothing was replayed. Add --yes to do it." in said
    assert not ReplayRun.objects.exists()


def test_with_yes_it_replays_and_says_what_came_of_it() -> None:
    an_expired()
    a_failed_build()

    said = replay_dlq("--yes", "--note", "The registry is back.")

    run = ReplayRun.objects.get()
    assert (run.handled, run.queued, run.reason) == (2, 2, "The registry is back.")
    assert f"Replay {run.pk} has 2 dead letters." in said
    assert KanikoJob.objects.filter(state="queued").count() == 2
    action = OperatorAction.objects.get()
    assert (action.kind, action.via, action.reason) == ("replay", "command", "The registry is back.")


def test_a_dry_run_of_a_broken_letter_is_no_failure() -> None:
    an_invalid()

    said = replay_dlq("--dry-run")

    assert "still invalid: " in said


def test_it_exits_with_1_when_some_failed_again() -> None:
    an_expired()
    an_invalid()

    with pytest.raises(CommandError, match=r"1 of 2 failed again\.") as failure:
        replay_dlq("--yes")

    assert failure.value.returncode == 1


def test_it_exits_with_1_when_the_run_has_stopped_by_itself() -> None:
    for number in range(8):
        an_invalid(f"{{ {number}".encode())

    with pytest.raises(CommandError, match=r"is paused\. Stopped by itself") as failure:
        replay_dlq("--yes", "--batch", "3", "--max-failure-rate", "10")

    assert failure.value.returncode == 1
    assert ReplayRun.objects.get().state == "paused"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--yes", "--dry-run"], "contradict"),
        (["--limit", "0"], "--limit"),
        (["--rate", "0"], "rate"),
        (["--batch", "0"], "batch"),
        (["--max-failure-rate", "200"], "max_failure_rate"),
        (["--group", "abc"], "--group: write at least 8"),
        (["--group", "abcdefgh"], "--group: no group starts with"),
        (["--since", "yesterday"], "--since: 'yesterday' is no time"),
        (["--since", "25:00"], "--since: '25:00' is no time"),
        (["--reason", "no such reason"], "--reason"),
        (["--reason", "OOMKilled", "--reason", "Evicted"], "--reason: one"),
        (["--yes", "--note", "x" * 501], "--note: Say why"),
        (["--from-broker", "--id", "3"], "--from-broker"),
        (["--from-broker", "--reason", "expired"], "--from-broker"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_it_exits_with_2_when_the_arguments_make_no_sense(arguments: list[str], complaint: str) -> None:
    an_expired()

    with pytest.raises(CommandError, match=complaint) as failure:
        replay_dlq(*arguments)

    assert failure.value.returncode == 2
    assert not ReplayRun.objects.exists()


def test_an_unknown_argument_exits_with_2() -> None:
    with pytest.raises(CommandError) as failure:
        replay_dlq("--hurry")

    assert failure.value.returncode == 1 or "unrecognized" in str(failure.value)


def test_each_filter_is_understood() -> None:
    group = a_failure_group()
    chosen = a_dead_letter(cause="expired", fingerprint=group.fingerprint, third_party_id="acme", parser_id="p1")
    killed = a_dead_letter(cause="build-failed", reason="OOMKilled: more than 512Mi")
    midnight = timezone.now().strftime("%Y-%m-%dT00:00:00Z")
    filters = {
        ("--id", str(chosen.pk)): 1,
        ("--id", str(chosen.pk), "--id", str(killed.pk)): 2,
        ("--group", group.fingerprint[:8]): 1,
        ("--reason", "expired"): 1,
        ("--reason", "OOMKilled"): 1,
        ("--third-party", "acme"): 1,
        ("--parser", "p1"): 1,
        ("--parser", "p2"): 0,
        ("--since", midnight): 2,
        ("--since", "00:00"): 2,
        ("--until", midnight): 0,
        ("--limit", "1"): 1,
    }

    said = {arguments: replay_dlq("--dry-run", *arguments) for arguments in filters}

    counted = {
        arguments: int(next(line for line in text.splitlines() if "in all" in line).split("│")[2])
        for arguments, text in said.items()
    }
    assert counted == filters


def test_the_estimated_time_is_that_of_what_would_be_replayed() -> None:
    for _ in range(4):
        an_expired()

    said = replay_dlq("--dry-run", "--limit", "2", "--rate", "1")

    assert re.search(r"estimated time to hand over\W+2 s", said)


def test_a_filter_is_shown_as_it_is_and_never_as_markup() -> None:
    said = replay_dlq("--dry-run", "--third-party", "[/red]")

    assert "Plan: third party: [/red]" in said


def test_with_nothing_that_matches_all_is_well() -> None:
    assert "There is nothing to replay." in replay_dlq("--yes", "--reason", "expired")


def test_what_events_say_is_shown_as_it_is_and_never_as_markup() -> None:
    an_invalid(b'{"specversion": "[bold red]1.0[/bold red]", "id": "\\u001b[31m"}')

    said = replay_dlq("--dry-run")

    assert "\x1b" not in said


@pytest.mark.django_db(transaction=True)
def test_interrupted_it_pauses_the_run(start_command: StartCommand) -> None:
    for _ in range(30):
        an_expired()

    child = start_command("replay_dlq", "--yes", "--rate", "2", "--note", "Slowly.")
    child.wait_until(lambda: ReplayRun.objects.filter(handled__gt=0).exists(), seconds=60)
    os.kill(child.pid, signal.SIGINT)
    code = child.wait()

    run = ReplayRun.objects.get()
    assert code == 1
    assert run.state == "paused"
    assert run.note == "Interrupted (SIGINT)."
    assert 0 < run.handled < 30


@pytest.fixture
def dead_in_rabbitmq(queues: None) -> Iterator[Callable[..., None]]:
    """Puts messages with these bodies into the dead-letter queue."""
    link = amqp.connect(settings.RABBITMQ_URL, name="tests")
    amqp.declare(link, topology())

    def put(*bodies: bytes) -> None:
        amqp.publish(
            link,
            [Publication("", settings.KANIKOJOBS_DLQ, body, "application/cloudevents+json", {}) for body in bodies],
        )

    yield put
    link.close()


def still_there() -> int:
    return amqp.depths(settings.RABBITMQ_URL, queues=[settings.KANIKOJOBS_DLQ])[settings.KANIKOJOBS_DLQ]


@pytest.mark.django_db(transaction=True)
def test_straight_from_the_broker_what_is_good_is_queued_and_the_rest_is_a_dead_letter(
    dead_in_rabbitmq: Callable[..., None],
) -> None:
    bodies = [a_message().body, a_message().body, b"{ broken"]
    dead_in_rabbitmq(*bodies)

    planned = replay_dlq("--from-broker")
    with pytest.raises(CommandError, match=r"1 of 3 failed again\.") as failure:
        replay_dlq("--from-broker", "--yes")

    assert "3 messages wait" in planned
    assert failure.value.returncode == 1
    assert still_there() == 0
    assert set(JobStartEvent.objects.values_list("origin", "event_id")) == {
        ("replay", json.loads(body)["id"]) for body in bodies[:2]
    }
    assert bytes(DeadLetter.objects.get(state="open").body) == b"{ broken"


@pytest.mark.django_db(transaction=True)
def test_straight_from_the_broker_leaves_a_run_with_author_reason_and_an_outcome_for_each(
    dead_in_rabbitmq: Callable[..., None],
) -> None:
    twice = a_message().body
    dead_in_rabbitmq(twice, b"{ broken", twice, a_message().body)

    with pytest.raises(CommandError, match=r"1 of 3 failed again\."):
        replay_dlq("--from-broker", "--yes", "--note", "Draining was off.", "--batch", "2", "--probe", "3")

    run = ReplayRun.objects.get()
    action = OperatorAction.objects.get()
    outcomes = run.items.order_by("position").values_list("outcome", "event__event_id", "kaniko_job__number")
    assert (run.total, run.queued, run.invalid, run.reason) == (3, 2, 1, "Draining was off.")
    assert [outcome for outcome, _, _ in outcomes] == ["queued", "invalid", "queued"]
    assert outcomes[0][1:] == (json.loads(twice)["id"], 1)
    assert (action.kind, action.by, action.reason) == ("replay", run.author_name, "Draining was off.")


@pytest.mark.django_db(transaction=True)
def test_straight_from_the_broker_no_more_than_the_limit_is_taken(dead_in_rabbitmq: Callable[..., None]) -> None:
    dead_in_rabbitmq(*(a_message().body for _ in range(5)))

    said = replay_dlq("--from-broker", "--yes", "--limit", "2", "--batch", "1", "--rate", "50")

    assert "2 messages were taken and are 2 dead letters now." in said
    assert ReplayRun.objects.get().queued == 2
    assert still_there() == 3


@pytest.mark.django_db(transaction=True)
def test_nothing_is_taken_from_the_broker_for_a_note_that_cannot_be_kept(
    dead_in_rabbitmq: Callable[..., None],
) -> None:
    dead_in_rabbitmq(a_message().body)

    with pytest.raises(CommandError, match="--note: Say why"):
        replay_dlq("--from-broker", "--yes", "--note", "x" * 501)

    assert still_there() == 1
