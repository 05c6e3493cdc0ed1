"""Runs: paced, probed, stopped, resumed and cancelled; order kept; lineage both ways; the groups told."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kanikojobs import audit, dead_letters, intake, letters
from kanikojobs.database_time import now
from kanikojobs.messages import Message
from kanikojobs.models import (
    DeadLetter,
    FailureGroup,
    JobStartEvent,
    KanikoJob,
    OperatorAction,
    ReplayItem,
    ReplayRun,
)
from kanikojobs.replay import disposal, mending, results, running, runs
from kanikojobs.replay.runs import NothingToReplay, Pace, PaceError
from kanikojobs.replay.selection import Selection
from kanikojobs.states import State
from tests.factories import a_message
from tests.replay_cases import (
    AN_OPERATOR,
    LONG_AGO,
    Outcome,
    a_conflict,
    a_failed_build,
    an_expired,
    an_invalid,
    ended,
    recorded,
    run_to_the_end,
    settle_jobs,
)

pytestmark = pytest.mark.django_db


def started(selection: Selection | None = None, **how: Any) -> ReplayRun:
    limit = how.pop("limit", None)
    return runs.start(
        selection=selection or Selection(),
        cut_off=now(),
        pace=Pace(**how),
        author=AN_OPERATOR,
        reason="The registry is back.",
        limit=limit,
    )


def step(run: ReplayRun) -> ReplayRun:
    """One step, whether or not it is due."""
    ReplayRun.objects.filter(pk=run.pk).update(next_step_at=LONG_AGO)
    for due in running.claim_due(run_id=run.pk):
        running.step(due)
    run.refresh_from_db()
    return run


def test_a_letter_of_a_failed_build_makes_the_next_kaniko_job_of_its_event_and_no_new_event() -> None:
    letter = a_failed_build()

    run = run_to_the_end(started())

    letter.refresh_from_db()
    assert letter.event is not None
    first, second = KanikoJob.objects.filter(event=letter.event).order_by("number")
    item = run.items.get()
    assert JobStartEvent.objects.count() == 1
    assert (first.state, first.number, second.number) == ("failed", 1, 2)
    assert first.name != second.name
    assert (letter.state, letter.replayed_as, item.event, item.kaniko_job) == (
        "replayed",
        letter.event,
        letter.event,
        second,
    )


def test_the_second_letter_of_an_event_leads_to_the_kaniko_job_that_the_first_made() -> None:
    message = a_message()
    an_expired(message)
    ended(recorded(message), State.FAILED)

    run = run_to_the_end(started())

    following = KanikoJob.objects.get(number=2)
    assert [(item.outcome, item.kaniko_job) for item in run.items.order_by("position")] == [
        ("queued", following),
        ("duplicate", following),
    ]
    assert {letter.replayed_as_job for letter in DeadLetter.objects.all()} == {following}


def test_lineage_is_there_both_ways() -> None:
    letter = an_expired()

    run_to_the_end(started())

    event = JobStartEvent.objects.get()
    job = event.kaniko_jobs.get()
    assert event.origin == "replay"
    assert list(event.replayed_from.all()) == list(job.replayed_from.all()) == [letter]
    assert [item.letter for item in job.replay_items.all()] == [letter]
    assert [item.kaniko_job for item in letter.replay_items.all()] == [job]


def test_the_next_kaniko_job_keeps_what_was_changed_for_the_last_one() -> None:
    letter = a_failed_build()
    KanikoJob.objects.filter(event=letter.event).update(overrides={"resources": {"memory": "2Gi"}})

    run_to_the_end(started())

    assert KanikoJob.objects.get(number=2).overrides == {"resources": {"memory": "2Gi"}}


def test_a_letter_that_is_still_invalid_stays_open_with_its_faults_in_the_run() -> None:
    letter = an_invalid()

    run = run_to_the_end(started())

    letter.refresh_from_db()
    item = run.items.get()
    assert (letter.state, item.outcome, run.state) == ("open", "invalid", "finished")
    assert "JSON" in item.detail
    assert DeadLetter.objects.count() == 1


def test_http_letters_are_read_as_http() -> None:
    event = json.loads(a_message().body)
    data = json.dumps(event.pop("data")).encode()
    headers = {f"Ce-{name.title()}": f'"{value}"' for name, value in event.items() if name != "datacontenttype"}
    dead_letters.record(
        [
            letters.Letter(
                cause=DeadLetter.Cause.REJECTED,
                origin=JobStartEvent.Origin.DIRECT,
                reason="x",
                body=data,
                content_type="application/json",
                headers=headers,
            )
        ]
    )

    run_to_the_end(started())

    assert JobStartEvent.objects.get().event_id == event["id"]


def test_the_order_of_first_arrival_is_kept_within_a_third_party_and_parser() -> None:
    """Of a parser's letters, some are about new events and some about recorded ones."""
    whose = json.loads(a_message().body)["data"]

    def of_one_parser(number: int) -> Message:
        event = json.loads(a_message().body)
        event["id"] = f"{99 - number}-{event['id']}"  # so that the order of ids is another
        event["data"] |= {"third_party_id": whose["third_party_id"], "parser_id": whose["parser_id"]}
        return Message(json.dumps(event).encode(), "application/cloudevents+json")

    letters = [
        an_expired(of_one_parser(number)) if number % 4 < 2 else a_failed_build(of_one_parser(number))
        for number in range(12)
    ]
    for minutes, letter in enumerate(letters):
        DeadLetter.objects.filter(pk=letter.pk).update(arrived_at=LONG_AGO + timedelta(minutes=minutes))
    newest = KanikoJob.objects.latest("id").pk

    run_to_the_end(started(batch=5))

    replayed = KanikoJob.objects.filter(pk__gt=newest).order_by("id")
    assert [job.event.event_id for job in replayed] == [letter.ce_id for letter in letters]


