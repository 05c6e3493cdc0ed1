"""Which manifests are taken, and what is made of them."""

import json
from uuid import uuid4

import pytest

from tests.kubernetes_conformance.objects import container, create, job
from tests.raw_kubernetes import Json, RawKubernetes

pytestmark = pytest.mark.cluster


def test_a_job_name_of_63_characters_is_accepted(api: RawKubernetes) -> None:
    long_name = "n" + uuid4().hex + "x" * 30

    answer = api.create(job(long_name))

    assert (len(long_name), answer.status) == (63, 201)


def test_a_job_name_of_64_characters_is_refused_as_a_label_of_the_pod_template(api: RawKubernetes) -> None:
    # registry/batch/job/strategy.go puts the name into two labels of the template.
    answer = api.create(job("n" * 64))

    assert (answer.status, answer.reason) == (422, "Invalid")
    assert set(answer.causes) == {("spec.template.labels", "FieldValueInvalid")}
    assert "must be no more than 63 " in answer.body["message"]


@pytest.mark.parametrize(
    "bad",
    ["Upper", "under_score", "-start", "end-", "a..b", "a b", "ümlaut", "n" * 254],
    ids=["upper case", "underscore", "starts with -", "ends with -", "empty part", "space", "not ascii", "254 long"],
)
def test_a_job_name_has_to_be_a_dns_subdomain(api: RawKubernetes, bad: str) -> None:
    answer = api.create(job(bad))

    assert (answer.status, answer.reason) == (422, "Invalid")
    assert ("metadata.name", "FieldValueInvalid") in answer.causes
    assert answer.body["details"]["kind"] == "Job"
    assert answer.body["details"]["group"] == "batch"


def test_a_job_without_a_name_is_refused(api: RawKubernetes) -> None:
    answer = api.create(job(""))

    assert (answer.status, ("metadata.name", "FieldValueRequired") in answer.causes) == (422, True)


def test_a_generated_name_starts_with_what_was_asked_for(api: RawKubernetes) -> None:
    asked = job("", metadata={"generateName": "build-"})
    del asked["metadata"]["name"]

    names = {create(api, asked).body["metadata"]["name"] for _ in range(3)}

    assert len(names) == 3
    assert all(made.startswith("build-") and len(made) == len("build-") + 5 for made in names)


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("app", "v" * 63, True),
        ("app", "v" * 64, False),
        ("app", "", True),
        ("app", "a_b.c-D", True),
        ("app", "-a", False),
        ("app", "a b", False),
        ("app", "a/b", False),
        ("app", "é", False),
        ("k" * 63, "v", True),
        ("k" * 64, "v", False),
        ("example.com/" + "k" * 63, "v", True),
        ("example.com/" + "k" * 64, "v", False),
        ("p" * 63 + "." + "p" * 63 + "/k", "v", True),
        ("Example.com/k", "v", False),
        ("/k", "v", False),
        ("a/b/c", "v", False),
        ("", "v", False),
    ],
)
def test_labels_have_rules(api: RawKubernetes, name: str, key: str, value: str, accepted: bool) -> None:
    answer = api.create(job(name, metadata={"labels": {key: value}}))

    assert answer.status == (201 if accepted else 422)
    if not accepted:
        assert set(answer.causes) == {("metadata.labels", "FieldValueInvalid")}


@pytest.mark.parametrize(("size", "status"), [(256 * 1024, 201), (256 * 1024 + 1, 422)], ids=["256 KiB", "more"])
def test_annotations_may_have_256_kib_in_all(api: RawKubernetes, name: str, size: int, status: int) -> None:
    answer = api.create(job(name, metadata={"annotations": {"note": "x" * (size - len("note"))}}))

    assert answer.status == status
    if status == 422:
        assert answer.causes == [("metadata.annotations", "FieldValueTooLong")]


_CONTAINER = "spec.template.spec.containers[0]"
_POD = "spec.template.spec"
_POLICY = "spec.podFailurePolicy.rules[0]"


