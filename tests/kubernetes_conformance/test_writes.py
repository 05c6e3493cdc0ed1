"""Names that are taken, versions, patches: what becomes of writes that meet."""

from typing import Any

import pytest

from tests.kubernetes_conformance.objects import create, job
from tests.raw_kubernetes import JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH, Json, RawKubernetes

pytestmark = pytest.mark.cluster


def test_a_name_that_is_taken_already_exists(api: RawKubernetes, name: str) -> None:
    first = create(api, job(name)).body

    answer = api.create(job(name))

    assert (answer.status, answer.reason) == (409, "AlreadyExists")
    assert answer.body["details"] == {"name": name, "group": "batch", "kind": "jobs"}
    assert api.get(name).body["metadata"]["uid"] == first["metadata"]["uid"]


def test_an_update_of_an_old_version_is_a_conflict(api: RawKubernetes, name: str) -> None:
    old = create(api, job(name)).body
    api.patch(name, {"metadata": {"labels": {"seen": "1"}}})

    answer = api.call("PUT", api.path("jobs", name), old)

    assert (answer.status, answer.reason) == (409, "Conflict")
    assert "the object has been modified" in answer.body["message"]


def test_an_update_without_a_version_overwrites(api: RawKubernetes, name: str) -> None:
    made = create(api, job(name)).body
    api.patch(name, {"metadata": {"labels": {"seen": "1"}}})
    del made["metadata"]["resourceVersion"]

    answer = api.call("PUT", api.path("jobs", name), made)

    assert answer.status == 200
    assert "seen" not in answer.body["metadata"]["labels"]


def test_an_update_may_not_rename(api: RawKubernetes, name: str) -> None:
    made = create(api, job(name)).body
    made["metadata"]["name"] = "another"

    answer = api.call("PUT", api.path("jobs", name), made)

    assert (answer.status, answer.reason) == (400, "BadRequest")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"template": {"spec": {"serviceAccountName": "other"}}}, "spec.template"),
        ({"completionMode": "Indexed"}, "spec.completionMode"),
        ({"podFailurePolicy": {"rules": []}}, "spec.podFailurePolicy"),
    ],
    ids=["template", "completionMode", "podFailurePolicy"],
)
def test_most_of_a_job_may_not_change(api: RawKubernetes, name: str, change: Json, field: str) -> None:
    create(api, job(name))

    answer = api.patch(name, {"spec": change})

    assert (answer.status, answer.reason) == (422, "Invalid")
    assert field in {cause for cause, _ in answer.causes}
    assert "field is immutable" in answer.body["message"]


def test_a_change_of_the_spec_raises_the_generation(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    labelled = api.patch(name, {"metadata": {"labels": {"a": "1"}}}).body["metadata"]["generation"]
    changed = api.patch(name, {"spec": {"parallelism": 3}}).body["metadata"]["generation"]

    assert (labelled, changed) == (1, 2)


def test_each_write_raises_the_version_and_one_that_changes_nothing_does_not(api: RawKubernetes, name: str) -> None:
    patch = {"metadata": {"annotations": {"a": "1"}}}

    created, changed, same = create(api, job(name)), api.patch(name, patch), api.patch(name, patch)

    assert created.version < changed.version == same.version == api.get(name).version


@pytest.mark.parametrize(
    ("kind", "patch", "labels"),
    [
        (MERGE_PATCH, {"metadata": {"labels": {"a": None, "c": "3"}}}, {"b": "2", "c": "3"}),
        (STRATEGIC_PATCH, {"metadata": {"labels": {"a": None, "c": "3"}}}, {"b": "2", "c": "3"}),
        (JSON_PATCH, [{"op": "remove", "path": "/metadata/labels/a"}], {"b": "2"}),
    ],
    ids=["merge", "strategic", "JSON Patch"],
)
def test_patches_change_what_they_name(api: RawKubernetes, name: str, kind: str, patch: Any, labels: Json) -> None:
    create(api, job(name, metadata={"labels": {"a": "1", "b": "2"}}))

    answer = api.patch(name, patch, kind=kind)

    assert (answer.status, answer.body["metadata"]["labels"]) == (200, labels)


def test_a_patch_with_an_old_version_is_a_conflict(api: RawKubernetes, name: str) -> None:
    version = create(api, job(name)).body["metadata"]["resourceVersion"]
    api.patch(name, {"metadata": {"labels": {"a": "1"}}})

    answer = api.patch(name, {"metadata": {"resourceVersion": version, "labels": {"a": "2"}}})

    assert (answer.status, answer.reason) == (409, "Conflict")


def test_a_patch_of_unknown_format_is_an_unsupported_media_type(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    answer = api.patch(name, {}, kind="application/json")

    assert (answer.status, answer.reason) == (415, "UnsupportedMediaType")