def test_a_run_takes_no_more_than_its_limit_and_the_earliest_first() -> None:
    letters = [an_expired() for _ in range(4)]

    run = run_to_the_end(started(limit=2))

    assert run.total == 2
    assert {item.letter for item in run.items.all()} == set(letters[:2])


def test_a_letter_waits_in_one_run_only() -> None:
    for _ in range(3):
        an_expired()
    first = started(limit=2)

    second = started()

    assert (first.total, second.total) == (2, 1)
    with pytest.raises(NothingToReplay):
        started()


def test_a_run_that_is_cancelled_gives_back_what_waits_in_it() -> None:
    for _ in range(5):
        an_expired()
    run = step(started(batch=2))

    cancelled = runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="Wrong group.")

    run.refresh_from_db()
    assert cancelled
    assert (run.state, run.handled, run.queued, run.withdrawn) == ("cancelled", 2, 2, 3)
    assert DeadLetter.objects.filter(state="open").count() == 3
    assert started().total == 3
    assert not runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="Again.")


def test_a_paused_run_takes_nothing_until_it_is_resumed() -> None:
    for _ in range(4):
        an_expired()
    run = step(started(batch=2))

    paused = runs.pause(run_id=run.pk, author=AN_OPERATOR, reason="Lunch.")
    handled_while_paused = step(run).handled
    resumed = runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="Back.")

    assert (paused, resumed, handled_while_paused) == (True, True, 2)
    assert run_to_the_end(run).handled == 4
    assert not runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="Again.")
    assert not runs.pause(run_id=run.pk, author=AN_OPERATOR, reason="Too late.")


