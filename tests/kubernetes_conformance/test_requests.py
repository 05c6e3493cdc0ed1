"""Paths, methods and dry runs."""

import pytest

from tests.kubernetes_conformance.objects import create, job
from tests.raw_kubernetes import RawKubernetes

pytestmark = pytest.mark.cluster


def test_an_unknown_path_is_404_and_a_wrong_method_405(api: RawKubernetes) -> None:
    answers = [
        api.call("GET", "/apis/nothing.example.com/v1/things").status,
        api.call("GET", f"/apis/batch/v1/namespaces/{api.namespace}/jugs").status,
        api.call("POST", api.path("jobs", "some-name"), {}).status,
        api.call("PUT", api.path("jobs"), {}).status,
    ]

    assert answers == [404, 404, 405, 405]


def test_the_server_says_its_version_and_that_it_is_ready(api: RawKubernetes) -> None:
    version = api.call("GET", "/version").body

    assert (version["major"], api.call("GET", "/readyz", headers={"Accept": "*/*"}).text) == ("1", "ok")


def test_a_job_in_a_namespace_that_does_not_exist_is_not_found(api: RawKubernetes, name: str) -> None:
    answer = api.call("POST", "/apis/batch/v1/namespaces/no-such-namespace/jobs", job(name))

    assert (answer.status, answer.reason) == (404, "NotFound")
    assert answer.body["details"] == {"name": "no-such-namespace", "kind": "namespaces"}


def test_listing_a_namespace_that_does_not_exist_gives_nothing(api: RawKubernetes) -> None:
    answer = api.call("GET", "/apis/batch/v1/namespaces/no-such-namespace/jobs")

    assert (answer.status, answer.body["items"]) == (200, [])


def test_a_missing_job_is_not_found_by_name(api: RawKubernetes) -> None:
    for answer in (api.get("no-such-job"), api.delete("no-such-job"), api.patch("no-such-job", {})):
        assert (answer.status, answer.reason) == (404, "NotFound")
        assert answer.body["details"] == {"name": "no-such-job", "group": "batch", "kind": "jobs"}


METADATA_ALONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"


def test_who_asks_for_the_metadata_of_a_job_gets_that_alone(api: RawKubernetes, name: str) -> None:
    headers = {"Accept": f"{METADATA_ALONE},application/json"}

    made = api.call("POST", api.path("jobs"), job(name), headers=headers)
    found = api.call("GET", api.path("jobs", name), headers=headers)

    for answer, status in ((made, 201), (found, 200)):
        assert answer.status == status
        assert sorted(answer.body) == ["apiVersion", "kind", "metadata"]
        assert (answer.body["apiVersion"], answer.body["kind"]) == ("meta.k8s.io/v1", "PartialObjectMetadata")
    assert made.body["metadata"]["uid"] == found.body["metadata"]["uid"] == api.get(name).body["metadata"]["uid"]


def test_a_refusal_is_whole_though_metadata_was_asked_for(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    answer = api.call("POST", api.path("jobs"), job(name), headers={"Accept": METADATA_ALONE})

    assert (answer.status, answer.reason, answer.body["kind"]) == (409, "AlreadyExists", "Status")


def test_a_dry_run_answers_and_stores_nothing(api: RawKubernetes, name: str) -> None:
    answer = api.create(job(name), query={"dryRun": "All"})

    assert (answer.status, answer.body["spec"]["completions"]) == (201, 1)
    assert answer.body["metadata"]["uid"]
    assert api.get(name).status == 404


def test_a_dry_run_is_refused_as_the_real_thing_would_be(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    taken = api.create(job(name), query={"dryRun": "All"})
    broken = api.create(job(name, spec={"backoffLimit": -1}), query={"dryRun": "All"})

    assert (taken.status, taken.reason, broken.status) == (409, "AlreadyExists", 422)


def test_a_dry_run_of_another_kind_is_invalid(api: RawKubernetes, name: str) -> None:
    answer = api.create(job(name), query={"dryRun": "Some"})

    assert (answer.status, answer.causes) == (422, [("dryRun", "FieldValueNotSupported")])


def test_a_dry_deletion_deletes_nothing(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    answer = api.delete(name, dryRun="All", propagationPolicy="Background")

    assert (answer.status, "deletionTimestamp" in api.get(name).body["metadata"]) == (200, False)
