"""Selectors and pages."""

from uuid import uuid4

import pytest

from tests.kubernetes_conformance.objects import create, job
from tests.raw_kubernetes import RawKubernetes

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def painted(api: RawKubernetes) -> str:
    """Three Jobs `red`, `blue` and `plain` with a label that nothing else has; its value."""
    mark = uuid4().hex
    for colour in ("red", "blue"):
        create(api, job(f"{colour}-{mark}", metadata={"labels": {"mark": mark, "colour": colour}}))
    create(api, job(f"plain-{mark}", metadata={"labels": {"mark": mark}}))
    return mark


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("colour=red", ["red"]),
        ("colour==red", ["red"]),
        ("colour!=red", ["blue", "plain"]),
        ("colour in (red, blue)", ["blue", "red"]),
        ("colour notin (red,green)", ["blue", "plain"]),
        ("colour", ["blue", "red"]),
        ("!colour", ["plain"]),
        ("colour=red,colour=blue", []),
        ("colour in (red),mark", ["red"]),
    ],
)
def test_label_selectors(api: RawKubernetes, painted: str, selector: str, found: list[str]) -> None:
    names = api.names(labelSelector=f"mark={painted},{selector}")

    assert names == [f"{colour}-{painted}" for colour in found]


@pytest.mark.parametrize("selector", ["a=b=c", "in (", "a in b", "=x", "a==" + "v" * 64])
def test_a_label_selector_that_makes_no_sense_is_a_bad_request(api: RawKubernetes, selector: str) -> None:
    answer = api.call("GET", api.path("jobs"), query={"labelSelector": selector})

    assert (answer.status, answer.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("metadata.name=red-{}", ["red"]),
        ("metadata.name!=red-{}", ["blue", "plain"]),
        ("status.successful=0", ["blue", "plain", "red"]),
    ],
)
def test_field_selectors(api: RawKubernetes, painted: str, selector: str, found: list[str]) -> None:
    names = api.names(labelSelector=f"mark={painted}", fieldSelector=selector.format(painted))

    assert names == [f"{colour}-{painted}" for colour in found]


def test_a_field_that_cannot_be_selected_by_is_a_bad_request(api: RawKubernetes) -> None:
    answer = api.call("GET", api.path("jobs"), query={"fieldSelector": "spec.backoffLimit=0"})

    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert 'field label "spec.backoffLimit" not supported' in answer.body["message"]


def test_a_list_comes_in_pages_with_one_version(api: RawKubernetes, painted: str) -> None:
    query: dict[str, str | int] = {"labelSelector": f"mark={painted}", "limit": 2}

    first = api.call("GET", api.path("jobs"), query=query).body
    second = api.call("GET", api.path("jobs"), query=query | {"continue": first["metadata"]["continue"]}).body

    items = [*first["items"], *second["items"]]
    assert [item["metadata"]["name"].partition("-")[0] for item in items] == ["blue", "plain", "red"]
    assert len(first["items"]) == 2
    assert "continue" not in second["metadata"]
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]


def test_a_list_is_of_a_kind_and_its_items_are_not_told_theirs(api: RawKubernetes, painted: str) -> None:
    body = api.call("GET", api.path("jobs"), query={"labelSelector": f"mark={painted}"}).body

    assert (body["kind"], body["apiVersion"]) == ("JobList", "batch/v1")
    assert all("kind" not in item for item in body["items"])


def test_a_continue_token_that_is_none_is_a_bad_request(api: RawKubernetes) -> None:
    answer = api.call("GET", api.path("jobs"), query={"limit": 1, "continue": "nonsense"})

    assert (answer.status, answer.reason) == (400, "BadRequest")