def test_each_action_on_a_run_has_its_row_with_author_and_reason() -> None:
    for _ in range(2):
        an_expired()
    run = started(batch=1)

    runs.pause(run_id=run.pk, author=AN_OPERATOR, reason="Lunch.")
    runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="Back.")
    runs.cancel(run_id=run.pk, author=AN_OPERATOR, reason="Enough.")

    actions = OperatorAction.objects.filter(target_type="replayrun", target_id=run.pk).order_by("id")
    assert [(action.kind, action.by, action.via, action.reason) for action in actions] == [
        ("replay", "an-operator", "command", "The registry is back."),
        ("pause-replay", "an-operator", "command", "Lunch."),
        ("resume-replay", "an-operator", "command", "Back."),
        ("cancel-replay", "an-operator", "command", "Enough."),
    ]


@pytest.mark.parametrize("reason", ["", "   ", "x" * 501, "a\0b"])
def test_nobody_acts_without_a_reason(reason: str) -> None:
    an_expired()

    with pytest.raises(audit.ReasonMissing):
        runs.start(selection=Selection(), cut_off=now(), pace=Pace(), author=AN_OPERATOR, reason=reason)

    assert not ReplayRun.objects.exists()
    assert not OperatorAction.objects.exists()


def test_the_rate_decides_how_much_a_step_takes_and_when_the_next_is_due() -> None:
    for _ in range(30):
        an_expired()
    run = started(rate=20)
    (due,) = running.claim_due(run_id=run.pk)

    taken = running.step(due)

    assert taken is not None
    assert taken.handled == 10
    assert taken.next_step_at >= due.due_at + timedelta(seconds=0.5)


def test_a_rate_is_kept_although_somebody_comes_late_for_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(30):
        an_expired()
    monkeypatch.setattr(running, "MOST_CATCHING_UP", timedelta(hours=1))
    run = started(rate=20)
    ReplayRun.objects.filter(pk=run.pk).update(next_step_at=now() - timedelta(seconds=0.3))
    (due,) = running.claim_due(run_id=run.pk)

    taken = running.step(due)

    assert taken is not None
    assert taken.next_step_at == due.due_at + timedelta(seconds=0.5)


def test_a_run_that_fell_far_behind_does_not_catch_up_at_once() -> None:
    for _ in range(30):
        an_expired()
    run = started(rate=20)
    ReplayRun.objects.filter(pk=run.pk).update(next_step_at=LONG_AGO)
    (due,) = running.claim_due(run_id=run.pk)
    before = now()

    taken = running.step(due)

    assert taken is not None
    assert taken.next_step_at >= before - running.MOST_CATCHING_UP


def test_a_claimed_step_is_taken_once() -> None:
    for _ in range(4):
        an_expired()
    run = started(batch=2)
    (due,) = running.claim_due(run_id=run.pk)

    again = running.claim_due(run_id=run.pk)
    first, second = running.step(due), running.step(due)

    assert again == []
    assert first is not None
    assert second is None
    run.refresh_from_db()
    assert run.handled == 2


def test_a_claimed_step_whose_worker_died_is_due_again_after_its_lease() -> None:
    an_expired()
    run = started()

    (due,) = running.claim_due(run_id=run.pk)

    assert due.token - now() <= running.CLAIM_LEASE
    assert step(run).handled == 1


def test_a_probe_goes_first_and_the_rest_waits_for_its_results() -> None:
    for _ in range(10):
        an_expired()
    run = step(started(probe=3))
    after_the_probe = (run.state, run.handled)

    waited = step(run).handled
    settle_jobs()
    step(run)
    judged = (run.state, run.passed)

    assert after_the_probe == ("probing", 3)
    assert waited == 3
    assert judged == ("running", 3)
    assert run_to_the_end(run).handled == 10


def test_a_probe_of_failed_builds_waits_until_the_builds_have_ended() -> None:
    for _ in range(3):
        a_failed_build()
    run = step(started(probe=1, max_failure_rate=0))
    settle_jobs()

    while_building = step(run).state
    ended(KanikoJob.objects.get(state="created"), State.SUCCEEDED)

    assert while_building == "probing"
    assert step(run).state == "running"


