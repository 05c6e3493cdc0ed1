"""Groups of equal failures: counted where they are recorded, bounded, and in the right state."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils import timezone

from kanikojobs import dead_letters, failure_groups, intake
from kanikojobs.failure_groups import Death
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, FailureGroup, FailureGroupHour, JobStartEvent
from kanikojobs.states import State
from tests.factories import a_message
from tests.replay_cases import a_failed_build, an_expired, an_invalid, ended, recorded

pytestmark = pytest.mark.django_db

QUEUE = JobStartEvent.Origin.QUEUE


def a_death(**changes: Any) -> Death:
    values: dict[str, Any] = {
        "fingerprint": "f" * 64,
        "cause": "invalid",
        "signature": "data.priority: <n>",
        "sample": "data.priority: 11",
        "third_party_id": "",
        "times": 1,
        "opened": True,
    }
    return Death(**values | changes)


def test_invalid_events_of_one_cause_are_one_group_with_its_count() -> None:
    broken = [a_message().body.replace(b'"source_url"', b'"source_uri"') for _ in range(5)]

    intake.record([Message(body, "application/json") for body in broken], origin=QUEUE)

    group = FailureGroup.objects.get()
    assert (group.cause, group.state, group.deaths, group.open_letters) == ("invalid", "new", 5, 5)
    assert "data.parameters.source_url: missing" in group.signature
    assert {letter.fingerprint for letter in DeadLetter.objects.all()} == {group.fingerprint}
    assert set(group.third_parties) == set(DeadLetter.objects.values_list("third_party_id", flat=True))


def test_the_same_message_again_is_one_more_death_and_no_more_open_letters() -> None:
    an_invalid(b"{")
    an_invalid(b"{")

    group = FailureGroup.objects.get()
    assert (group.deaths, group.open_letters) == (2, 1)


def test_failed_creations_and_failed_builds_are_in_groups_too() -> None:
    first, second = a_failed_build(message="exit status 1"), a_failed_build(message="exit status 1")
    other = recorded()
    dead_letters.record_failed_creations({other.pk: "must be no more than 63 bytes"})

    groups = FailureGroup.objects.order_by("cause")

    assert [(group.cause, group.deaths) for group in groups] == [("build-failed", 2), ("creation-failed", 1)]
    assert first.fingerprint == second.fingerprint
    assert first.event is not None
    assert (first.third_party_id, first.parser_id) == (first.event.third_party_id, first.event.parser_id)


def test_third_parties_are_named_up_to_a_bound() -> None:
    most = FailureGroup.MOST_THIRD_PARTIES

    failure_groups.note_deaths([a_death(third_party_id=f"party-{n}") for n in range(most - 1)])
    failure_groups.note_deaths([a_death(third_party_id="party-0"), a_death(third_party_id="last")])
    group = FailureGroup.objects.get()
    full = (len(group.third_parties), group.more_third_parties)
    failure_groups.note_deaths([a_death(third_party_id="one too many")])
    group.refresh_from_db()

    assert full == (most, False)
    assert (len(group.third_parties), group.more_third_parties) == (most, True)
    assert "one too many" not in group.third_parties


def test_more_third_parties_at_once_than_are_named() -> None:
    failure_groups.note_deaths([a_death(third_party_id=f"party-{n}") for n in range(50)])

    group = FailureGroup.objects.get()
    assert (len(group.third_parties), group.more_third_parties, group.deaths) == (20, True, 50)


def test_the_trend_is_kept_by_the_hour() -> None:
    failure_groups.note_deaths([a_death(times=3)])
    failure_groups.note_deaths([a_death(times=4)])

    hour = FailureGroupHour.objects.get()
    assert (hour.deaths, hour.hour.minute) == (7, 0)


def test_a_group_is_new_for_a_day() -> None:
    failure_groups.note_deaths([a_death()])
    FailureGroup.objects.update(first_seen_at=timezone.now() - timedelta(hours=25))

    failure_groups.note_deaths([a_death()])

    assert FailureGroup.objects.get().state == "ongoing"


@pytest.mark.parametrize(("replayed", "state"), [(True, "regressed"), (False, "ongoing")])
def test_what_comes_back_after_a_replay_has_regressed(replayed: bool, state: str) -> None:
    failure_groups.note_deaths([a_death(), a_death()])

    failure_groups.note_settled(["f" * 64], replayed=replayed)
    half = FailureGroup.objects.get()
    failure_groups.note_settled(["f" * 64], replayed=replayed)
    done = FailureGroup.objects.get()
    failure_groups.note_deaths([a_death()])

    group = FailureGroup.objects.get()
    assert (half.state, half.open_letters) == ("new", 1)
    assert (done.state, done.open_letters) == ("settled", 0)
    assert (group.state, group.open_letters) == (state, 1)
    assert (group.replayed_at is not None) == replayed


def test_what_is_recorded_and_rolled_back_is_in_no_group() -> None:
    with transaction.atomic():
        an_invalid()
        transaction.set_rollback(True)

    assert not FailureGroup.objects.exists()


def test_what_the_broker_dropped_can_be_found_by_its_event_and_its_owner() -> None:
    message = a_message()

    letter = an_expired(message)

    assert letter.ce_id
    assert letter.third_party_id
    assert letter.parser_id


def test_a_body_that_is_no_json_tells_whose_it_is_if_that_can_be_seen() -> None:
    letter = an_invalid(b'{"data": {"third_party_id": "acme", "parser_id" : "p-1", oops')

    assert (letter.third_party_id, letter.parser_id) == ("acme", "p-1")


def test_the_build_of_a_replayed_letter_that_fails_again_is_a_death_of_its_own() -> None:
    job = ended(recorded(), State.FAILED)

    assert DeadLetter.objects.get(kaniko_job=job).cause == "build-failed"
