"""The model on paper: what a rate asks for, what it warns of, and that its constants are what the bench measures."""

import json
import re
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from pytest_django import Settings

from kanikojobs import capacity
from kanikojobs.capacity import CASES, Measured, Need, Wanted, measured, needs
from tests.deployment import CHECKOUT

EVEN = Measured(
    intake_rate=1000, intake_cpu=100, creation_rate=100, creation_cpu=5, bytes_per_event=1000, api_creates=500
)


def need(part: str, **wanted: float) -> Need:
    (found,) = (line for line in needs(Wanted(**wanted), constants=EVEN) if line.part.startswith(part))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    ("rate", "consumers", "workers"),
    [(1, "2, ", "2, "), (100, "2, ", "2, "), (101, "2, ", "3, "), (1000, "2, ", "20, "), (1001, "3, ", "21, ")],
)
def test_processes_are_planned_at_half_of_what_one_can_do_and_never_one_alone(
    rate: float, consumers: str, workers: str
) -> None:
    assert need("consumers", rate=rate).needs.startswith(consumers)
    assert need("worker", rate=rate).needs.startswith(workers)


@pytest.mark.parametrize(
    ("part", "wanted", "says"),
    [
        ("consumers", {"rate": 1000}, "0.10 cores in all"),
        ("worker", {"rate": 100}, "0.50 cores in all"),
        ("RabbitMQ", {"rate": 200}, "50 s without a consumer until 10,000"),
        ("Postgres", {"rate": 100, "days_kept": 10}, "8.6 GB a day, 86 GB in 10 days"),
        ("API server", {"rate": 50}, "10% of 500 creates/s"),
        ("builds", {"rate": 10, "build_seconds": 60}, "600 pods, 6 nodes"),
        ("etcd", {"rate": 1, "build_seconds": 100, "job_ttl": 900}, "1,000 Jobs with their pods"),
    ],
)
def test_each_part_is_told_what_it_has_to_bear(part: str, wanted: dict[str, float], says: str) -> None:
    assert says in need(part, **wanted).needs


@pytest.mark.parametrize(
    ("part", "within", "beyond", "warns"),
    [
        ("RabbitMQ", {"rate": 166}, {"rate": 167}, "KANIKOJOBS_MAX_LENGTH"),
        ("API server", {"rate": 250}, {"rate": 251}, "measure yours"),
        ("builds", {"rate": 2500}, {"rate": 2501}, "150,000 pods"),
        ("etcd", {"rate": 10}, {"rate": 200}, "lower KANIKOJOBS_JOB_TTL to "),
    ],
)
def test_a_limit_that_is_passed_is_warned_of(
    part: str, within: dict[str, float], beyond: dict[str, float], warns: str
) -> None:
    assert need(part, **within).warning == ""
    assert warns in need(part, **beyond).warning


def test_the_lifetime_that_is_advised_is_within_the_limit() -> None:
    advised = int(re.findall(r"to (\d+)s", need("etcd", rate=100).warning)[0])

    assert need("etcd", rate=100, job_ttl=advised).warning == ""


@pytest.mark.parametrize("wanted", [{"rate": 0}, {"rate": -1}, {"rate": 1, "build_seconds": -1}])
def test_a_load_that_is_none_is_refused(wanted: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        needs(Wanted(**wanted))  # type: ignore[arg-type]


def test_every_line_says_what_it_rests_on() -> None:
    assert all(line.basis and line.because for line in needs(Wanted(rate=200)))


# --- Where the constants come from ------------------------------------------------------------------------------------


def test_the_constants_are_measured_by_cases_that_the_bench_has() -> None:
    cases = "".join(path.read_text() for path in (CHECKOUT / "tests" / "bench").glob("*.py"))

    for case, metric in CASES.values():
        assert f'name="{case}"' in cases
        assert f'"{metric}": ' in cases


def test_another_machines_measurements_take_the_place_of_ours() -> None:
    entries = [
        {"case": "intake: a burst", "metric": "rate", "value": 1234.5, "unit": "events/s"},
        {"case": "something else", "metric": "rate", "value": 1, "unit": "events/s"},
    ]

    found = measured(entries)

    assert found.intake_rate == 1234.5
    assert found.creation_rate == Measured().creation_rate


# --- The command ------------------------------------------------------------------------------------------------------


def capacity_of(*arguments: str) -> str:
    said = StringIO()
    call_command("capacity", *arguments, stdout=said)
    return " ".join(said.getvalue().split())


def test_the_command_prints_a_line_per_part_by_the_settings(settings: Settings, tmp_path: Path) -> None:
    settings.KANIKOJOBS_JOB_TTL, settings.KANIKOJOBS_MAX_LENGTH = 40, 4000
    bench = tmp_path / "bench.json"
    bench.write_text(json.dumps([{"case": "creation: a burst", "metric": "rate", "value": 80}]))

    said = capacity_of("--rate", "200", "--build-seconds", "60", f"--bench={bench}")

    assert "200 events/s, builds of 60 s" in said
    assert "20 s without a consumer" in said
    assert "one creates 80 Jobs/s" in said
    assert "20,000 Jobs with their pods" in said


@pytest.mark.parametrize("text", ["{", '{"a": 1}', "[1]", '[{"metric": "rate"}]'])
def test_a_file_that_is_no_result_of_the_bench_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bench.json").write_text(text)

    with pytest.raises(CommandError, match="is no result of `make bench`"):
        capacity_of("--rate", "1", f"--bench={tmp_path / 'bench.json'}")


def test_the_readmes_worked_example_is_what_the_model_says() -> None:
    readme = (CHECKOUT / "README.md").read_text()
    example = readme.partition("## How much of what")[2].partition("\n## ")[0]

    for line in capacity.needs(Wanted(rate=200)):
        assert f"| {line.part} | {line.needs} |" in example