def test_a_run_that_is_paused_and_resumed_while_its_probe_is_out_waits_for_it_again() -> None:
    for _ in range(5):
        a_failed_build()
    run = step(step(started(probe=2)))

    runs.pause(run_id=run.pk, author=AN_OPERATOR, reason="Lunch.")
    runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="Back.")

    assert (step(run).state, run.handled) == ("probing", 2)


def test_a_probe_without_results_pauses_the_run_and_who_resumes_it_does_not_wait_for_it() -> None:
    for _ in range(5):
        a_failed_build()
    run = step(step(started(probe=2)))
    ReplayRun.objects.filter(pk=run.pk).update(settle_until=LONG_AGO)

    stopped = step(run)
    stopped_as = (stopped.state, stopped.note.partition(" after ")[0])
    runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="They only take long.")

    assert stopped_as == ("paused", "2 of the probe have no result")
    assert (step(run).state, run.handled) == ("settling", 5)


def test_the_end_of_a_run_waits_for_the_longest_build(settings: Any) -> None:
    a_failed_build()
    settings.KANIKOJOBS_MAX_BUILD_TIMEOUT = 7200

    run = step(started())

    assert run.state == "settling"
    assert run.settle_until is not None
    assert run.settle_until > now() + timedelta(hours=2)


def test_builds_that_take_long_do_not_hide_what_became_of_those_after_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        a_failed_build()
    monkeypatch.setattr(results, "MOST_LOOKED_AT", 2)
    run = step(started(max_failure_rate=50))
    jobs = list(KanikoJob.objects.filter(number=2).order_by("id"))
    for job in jobs[3:]:
        ended(job, State.FAILED)

    for _ in range(3):
        step(run)

    assert (run.failed_again, results.unknown(run)) == (2, 3)


def test_a_probe_of_which_too_many_fail_again_pauses_the_run_with_a_sentence() -> None:
    for _ in range(6):
        a_failed_build()
    run = step(started(probe=2, max_failure_rate=10))

    for job in KanikoJob.objects.filter(state="queued"):
        ended(job, State.FAILED)
    step(run)

    assert (run.state, run.failed_again, run.handled) == ("paused", 2, 2)
    assert run.note.startswith("Stopped by itself: 2 of 2 failed again (100%)")


def test_a_run_of_which_too_many_fail_again_stops_by_itself_and_a_resume_forgives_them() -> None:
    for _ in range(8):
        an_invalid(f"{{ {_}".encode())
    for _ in range(8):
        an_expired()
    run = started(batch=4, max_failure_rate=50)

    stopped = run_to_the_end(run)
    state, handled = stopped.state, stopped.handled
    runs.resume(run_id=run.pk, author=AN_OPERATOR, reason="I have seen them, go on.")
    step(run)

    assert (state, handled) == ("paused", 8)
    assert (run.state, run.handled) == ("running", 12)


def test_a_run_without_a_maximum_never_stops_by_itself() -> None:
    for number in range(8):
        an_invalid(f"{{ {number}".encode())

    assert run_to_the_end(started(batch=2)).state == "finished"


def test_results_tell_how_many_failed_again() -> None:
    for _ in range(3):
        a_failed_build()
    run = step(started())
    passing, failing, stopped = KanikoJob.objects.filter(state="queued").order_by("id")

    ended(passing, State.SUCCEEDED)
    ended(failing, State.FAILED)
    ended(stopped, State.CANCELLED)
    step(run)

    assert (run.state, run.passed, run.failed_again) == ("finished", 1, 1)
    assert sorted(run.items.values_list("result", flat=True)) == ["cancelled", "failed-again", "passed"]


