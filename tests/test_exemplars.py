"""Exemplars: what a bucket of creation's histograms points at, and who gets to see it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from prometheus_client.openmetrics import parser

from kanikojobs import exemplars, tallies
from kanikojobs.models import JobAttempt
from tests.factories import a_kaniko_job, an_attempt, an_event

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def an_ended_attempt(trace_id: str = "", *, seconds: float | None, ago: float = 0.0, **fields: Any) -> JobAttempt:
    """Of a Kaniko Job that had waited twice as long as its call took."""
    ended_at = NOW - timedelta(seconds=ago)
    job = a_kaniko_job(
        event=an_event(trace_id=trace_id),
        state="created",
        queued_at=ended_at - timedelta(seconds=2 * (seconds or 0)),
        created_at=ended_at,
    )
    values = {"outcome": "created", "finished_at": ended_at, "duration": seconds} | fields
    return an_attempt(kaniko_job=job, **values)


def scraped(client: Client, name: str) -> dict[str, tuple[str, float]]:
    """By the upper bound of each bucket that has one: the trace of its exemplar, and its value."""
    response = client.get("/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"})
    (family,) = (
        family for family in parser.text_string_to_metric_families(response.content.decode()) if family.name == name
    )
    return {
        sample.labels["le"]: (sample.exemplar.labels["trace_id"], sample.exemplar.value)
        for sample in family.samples
        if sample.exemplar
    }


@pytest.mark.django_db
def test_each_bucket_points_at_its_newest_case_that_has_a_trace(client: Client) -> None:
    an_ended_attempt("a" * 32, seconds=0.2)
    an_ended_attempt("b" * 32, seconds=0.15, ago=10)
    an_ended_attempt("c" * 32, seconds=100.0, outcome="retry")
    an_ended_attempt(seconds=0.003)
    an_ended_attempt("d" * 32, seconds=None, outcome="lost")
    an_ended_attempt("e" * 32, seconds=None, outcome="started", finished_at=None)
    tallies.add({"creation/created": tallies.Increment(1, 0.2, [0] * 13 + [1])})

    calls = scraped(client, "job_creation_duration_seconds")
    waits = scraped(client, "kanikojobs_creation_delay_seconds")

    assert calls == {"0.25": ("a" * 32, 0.2), "+Inf": ("c" * 32, 100.0)}
    assert waits == {"0.5": ("a" * 32, pytest.approx(0.4))}


@pytest.mark.django_db
def test_the_plain_format_has_no_place_for_them(client: Client) -> None:
    an_ended_attempt("a" * 32, seconds=0.2)

    text = client.get("/metrics").content.decode()

    assert "job_creation_duration_seconds_bucket" in text
    assert "a" * 32 not in text


@pytest.mark.django_db
def test_only_the_newest_attempts_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exemplars, "NEWEST", 2)
    for name in "abc":
        an_ended_attempt(name * 32, seconds={"a": 0.002, "b": 0.2, "c": 20.0}[name])

    found = exemplars.newest()

    assert sorted(each.labels["trace_id"][0] for each in found.calls.values()) == ["b", "c"]
