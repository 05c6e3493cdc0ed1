"""Standing rules: off until somebody turns them on, late, slow, bounded, and on record."""

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from kanikojobs.models import DeadLetter, FailureGroup, KanikoJob, OperatorAction, ReplayRule, ReplayRun
from kanikojobs.replay import rules, runs
from kanikojobs.states import State
from kanikojobs.transience import TransientClass, classify
from tests.factories import a_message, a_replay_rule
from tests.replay_cases import AN_OPERATOR, a_failed_build, an_expired, ended, run_to_the_end

pytestmark = pytest.mark.django_db

RATE_LIMIT: Any = {
    "reason": "RegistryRateLimited",
    "message": "toomanyrequests: You have reached your pull rate limit.",
}


def long_dead(letter: DeadLetter) -> DeadLetter:
    DeadLetter.objects.filter(pk=letter.pk).update(first_died_at=timezone.now() - timedelta(hours=1))
    return letter


def test_a_rule_is_off_by_default() -> None:
    long_dead(a_failed_build(**RATE_LIMIT))
    rule = a_replay_rule()

    assert not rule.enabled
    assert rules.claim_due() == []
    assert rules.apply(rule.pk) is None


def test_an_enabled_rule_replays_what_died_of_its_trouble_and_nothing_else() -> None:
    meant = long_dead(a_failed_build(**RATE_LIMIT))
    long_dead(a_failed_build(reason="BuildStepFailed", message="exit status 1"))
    long_dead(an_expired())
    rule = a_replay_rule(enabled=True, name="rate limits", rate=5, max_failure_rate=20)

    assert rules.claim_due() == [rule.pk]
    run = rules.apply(rule.pk)

    assert run is not None
    assert [item.letter for item in run.items.all()] == [meant]
    assert (run.rule, run.rate, run.max_failure_rate) == (rule, 5, 20)
    assert (run.author_name, run.reason) == ("rule: rate limits", rule.reason)
    action = OperatorAction.objects.get()
    assert (action.kind, action.by, action.via) == ("replay", "rule: rate limits", "rule")


def test_a_rule_waits_its_delay() -> None:
    a_failed_build(**RATE_LIMIT)
    rule = a_replay_rule(enabled=True, delay=600)

    assert rules.apply(rule.pk) is None


def test_a_rule_lets_go_of_an_event_after_so_many_kaniko_jobs() -> None:
    letter = long_dead(a_failed_build(**RATE_LIMIT))
    rule = a_replay_rule(enabled=True, most_times=2)
    first = rules.apply(rule.pk)
    assert first is not None
    ReplayRun.objects.filter(pk=first.pk).update(rate=None)
    run_to_the_end(first)

    ended(KanikoJob.objects.get(event=letter.event, number=2), State.FAILED, **RATE_LIMIT)
    long_dead(DeadLetter.objects.get(state="open"))
    run_to_the_end(first)

    first.refresh_from_db()
    assert first.state == "finished"
    assert rules.apply(rule.pk) is None


def test_a_rule_has_one_run_at_a_time() -> None:
    long_dead(a_failed_build(**RATE_LIMIT))
    rule = a_replay_rule(enabled=True)
    rules.apply(rule.pk)

    long_dead(a_failed_build(**RATE_LIMIT))

    assert rules.apply(rule.pk) is None
    assert rule.runs.count() == 1


def test_what_a_rule_has_tried_in_vain_is_left_to_a_person() -> None:
    broken = a_message(specversion="0.3")
    long_dead(an_expired(broken))
    rule = a_replay_rule(enabled=True, transient_class="waited-too-long", rate=1000)
    first = rules.apply(rule.pk)
    assert first is not None

    first = run_to_the_end(first)

    assert (first.invalid, first.state) == (1, "finished")
    assert rules.apply(rule.pk) is None


def test_what_a_person_has_taken_from_a_rules_run_does_not_come_back_with_the_next() -> None:
    long_dead(a_failed_build(**RATE_LIMIT))
    rule = a_replay_rule(enabled=True)
    run = rules.apply(rule.pk)
    assert run is not None

    runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="The registry asked us to stop.")

    assert rules.apply(rule.pk) is None


def test_a_rule_that_is_switched_off_is_so_once_and_on_record() -> None:
    rule = a_replay_rule(enabled=True)

    done = [rules.switch_off(rule_id=rule.pk, author=AN_OPERATOR, reason="Enough.") for _ in range(2)]

    rule.refresh_from_db()
    action = OperatorAction.objects.get()
    assert (done, rule.enabled) == ([True, False], False)
    assert (action.kind, action.reason, action.outcome) == ("change-rule", "Enough.", "disabled")


def test_a_rule_looks_now_and_then() -> None:
    rule = a_replay_rule(enabled=True)

    assert rules.claim_due() == [rule.pk]
    assert rules.claim_due() == []


def test_who_changes_a_rule_is_on_record() -> None:
    rule = ReplayRule(name="rate limits", transient_class="rate-limited", reason="They pass.", enabled=True)

    rules.save(rule, author=AN_OPERATOR)

    action = OperatorAction.objects.get()
    assert (action.kind, action.by, action.outcome, action.target_id) == (
        "change-rule",
        "an-operator",
        "enabled",
        str(rule.pk),
    )
    assert rule.made_by == "an-operator"


@pytest.mark.parametrize(
    ("cause", "reason", "expected"),
    [
        ("expired", "It waited in the queue.", TransientClass.WAITED_TOO_LONG),
        ("maxlen", "The queue was full.", TransientClass.WAITED_TOO_LONG),
        ("build-failed", "RegistryRateLimited: x", TransientClass.RATE_LIMITED),
        ("build-failed", "BuildFailed: GET https://r/v2: TOOMANYREQUESTS: x", TransientClass.RATE_LIMITED),
        ("build-failed", "Evicted: The node was low on resource: memory.", TransientClass.EVICTED),
        (
            "build-failed",
            "PushFailed: dial tcp: connect: connection refused",
            TransientClass.REGISTRY_AWAY,
        ),
        ("build-failed", "SourceFailed: git clone: Could not resolve host: github.com", TransientClass.SOURCE_AWAY),
        ("creation-failed", "Forbidden: exceeded quota: builds", TransientClass.QUOTA),
        ("creation-failed", "CreateRetriesExhausted: 4 tries failed", TransientClass.CLUSTER_BUSY),
        ("creation-failed", "CreateRetriesExhausted: 4 tries failed: exceeded quota: b", TransientClass.QUOTA),
        ("creation-failed", "Invalid: must be no more than 63 bytes", ""),
        ("build-failed", "BuildStepFailed: exit status 1", ""),
        ("build-failed", "OOMKilled: it used more than 512Mi", ""),
        ("invalid", "data.note: connection refused", ""),
    ],
)
def test_what_passes_by_itself_is_told_from_what_does_not(cause: str, reason: str, expected: str) -> None:
    assert classify(cause=cause, reason=reason) == expected


def test_a_group_knows_its_class() -> None:
    letter = a_failed_build(**RATE_LIMIT)

    assert FailureGroup.objects.get(fingerprint=letter.fingerprint).transient_class == "rate-limited"