def test_the_second_death_after_a_replay_makes_its_group_regressed_and_a_new_letter() -> None:
    letter = a_failed_build()
    group = FailureGroup.objects.get(fingerprint=letter.fingerprint)
    new = (group.state, group.deaths, group.open_letters)

    step(started())
    group.refresh_from_db()
    replayed = (group.state, group.deaths, group.open_letters)
    ended(KanikoJob.objects.get(number=2), State.FAILED)
    group.refresh_from_db()

    assert new == ("new", 1, 1)
    assert replayed == ("settled", 1, 0)
    assert (group.state, group.deaths, group.open_letters) == ("regressed", 2, 1)
    assert letter.event is not None
    assert letter.event.dead_letters.count() == 2


def test_a_letter_that_somebody_discards_meanwhile_is_left_alone() -> None:
    letter = an_expired()
    run = started()

    disposal.discard(selection=Selection(ids=(letter.pk,)), author=AN_OPERATOR, reason="Not needed.")
    step(run)

    letter.refresh_from_db()
    assert (letter.state, run.gone) == ("discarded", 1)
    assert not JobStartEvent.objects.exists()


def test_a_value_that_postgres_refuses_spoils_its_own_letter_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is PostgreSQL's own: a text that its index cannot hold."""
    good = [an_expired() for _ in range(4)]
    bad = json.loads(a_message().body)
    bad["data"]["parameters"]["source_url"] = "https://github.com/a/b"
    poison = an_expired(Message(json.dumps(bad).encode(), "application/cloudevents+json"))
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(
            "ALTER TABLE kanikojobs_jobstartevent ADD CONSTRAINT no_poison CHECK (event_id <> %s)", [bad["id"]]
        )

    run = run_to_the_end(started())

    assert (run.queued, run.invalid) == (4, 1)
    assert "PostgreSQL cannot store it" in run.items.get(letter=poison).detail
    assert JobStartEvent.objects.count() == len(good)


def test_a_mended_body_is_replayed_and_the_original_kept() -> None:
    letter = an_invalid(b"{ broken")
    body = a_message().body

    run = run_to_the_end(mending.replay(letter=letter, body=body, author=AN_OPERATOR, reason="A comma was missing."))

    letter.refresh_from_db()
    item = run.items.get()
    event = JobStartEvent.objects.get()
    assert bytes(letter.body) == b"{ broken"
    assert bytes(item.body or b"") == body
    assert (letter.state, letter.replayed_as, item.event) == ("replayed", event, event)
    action = OperatorAction.objects.get(kind="edit-and-replay")
    assert (action.target_type, action.target_id, action.reason) == (
        "deadletter",
        str(letter.pk),
        "A comma was missing.",
    )


def test_a_mended_body_that_is_still_invalid_is_refused_with_every_fault() -> None:
    letter = an_invalid(b"{ broken")

    with pytest.raises(mending.StillInvalid) as refusal:
        mending.replay(letter=letter, body=b'{"id": "1"}', author=AN_OPERATOR, reason="Mended.")

    assert {"source", "type", "specversion"} <= {fault.path for fault in refusal.value.faults}
    assert not ReplayRun.objects.exists()


def test_a_failed_build_that_is_mended_needs_an_id_of_its_own() -> None:
    letter = a_failed_build()
    event = json.loads(bytes(letter.body))
    event["data"]["parameters"]["source_url"] += "-2"

    same_id = mending.check(letter=letter, body=json.dumps(event).encode())
    event["id"] += "-mended"
    own_id = mending.check(letter=letter, body=json.dumps(event).encode())

    assert (same_id.outcome, own_id.outcome) == (Outcome.CONFLICT, Outcome.QUEUED)
    assert "id of its own" in same_id.faults[0].problem


def test_a_conflict_is_mended_by_another_id() -> None:
    letter = a_conflict()
    event = json.loads(bytes(letter.body)) | {"id": "another"}

    run_to_the_end(mending.replay(letter=letter, body=json.dumps(event).encode(), author=AN_OPERATOR, reason="Own id."))

    assert set(JobStartEvent.objects.values_list("event_id", flat=True)) == {letter.ce_id, "another"}