@pytest.mark.parametrize(
    ("spec", "pod_spec", "field", "kind"),
    [
        ({"backoffLimit": -1}, {}, "spec.backoffLimit", "FieldValueInvalid"),
        ({"activeDeadlineSeconds": -1}, {}, "spec.activeDeadlineSeconds", "FieldValueInvalid"),
        ({"ttlSecondsAfterFinished": -1}, {}, "spec.ttlSecondsAfterFinished", "FieldValueInvalid"),
        ({"parallelism": -1}, {}, "spec.parallelism", "FieldValueInvalid"),
        ({"completionMode": "Sometimes"}, {}, "spec.completionMode", "FieldValueNotSupported"),
        ({}, {"restartPolicy": "Always"}, f"{_POD}.restartPolicy", "FieldValueRequired"),
        ({}, {"restartPolicy": "Perhaps"}, f"{_POD}.restartPolicy", "FieldValueNotSupported"),
        ({}, {"containers": []}, f"{_POD}.containers", "FieldValueRequired"),
        ({}, container(image=""), f"{_CONTAINER}.image", "FieldValueRequired"),
        ({}, container(name="Kaniko"), f"{_CONTAINER}.name", "FieldValueInvalid"),
        ({}, container(name="k" * 64), f"{_CONTAINER}.name", "FieldValueInvalid"),
        ({}, container(imagePullPolicy="Now"), f"{_CONTAINER}.imagePullPolicy", "FieldValueNotSupported"),
        ({}, container(env=[{"name": "A=B"}]), f"{_CONTAINER}.env[0].name", "FieldValueInvalid"),
        ({}, container(env=[{"name": ""}]), f"{_CONTAINER}.env[0].name", "FieldValueRequired"),
        (
            {},
            container(env=[{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]),
            f"{_CONTAINER}.env[0].valueFrom",
            "FieldValueInvalid",
        ),
        (
            {},
            container(volumeMounts=[{"name": "nowhere", "mountPath": "/x"}]),
            f"{_CONTAINER}.volumeMounts[0].name",
            "FieldValueNotFound",
        ),
        (
            {},
            {"volumes": [{"name": "a", "emptyDir": {}}, {"name": "a", "emptyDir": {}}]},
            f"{_POD}.volumes[1].name",
            "FieldValueDuplicate",
        ),
        (
            {},
            {"containers": container()["containers"] * 2},
            "spec.template.spec.containers[1].name",
            "FieldValueDuplicate",
        ),
        (
            {},
            container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            f"{_CONTAINER}.resources.requests",
            "FieldValueInvalid",
        ),
        ({}, {"serviceAccountName": "Not_A_Name"}, f"{_POD}.serviceAccountName", "FieldValueInvalid"),
        ({}, {"activeDeadlineSeconds": 0}, f"{_POD}.activeDeadlineSeconds", "FieldValueInvalid"),
        (
            {"podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}},
            {"restartPolicy": "OnFailure"},
            f"{_POD}.restartPolicy",
            "FieldValueInvalid",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0]}}]}},
            {},
            f"{_POLICY}.onExitCodes.values[0]",
            "FieldValueInvalid",
        ),
        (
            {
                "podFailurePolicy": {
                    "rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [2, 1]}}]
                }
            },
            {},
            f"{_POLICY}.onExitCodes.values",
            "FieldValueInvalid",
        ),
        (
            {"podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": []}}]}},
            {},
            f"{_POLICY}.onExitCodes.values",
            "FieldValueInvalid",
        ),
        (
            {
                "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "A"}]}]},
                "podReplacementPolicy": "TerminatingOrFailed",
            },
            {},
            "spec.podReplacementPolicy",
            "FieldValueNotSupported",
        ),
    ],
)
def test_a_broken_manifest_is_refused_by_field(
    api: RawKubernetes, name: str, spec: Json, pod_spec: Json, field: str, kind: str
) -> None:
    answer = api.create(job(name, spec=spec, pod=pod_spec))

    assert (answer.status, answer.reason) == (422, "Invalid")
    assert (field, kind) in answer.causes
    assert answer.body["message"].startswith(f'Job.batch "{name}" is invalid: ')


def test_all_faults_of_a_manifest_are_reported_at_once(api: RawKubernetes, name: str) -> None:
    answer = api.create(job(name, spec={"backoffLimit": -1, "parallelism": -1}))

    assert {field for field, _ in answer.causes} == {"spec.backoffLimit", "spec.parallelism"}


def test_an_environment_variable_may_be_given_twice(api: RawKubernetes, name: str) -> None:
    twice = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]

    answer = api.create(job(name, pod=container(env=twice)))

    assert answer.status == 201


@pytest.mark.parametrize(
    ("raw", "content_type", "status", "reason"),
    [
        (b"{", "application/json", 400, "BadRequest"),
        (b"[]", "application/json", 400, "BadRequest"),
        (b"", "application/json", 400, "BadRequest"),
        (b'{"apiVersion": "batch/v1", "kind": "Nothing"}', "application/json", 400, "BadRequest"),
        (b'{"apiVersion": "v1", "kind": "Pod"}', "application/json", 400, "BadRequest"),
        (b'{"spec": {"backoffLimit": "six"}}', "application/json", 400, "BadRequest"),
        (b'{"spec": {"template": {"spec": {"containers": {}}}}}', "application/json", 400, "BadRequest"),
        (b'{"metadata": {"namespace": "another"}}', "application/json", 400, "BadRequest"),
        (b"{}", "text/html", 415, "UnsupportedMediaType"),
    ],
    ids=["no JSON", "array", "empty", "kind", "version", "int", "list", "namespace", "media type"],
)
def test_a_body_that_is_no_job_is_refused(
    api: RawKubernetes, raw: bytes, content_type: str, status: int, reason: str
) -> None:
    answer = api.call("POST", api.path("jobs"), raw, content_type=content_type)

    assert (answer.status, answer.reason) == (status, reason)
    assert answer.body["kind"] == "Status"


