"""Tallies: nothing is lost between processes, shards and spans, and what is rolled back was not counted."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.db import connection, transaction

from kanikojobs import tallies
from kanikojobs.models import Tally
from kanikojobs.tallies import BUCKETS, Increment, Total

pytestmark = pytest.mark.django_db


def observed(*durations: float) -> Increment:
    increment = Increment()
    for seconds in durations:
        increment.observe(seconds)
    return increment


def test_what_is_added_is_summed_per_series() -> None:
    tallies.add(tallies.counts({"intake/queue/recorded": 2, "intake/queue/dead": 1}))
    tallies.add(tallies.counts({"intake/queue/recorded": 3}))

    found = tallies.totals(prefix="intake/")

    assert found == {"intake/queue/recorded": Total(5, 0.0, ()), "intake/queue/dead": Total(1, 0.0, ())}


def test_nothing_is_no_row() -> None:
    tallies.add({})
    tallies.add(tallies.counts({"a": 0}))

    assert not Tally.objects.exists()


def test_durations_are_summed_and_fall_into_their_buckets() -> None:
    tallies.add({"creation/created": observed(0.005, 0.0051)})
    tallies.add({"creation/created": observed(60.0, 61.0, 0.0)})

    total = tallies.totals(prefix="creation/")["creation/created"]

    assert total.count == 5
    assert total.seconds == pytest.approx(121.0101)
    # A bound belongs to the bucket that it ends, as Prometheus' `le` says.
    assert total.buckets == (2, 1, *[0] * 10, 1, 1)
    assert len(total.buckets) == len(BUCKETS) + 1


@pytest.mark.parametrize("first", [True, False])
def test_a_series_may_have_counts_with_and_without_durations(first: bool) -> None:
    increments = [{"creation/lost": observed(0.1)}, tallies.counts({"creation/lost": 2})]
    for increment in increments if first else increments[::-1]:
        tallies.add(increment)

    total = tallies.totals(prefix="creation/")["creation/lost"]

    assert (total.count, sum(total.buckets)) == (3, 1)


def test_processes_write_rows_of_their_own_and_are_read_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for pid in range(100, 120):
        monkeypatch.setattr("os.getpid", lambda pid=pid: pid)
        tallies.add({"creation/created": observed(0.1)})

    total = tallies.totals(prefix="creation/")["creation/created"]

    assert (total.count, sum(total.buckets)) == (20, 20)
    assert Tally.objects.filter(span="all").count() == tallies.SHARDS


def test_the_prefix_tells_series_apart() -> None:
    tallies.add(tallies.counts({"creation/created": 1, "creation_/x": 1, "%": 1}))

    assert list(tallies.totals(prefix="creation/")) == ["creation/created"]
    assert list(tallies.totals(prefix="%")) == ["%"]


def test_a_window_counts_its_minutes_and_all_time_counts_everything() -> None:
    tallies.add(tallies.counts({"a": 1}))
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    for minutes, count in ((5, 20), (15, 400), (60 * 24, 8000)):
        Tally.objects.create(span="minute", since=now - timedelta(minutes=minutes), series="a", shard=0, count=count)

    assert tallies.totals(prefix="a", minutes=10)["a"].count == 21
    assert tallies.totals(prefix="a", minutes=20)["a"].count == 421
    assert tallies.totals(prefix="a")["a"].count == 1


@pytest.mark.parametrize("span", ["minute", "hour"])
def test_history_has_a_sum_per_span_and_series(span: str) -> None:
    tallies.add({"creation/created": observed(0.1), "creation/retry": observed(0.2), "intake/x": Increment(count=1)})
    tallies.add({"creation/created": observed(0.3)})
    start = datetime.now(UTC) - timedelta(hours=2)

    found = tallies.history(prefix="creation/", span=span, since=start)

    totals = list(found.values())
    assert sum(series["creation/created"].count for series in totals if "creation/created" in series) == 2
    assert sum(series["creation/retry"].count for series in totals if "creation/retry" in series) == 1
    assert {name for series in totals for name in series} == {"creation/created", "creation/retry"}
    assert tallies.history(prefix="creation/", span=span, since=datetime.now(UTC) + timedelta(hours=2)) == {}


def test_what_is_rolled_back_was_not_counted() -> None:
    with transaction.atomic():
        tallies.add(tallies.counts({"a": 1}))
        transaction.set_rollback(True)

    assert tallies.totals(prefix="") == {}


@pytest.mark.django_db(transaction=True)
def test_two_that_add_to_the_same_series_at_once_lose_nothing_and_do_not_lock_each_other_out() -> None:
    series = [f"series/{number}" for number in range(20)]
    start = Barrier(2)

    def add(names: list[str]) -> None:
        connection.ensure_connection()
        start.wait(timeout=60)
        try:
            for _ in range(25):
                tallies.add({name: observed(0.1) for name in names})
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(add, [series, series[::-1]]))

    assert tallies.totals(prefix="series/") == {
        name: Total(50, pytest.approx(5.0), (*[0] * 4, 50, *[0] * 9))  # type: ignore[arg-type]
        for name in series
    }


def test_reading_all_time_passes_over_the_minutes() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """
            INSERT INTO kanikojobs_tally (span, since, series, shard, count)
            SELECT 'minute', 'epoch'::timestamptz + make_interval(mins => n), 'creation/created', 0, 1
            FROM generate_series(1, 20000) n
            """
        )
        tallies.add(tallies.counts({"creation/created": 7}))
        cursor.execute("ANALYZE kanikojobs_tally")
        cursor.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) SELECT series, sum(count) FROM kanikojobs_tally "
            "WHERE span = 'all' AND starts_with(series, 'creation/') GROUP BY series"
        )
        (plan,) = cursor.fetchone()[0]

    def filtered(node: dict) -> int:
        return node.get("Rows Removed by Filter", 0) + sum(filtered(inner) for inner in node.get("Plans", []))

    assert filtered(plan["Plan"]) == 0
    assert tallies.totals(prefix="creation/")["creation/created"].count == 7


@pytest.mark.parametrize(
    ("buckets", "share", "seconds"),
    [
        ((), 0.5, None),
        ((0,) * 14, 0.5, None),
        ((10, *[0] * 13), 0.5, 0.0025),
        ((10, *[0] * 13), 1.0, 0.005),
        ((0, 10, *[0] * 12), 0.5, 0.0075),
        ((5, 0, 5, *[0] * 11), 0.5, 0.005),
        ((5, 0, 5, *[0] * 11), 0.75, 0.0175),
        ((*[0] * 13, 3), 0.99, 60.0),
    ],
)
def test_a_quantile_is_interpolated_within_its_bucket(
    buckets: tuple[int, ...], share: float, seconds: float | None
) -> None:
    assert tallies.quantile(buckets, share) == (seconds if seconds is None else pytest.approx(seconds))


def test_counts_of_several_series_add_up_and_unknown_ones_are_none() -> None:
    found = {"a": Total(1, 0.0, ()), "b": Total(2, 0.0, ())}

    assert tallies.count(found, ("a", "b", "c")) == 3