def test_discarded_letters_are_kept_and_can_be_restored() -> None:
    letter, other = an_invalid(b"{"), an_expired()

    discarded = disposal.discard(selection=Selection(causes=("invalid",)), author=AN_OPERATOR, reason="A test.")
    group = FailureGroup.objects.get(fingerprint=letter.fingerprint)
    settled = (group.state, group.open_letters)
    restored = disposal.restore(selection=Selection(ids=(letter.pk,)), author=AN_OPERATOR, reason="No test.")

    letter.refresh_from_db()
    other.refresh_from_db()
    group.refresh_from_db()
    assert (discarded.done, restored.done) == (1, 1)
    assert (letter.state, letter.settled_at, other.state) == ("open", None, "open")
    assert settled == ("settled", 0)
    assert (group.state, group.open_letters) == ("ongoing", 1)
    kinds = OperatorAction.objects.order_by("id").values_list("kind", "reason")
    assert list(kinds) == [("discard", "A test."), ("restore", "No test.")]


def test_a_letter_whose_message_died_again_meanwhile_is_not_opened_twice() -> None:
    letter = an_invalid(b"{")
    disposal.discard(selection=Selection(ids=(letter.pk,)), author=AN_OPERATOR, reason="A test.")
    again = an_invalid(b"{")

    restored = disposal.restore(selection=Selection(ids=(letter.pk,)), author=AN_OPERATOR, reason="No test.")

    assert (restored.done, restored.left) == (0, 1)
    assert list(DeadLetter.objects.filter(state="open")) == [again]


@pytest.mark.parametrize(
    ("pace", "complaint"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": -1}, "rate"),
        ({"rate": 1e6}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"batch": 0}, "batch"),
        ({"batch": 1001}, "batch"),
        ({"probe": -1}, "probe"),
        ({"max_failure_rate": 101}, "max_failure_rate"),
        ({"max_failure_rate": -1}, "max_failure_rate"),
    ],
    ids=str,
)
def test_a_pace_that_cannot_be_is_refused(pace: dict[str, Any], complaint: str) -> None:
    with pytest.raises(PaceError, match=complaint):
        Pace(**pace)


def test_a_replay_is_counted_as_intake_and_by_outcome() -> None:
    from kanikojobs import tallies

    an_expired()
    an_invalid()

    run_to_the_end(started())

    counted = {series: total.count for series, total in tallies.totals(prefix="replay/").items()}
    assert counted == {"replay/queued": 1, "replay/invalid": 1}
    assert tallies.totals(prefix="intake/replay/")["intake/replay/recorded"].count == 1


def test_events_are_queued_where_the_settings_say(settings: Any) -> None:
    a_failed_build()

    run_to_the_end(started())

    assert KanikoJob.objects.get(number=2).namespace == settings.KANIKOJOBS_NAMESPACE


def test_a_letter_whose_event_is_recorded_while_its_step_is_taken_is_active() -> None:
    """The forecast sees nothing, and the insert runs into the row: one Kaniko Job, not two."""
    message = a_message()
    letter = an_expired(message)
    recorded(message)

    run = run_to_the_end(started())

    assert run.items.get(letter=letter).outcome == Outcome.ACTIVE
    assert KanikoJob.objects.count() == 1


def test_the_time_of_first_arrival_of_a_failed_build_is_that_of_its_event() -> None:
    intake.record([a_message()], origin=JobStartEvent.Origin.QUEUE)
    JobStartEvent.objects.update(received_at=datetime(2026, 1, 1, tzinfo=UTC))

    ended(KanikoJob.objects.get(), State.FAILED)

    assert DeadLetter.objects.get().arrived_at == datetime(2026, 1, 1, tzinfo=UTC)


def test_the_states_of_a_run_cover_its_items() -> None:
    assert {"pending", "withdrawn"} <= set(ReplayItem.Outcome.values)
