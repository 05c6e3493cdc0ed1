"""The alerts fire when they shall and are quiet when they shall be, and all that watches names metrics that exist."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.test import Client
from prometheus_client import REGISTRY

from deploy.local.debian_packages import DebianPackageError
from deploy.local.programs import find_program
from deploy.monitoring.__main__ import PROMETHEUS_RULE, RULES, prometheus_rule
from kanikojobs import heartbeats, tallies
from kanikojobs.consumer_status import ConsumerCollector, Counts
from kanikojobs.messages import IntakeResult, Outcome
from kanikojobs.metrics import PostgresCollector
from kanikojobs.models import Heartbeat
from tests.factories import a_kaniko_job

FOLDER = RULES.parent
README = (FOLDER.parents[1] / "README.md").read_text()
GROUPS: list[dict[str, Any]] = yaml.safe_load(RULES.read_text())["groups"]
ALERTS = [rule for group in GROUPS for rule in group["rules"] if "alert" in rule]
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())


@pytest.fixture(scope="session")
def promtool() -> Path:
    try:
        return find_program("promtool", package="prometheus")
    except DebianPackageError as error:
        pytest.skip(f"promtool (Debian's package prometheus) cannot be had: {error}")


@pytest.mark.parametrize("arguments", [["check", "rules", "rules.yaml"], ["test", "rules", "rules_test.yaml"]])
def test_prometheus_own_tool_finds_no_fault(promtool: Path, arguments: list[str]) -> None:
    """The second runs series through every alert: some for which it fires, and some for which it must not."""
    # It makes much garbage of little: a third of its time goes into collecting it, unless it collects less often.
    env = os.environ | {"GOGC": "400"}

    done = subprocess.run([promtool, *arguments], cwd=FOLDER, env=env, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_with_series_that_fire_and_with_series_that_do_not() -> None:
    names = [case["name"] for case in yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]]

    for alert in ALERTS:
        assert f"{alert['alert']} fires" in names
        assert any(name.startswith(f"{alert['alert']} is quiet: ") for name in names), alert["alert"]


def test_a_case_that_fires_expects_the_alert_and_one_that_is_quiet_expects_none() -> None:
    for case in yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]:
        alert, _, kind = case["name"].partition(" ")
        (expected,) = case["promql_expr_test"]
        assert f'alertname="{alert}"' in expected["expr"]
        assert len(expected["exp_samples"]) == (1 if kind == "fires" else 0), case["name"]


def test_the_prometheus_operator_gets_the_same_rules() -> None:
    assert PROMETHEUS_RULE.read_text() == prometheus_rule()
    assert yaml.safe_load(prometheus_rule())["spec"]["groups"] == GROUPS


def test_every_alert_has_its_entry_in_the_runbook_and_every_entry_its_alert() -> None:
    entries = re.findall(r"^#+ (KanikoJobs\w+)$", README, re.MULTILINE)

    assert entries == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        assert alert["annotations"]["runbook_url"] == f"README.md#{alert['alert'].lower()}"


# --- Names of metrics -----------------------------------------------------------------------------------------------


def queries() -> Iterator[tuple[str, str]]:
    for group in GROUPS:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"]


QUERIES = list(queries())
WORDS_OF_PROMQL = {"by", "max", "sum", "rate", "increase", "absent", "histogram_quantile", "and", "or", "unless"}


def names_in(query: str) -> set[str]:
    """The names of metrics in a query: what is left without strings, labels, ranges, functions and operators."""
    bare = re.sub(r"\{.*?\}|\[.*?\]|by \(.*?\)", " ", re.sub(r'"[^"]*"', '""', query), flags=re.DOTALL)
    return set(re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare)) - WORDS_OF_PROMQL


def test_the_names_in_a_query_are_found() -> None:
    query = (
        'histogram_quantile(0.9, max by (le) (rate(a_bucket{x="y{z}"}[5m]))) > 1 and b:c:ratio unless absent(d) == 0'
    )

    assert names_in(query) == {"a_bucket", "b:c:ratio", "d"}


@pytest.fixture
def exposed(transactional_db: None, settings: Any, client: Client) -> set[str]:
    """Every name of a sample that web servers and consumers give, with something of everything there."""
    settings.KANIKOJOBS_MAX_ACTIVE_JOBS = 5
    client.get("/health")
    a_kaniko_job()
    heartbeats.Pulse(Heartbeat.Role.CONSUMER).beat()
    build = tallies.Increment(bounds=tallies.BUILD_BUCKETS)
    build.observe(3)
    tallies.add({"build/succeeded": build})
    counts = Counts()
    counts.add(IntakeResult((Outcome.RECORDED,)), queue="kaniko-jobs")
    families = [*PostgresCollector().collect(), *ConsumerCollector(counts).collect(), *REGISTRY.collect()]
    # A counter with labels that has counted nothing yet has no sample; its family's name tells how one would be called.
    return {sample.name for family in families for sample in family.samples} | {
        f"{family.name}_total" for family in families if family.type == "counter"
    }


def test_every_query_asks_for_metrics_that_exist(exposed: set[str], rabbitmq: object) -> None:
    # Without queues yet RabbitMQ gives no depth; `tests.test_metrics` shows the name.
    known = exposed | RECORDED | {"rabbitmq_queue_messages_ready"}

    assert len(QUERIES) > 60
    for where, query in QUERIES:
        assert names_in(query)
        assert names_in(query) <= known, where


def test_every_metric_of_ours_is_watched_by_something(exposed: set[str]) -> None:
    asked = set().union(*(names_in(query) for _, query in QUERIES))
    families = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in exposed if name.startswith(("kanikojobs_", "job_"))
    }

    unwatched = {name for name in families if not any(used.startswith(name) for used in asked)}
    # Of single consumers: for the one who looks at one of them.
    assert {name for name in unwatched if not name.startswith("kanikojobs_consumer_")} == set()
