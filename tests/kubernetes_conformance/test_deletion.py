"""Deletion: propagation, finalizers, preconditions, collections."""

from typing import Any

import pytest

from tests.kubernetes_conformance.objects import create, job
from tests.raw_kubernetes import RawKubernetes

pytestmark = pytest.mark.cluster


def test_a_job_deleted_in_the_background_is_gone_at_once(api: RawKubernetes, name: str) -> None:
    uid = create(api, job(name)).body["metadata"]["uid"]

    answer = api.delete(name, propagationPolicy="Background")

    assert (answer.status, answer.body["kind"], answer.body["status"]) == (200, "Status", "Success")
    assert answer.body["details"] == {"name": name, "group": "batch", "kind": "jobs", "uid": uid}
    assert api.get(name).status == 404


@pytest.mark.parametrize(
    ("query", "finalizer"),
    [
        ({"propagationPolicy": "Foreground"}, "foregroundDeletion"),
        ({"propagationPolicy": "Orphan"}, "orphan"),
        ({}, "orphan"),
    ],
    ids=["Foreground", "Orphan", "no policy"],
)
def test_other_deletions_wait_for_the_garbage_collector(
    api: RawKubernetes, name: str, query: dict[str, Any], finalizer: str
) -> None:
    # Without a policy a batch/v1 Job orphans its pods (registry/batch/job/strategy.go).
    create(api, job(name))

    answer = api.delete(name, **query)

    assert (answer.status, answer.body["kind"]) == (200, "Job")
    assert finalizer in answer.body["metadata"]["finalizers"]
    assert answer.body["metadata"]["deletionTimestamp"]
    assert any("child pods are preserved by default" in text for text in answer.warnings) == (not query)


def test_the_body_of_a_deletion_counts_more_than_its_query(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    answer = api.delete(name, body={"propagationPolicy": "Background"}, propagationPolicy="Foreground")

    assert (answer.body["kind"], api.get(name).status) == ("Status", 404)


def test_a_terminating_job_still_holds_its_name(api: RawKubernetes, name: str) -> None:
    create(api, job(name, metadata={"finalizers": ["example.com/hold"]}))

    deleted = api.delete(name, propagationPolicy="Background")
    taken = api.create(job(name))
    again = api.delete(name, propagationPolicy="Background")
    api.patch(name, {"metadata": {"finalizers": None}})

    assert (deleted.status, deleted.body["kind"]) == (200, "Job")
    assert (taken.status, taken.reason) == (409, "AlreadyExists")
    assert taken.body["message"] == f'object is being deleted: jobs.batch "{name}" already exists'
    assert (again.status, again.body["metadata"]["deletionTimestamp"]) == (
        200,
        deleted.body["metadata"]["deletionTimestamp"],
    )
    assert api.get(name).status == 404
    assert api.create(job(name)).status == 201


def test_a_terminating_job_takes_no_new_finalizer(api: RawKubernetes, name: str) -> None:
    create(api, job(name, metadata={"finalizers": ["example.com/hold"]}))
    api.delete(name, propagationPolicy="Background")

    answer = api.patch(name, {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})
    api.patch(name, {"metadata": {"finalizers": None}})

    # A Job's metadata is validated twice, by what is common to all objects and by its own rules.
    assert (answer.status, set(answer.causes)) == (422, {("metadata.finalizers", "FieldValueForbidden")})


@pytest.mark.parametrize("field", ["uid", "resourceVersion"])
def test_a_precondition_that_does_not_hold_is_a_conflict(api: RawKubernetes, name: str, field: str) -> None:
    create(api, job(name))

    answer = api.delete(name, body={"propagationPolicy": "Background", "preconditions": {field: "1"}})

    assert (answer.status, answer.reason, api.get(name).status) == (409, "Conflict", 200)


def test_a_precondition_that_holds_lets_the_deletion_pass(api: RawKubernetes, name: str) -> None:
    metadata = create(api, job(name)).body["metadata"]
    preconditions = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}

    answer = api.delete(name, body={"propagationPolicy": "Background", "preconditions": preconditions})

    assert (answer.status, api.get(name).status) == (200, 404)


def test_an_unknown_propagation_policy_is_invalid(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    answer = api.delete(name, propagationPolicy="Sideways")

    assert (answer.status, answer.reason) == (422, "Invalid")


def test_a_collection_is_deleted_by_label(api: RawKubernetes, name: str) -> None:
    for index in range(3):
        create(api, job(f"{name}-{index}", metadata={"labels": {"set": name if index else "kept-" + name}}))

    query = {"labelSelector": f"set={name}", "propagationPolicy": "Background"}
    answer = api.call("DELETE", api.path("jobs"), query=query)

    assert (answer.status, answer.body["kind"], len(answer.body["items"])) == (200, "JobList", 2)
    assert [api.get(f"{name}-{index}").status for index in range(3)] == [200, 404, 404]