def test_a_quantity_that_is_none_is_a_bad_request(api: RawKubernetes, name: str) -> None:
    answer = api.create(job(name, pod=container(resources={"limits": {"memory": "lots"}})))

    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert "quantities must match the regular expression" in answer.body["message"]


def test_a_body_over_3_mib_is_too_large(api: RawKubernetes, name: str) -> None:
    huge = job(name, metadata={"annotations": {"note": "x" * (3 * 1024 * 1024)}})

    answer = api.create(huge)

    assert (answer.status, answer.reason) == (413, "RequestEntityTooLarge")


def test_what_a_manifest_leaves_out_is_filled_in(api: RawKubernetes, name: str) -> None:
    given = job(name)
    del given["spec"]["backoffLimit"]

    made = create(api, given).body

    spec, metadata = made["spec"], made["metadata"]
    filled = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": 6,
        "completionMode": "NonIndexed",
        "suspend": False,
        "podReplacementPolicy": "TerminatingOrFailed",
        "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}},
    }
    assert {key: spec.get(key) for key in filled} == filled
    assert spec["template"]["metadata"]["labels"] == {
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": name,
        "controller-uid": metadata["uid"],
        "job-name": name,
    }
    assert spec["template"]["spec"]["containers"][0]["terminationMessagePath"] == "/dev/termination-log"
    assert (metadata["generation"], metadata["namespace"], made["status"]) == (1, api.namespace, {})


def test_a_job_without_labels_shows_those_of_its_pod_template(api: RawKubernetes, name: str) -> None:
    # apis/batch/v1/defaults.go, SetDefaults_Job
    create(api, job(name))

    read = api.get(name).body

    assert read["metadata"]["labels"] == read["spec"]["template"]["metadata"]["labels"]


def test_status_and_system_fields_of_a_new_job_are_not_the_callers(api: RawKubernetes, name: str) -> None:
    claimed = job(name, metadata={"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 7})

    made = create(api, claimed | {"status": {"succeeded": 1}}).body

    assert made["metadata"]["uid"] != "mine"
    assert not made["metadata"]["creationTimestamp"].startswith("2001")
    assert (made["metadata"]["generation"], made["status"]) == (1, {})


@pytest.mark.parametrize("where", ["spec", "metadata", "pod", "container"])
def test_strict_field_validation_names_the_unknown_field(api: RawKubernetes, name: str, where: str) -> None:
    made = job(name)
    pod_spec = made["spec"]["template"]["spec"]
    holder, path = {
        "spec": (made["spec"], "spec.bogus"),
        "metadata": (made["metadata"], "metadata.bogus"),
        "pod": (pod_spec, "spec.template.spec.bogus"),
        "container": (pod_spec["containers"][0], "spec.template.spec.containers[0].bogus"),
    }[where]
    holder["bogus"] = 1

    answer = api.create(made, query={"fieldValidation": "Strict"})

    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert f'strict decoding error: unknown field "{path}"' in answer.body["message"]


def test_a_duplicate_field_is_refused_where_validation_is_strict(api: RawKubernetes, name: str) -> None:
    raw = json.dumps(job(name)).replace('"backoffLimit": 0', '"backoffLimit": 0, "backoffLimit": 1').encode()

    answer = api.call("POST", api.path("jobs"), raw, query={"fieldValidation": "Strict"})

    assert (answer.status, "duplicate field" in answer.body["message"]) == (400, True)


@pytest.mark.parametrize(
    ("query", "warned"),
    [({}, True), ({"fieldValidation": "Warn"}, True), ({"fieldValidation": "Ignore"}, False)],
    ids=["by default", "Warn", "Ignore"],
)
def test_an_unknown_field_is_dropped(api: RawKubernetes, name: str, query: dict[str, str], warned: bool) -> None:
    answer = api.create(job(name, spec={"bogus": 1}), query=query)

    assert answer.status == 201
    assert "bogus" not in answer.body["spec"]
    assert any('unknown field \\"spec.bogus\\"' in text for text in answer.warnings) == warned
