"""Plans: what a replay would do is what it then does, and making one changes nothing."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, FailureGroup, JobStartEvent, KanikoJob, ReplayItem
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import Pace, start
from kanikojobs.replay.selection import Selection, SelectionError, parse
from tests.factories import a_dead_letter, a_replay_item
from tests.replay_cases import AN_OPERATOR, Outcome, a_failed_build, an_expired, an_invalid, every_case, run_to_the_end

pytestmark = pytest.mark.django_db


def test_the_numbers_of_a_plan_are_those_of_the_run_with_all_cases_mixed() -> None:
    expected = every_case()

    planned = plan(selection=Selection())
    run = run_to_the_end(
        start(
            selection=Selection(),
            cut_off=planned.cut_off,
            pace=Pace(batch=4),
            author=AN_OPERATOR,
            reason="The registry is back.",
        )
    )

    happened = {outcome: run.items.filter(outcome=outcome).count() for outcome in Outcome}
    assert dict(planned.outcomes) == dict(expected)
    assert {outcome: count for outcome, count in happened.items() if count} == dict(expected)
    assert run.total == run.handled == planned.total == sum(expected.values())
    assert {outcome: getattr(run, outcome.value.replace("-", "_")) for outcome in expected} == dict(expected)


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 100])
def test_the_size_of_the_batches_changes_nothing(batch: int) -> None:
    expected = every_case()

    run = run_to_the_end(
        start(selection=Selection(), cut_off=now(), pace=Pace(batch=batch), author=AN_OPERATOR, reason="Again.")
    )

    assert {outcome: run.items.filter(outcome=outcome).count() for outcome in expected} == dict(expected)


def test_a_plan_changes_nothing() -> None:
    every_case()
    before = [list(model.objects.order_by("pk").values()) for model in (DeadLetter, JobStartEvent, KanikoJob)]

    with CaptureQueriesContext(connection) as queries:
        plan(selection=Selection())

    writing = ("INSERT", "UPDATE", "DELETE")
    assert not [query["sql"] for query in queries if any(word in query["sql"] for word in writing)]
    assert before == [list(model.objects.order_by("pk").values()) for model in (DeadLetter, JobStartEvent, KanikoJob)]


def test_what_dies_after_the_cut_off_stays_out_of_the_plan_and_of_the_run() -> None:
    an_expired()
    planned = plan(selection=Selection())
    late = an_expired()

    run = run_to_the_end(
        start(selection=Selection(), cut_off=planned.cut_off, pace=Pace(), author=AN_OPERATOR, reason="Again.")
    )

    late.refresh_from_db()
    assert planned.total == run.total == 1
    assert late.state == "open"
    assert plan(selection=Selection(), cut_off=planned.cut_off).total == 0
    assert plan(selection=Selection()).total == 1


def test_a_plan_says_why_letters_would_fail_again_and_names_one_of_each() -> None:
    broken = an_invalid(b"{")
    an_invalid(b"{ ")
    an_invalid(b'{"specversion": "1.0"}')

    problems = plan(selection=Selection()).problems

    assert [(problem.outcome, problem.count) for problem in problems] == [(Outcome.INVALID, 2), (Outcome.INVALID, 1)]
    assert problems[0].example == broken.pk
    assert "JSON" in problems[0].message


def test_what_waits_in_another_run_is_counted_apart() -> None:
    waiting, free = an_expired(), an_expired()
    a_replay_item(letter=waiting)

    planned = plan(selection=Selection())

    assert (planned.total, planned.elsewhere) == (1, 1)
    assert list(Selection().replayable(cut_off=now())) == [free]


def test_a_bounded_plan_says_that_it_is_and_how_many_there_are() -> None:
    for _ in range(5):
        an_expired()

    planned = plan(selection=Selection(), most=3)

    assert (planned.counted, planned.total, planned.is_whole) == (3, 5, False)
    assert planned.of(Outcome.QUEUED) == 3


def test_time_is_estimated_from_the_rate() -> None:
    for _ in range(4):
        an_expired()

    planned = plan(selection=Selection())

    assert planned.seconds(rate=2) == 2


def test_each_condition_chooses_its_letters() -> None:
    hours = [datetime.now(UTC) - timedelta(hours=n) for n in (3, 2, 1)]
    expired = a_dead_letter(cause="expired", third_party_id="acme", parser_id="p1", first_died_at=hours[0])
    invalid = a_dead_letter(cause="invalid", third_party_id="acme", parser_id="p2", first_died_at=hours[1])
    failed = a_failed_build(reason="OOMKilled")
    FailureGroup.objects.filter(fingerprint=failed.fingerprint).update(transient_class="evicted")
    cases: list[tuple[Selection, set[DeadLetter]]] = [
        (Selection(), {expired, invalid, failed}),
        (Selection(ids=(expired.pk, failed.pk)), {expired, failed}),
        (Selection(groups=(failed.fingerprint,)), {failed}),
        (Selection(causes=("expired", "invalid")), {expired, invalid}),
        (Selection(reason="OOMKilled"), {failed}),
        (Selection(reason="OOM"), set()),
        (Selection(third_party_id="acme"), {expired, invalid}),
        (Selection(third_party_id="acme", parser_id="p2"), {invalid}),
        (Selection(died_from=hours[1]), {invalid, failed}),
        (Selection(died_until=hours[1]), {expired}),
        (Selection(transient_class="evicted"), {failed}),
        (Selection(most_number=1), {expired, invalid, failed}),
    ]

    found = [set(selection.letters()) for selection, _ in cases]

    assert found == [letters for _, letters in cases]


def test_a_selection_survives_json_and_describes_itself() -> None:
    selection = Selection(
        ids=(1, 2), causes=("expired",), third_party_id="acme", died_from=datetime(2026, 1, 31, 14, tzinfo=UTC)
    )

    assert parse(selection.as_json()) == selection
    assert str(selection) == (
        "dead letters: 1, 2; cause: expired; third party: acme; dead since: 2026-01-31 14:00:00 UTC"
    )
    assert str(Selection()) == "all open dead letters"


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"color": "red"}, "color: no such condition"),
        ({"ids": ["1", "x"]}, "ids: 'x' is not a whole number above 0"),
        ({"ids": [0]}, "ids: '0' is not a whole number above 0"),
        ({"ids": [2**63]}, "is not a whole number above 0"),
        ({"ids": list(range(1, 10_002))}, "at most 10000"),
        ({"causes": "boredom"}, "causes: 'boredom' is not one of invalid, expired"),
        ({"groups": "abc"}, "groups: 'abc' is no fingerprint"),
        ({"died_from": "14:00"}, "died_from: '14:00' is not a time with an offset"),
        ({"died_from": "2026-01-31T14:00:00"}, "is not a time with an offset"),
        ({"died_until": "2026-13-31T14:00:00Z"}, "is not a time with an offset"),
        ({"transient_class": "bad-luck"}, "transient_class: 'bad-luck' is not one of"),
        ({"third_party_id": "a\0b"}, "third_party_id: must be a string"),
        ({"reason": 7}, "reason: must be a string"),
    ],
    ids=str,
)
def test_a_filter_that_means_nothing_is_refused_with_what_to_write(given: dict[str, object], complaint: str) -> None:
    with pytest.raises(SelectionError, match=complaint.replace("(", r"\(")):
        parse(given)


def test_an_outcome_that_a_run_can_have_has_its_counter() -> None:
    counters = {outcome.value.replace("-", "_") for outcome in ReplayItem.Outcome} - {"pending"}

    assert counters <= {field.name for field in ReplayItem.run.field.related_model._meta.fields}
