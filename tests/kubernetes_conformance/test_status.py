"""What a Job controller, a kubelet and a reader of logs and Events do through the API."""

import pytest

from tests.kubernetes_conformance.objects import MOMENT, create, ended_status, job, pod
from tests.raw_kubernetes import STRATEGIC_PATCH, Json, RawKubernetes

pytestmark = pytest.mark.cluster


def condition(kind: str, reason: str = "Because") -> Json:
    times = {"lastProbeTime": MOMENT, "lastTransitionTime": MOMENT}
    return {"type": kind, "status": "True", "reason": reason, "message": "for a test", **times}


def test_the_status_is_written_through_its_subresource_only(api: RawKubernetes, name: str) -> None:
    create(api, job(name))

    ignored = api.patch(name, {"status": {"active": 1}})
    written = api.patch(name, {"status": {"active": 1}, "spec": {"parallelism": 5}}, part="status")

    assert ignored.body["status"] == {}
    assert written.body["status"]["active"] == 1
    assert written.body["spec"]["parallelism"] == 1


def test_a_job_is_reported_complete_in_two_steps(api: RawKubernetes, name: str) -> None:
    create(api, job(name))
    started = {"startTime": MOMENT, "succeeded": 1}

    decided = api.patch(name, {"status": {**started, "conditions": [condition("SuccessCriteriaMet")]}}, part="status")
    ended = api.patch(
        name,
        {
            "status": {
                "completionTime": MOMENT,
                "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
            }
        },
        part="status",
    )

    assert (decided.status, ended.status) == (200, 200)
    assert name in api.names(fieldSelector="status.successful=1")


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"startTime": MOMENT, "conditions": [condition("Failed")]}, "status.conditions"),
        ({"startTime": MOMENT, "completionTime": MOMENT, "conditions": [condition("Complete")]}, "status.conditions"),
        ({"conditions": [condition("FailureTarget"), condition("Failed")]}, "status.startTime"),
        (
            {
                "startTime": MOMENT,
                "active": 1,
                "conditions": [condition("FailureTarget"), condition("Failed")],
            },
            "status.active",
        ),
        ({"startTime": MOMENT, "completionTime": MOMENT}, "status.completionTime"),
        ({"active": -1}, "status.active"),
        ({"active": 1, "ready": 2}, "status.ready"),
    ],
    ids=["no target", "no criteria", "no start", "active", "no condition", "negative", "ready"],
)
def test_an_impossible_status_is_refused(api: RawKubernetes, name: str, status: Json, field: str) -> None:
    # apis/batch/validation: validateJobStatus, since 1.31 by default
    create(api, job(name))

    answer = api.patch(name, {"status": status}, part="status")

    assert (answer.status, answer.reason) == (422, "Invalid")
    assert field in {cause for cause, _ in answer.causes}


def test_conditions_are_merged_by_type_in_a_strategic_patch(api: RawKubernetes, name: str) -> None:
    create(api, pod(name), "pods")
    for kind in ("Ready", "DisruptionTarget", "Ready"):
        change = {"type": kind, "status": "False", "lastTransitionTime": MOMENT}
        api.patch(name, {"status": {"conditions": [change]}}, plural="pods", kind=STRATEGIC_PATCH, part="status")

    conditions = api.get(name, "pods").body["status"]["conditions"]

    assert {found["type"] for found in conditions} >= {"Ready", "DisruptionTarget"}
    assert len({found["type"] for found in conditions}) == len(conditions)


def test_a_pod_ends_as_its_status_says(api: RawKubernetes, name: str) -> None:
    create(api, pod(name), "pods")
    message = "sha256:" + "0" * 64
    ended = {"exitCode": 0, "reason": "Completed", "message": message, "startedAt": MOMENT, "finishedAt": MOMENT}

    written = api.patch(name, {"status": ended_status(ended, phase="Succeeded")}, plural="pods", part="status")

    assert written.status == 200, written.text
    read = api.get(name, "pods").body["status"]
    assert (read["phase"], read["containerStatuses"][0]["state"]["terminated"]["message"]) == ("Succeeded", message)
    assert name in api.names("pods", fieldSelector="status.phase=Succeeded")


def test_a_pod_is_given_what_its_manifest_leaves_out(api: RawKubernetes, name: str) -> None:
    made = create(api, pod(name), "pods").body

    spec = made["spec"]
    assert (spec["restartPolicy"], spec["serviceAccountName"], spec["enableServiceLinks"]) == (
        "Always",
        "default",
        True,
    )
    assert (made["status"]["phase"], made["metadata"]["generation"]) == ("Pending", 1)


def test_a_pod_that_never_was_on_a_node_is_deleted_at_once(api: RawKubernetes, name: str) -> None:
    create(api, pod(name), "pods")

    answer = api.delete(name, "pods")

    assert (answer.status, answer.body["kind"], api.get(name, "pods").status) == (200, "Pod", 404)


def test_a_pod_without_a_node_has_no_log(api: RawKubernetes, name: str) -> None:
    create(api, pod(name), "pods")

    answer = api.call("GET", api.path("pods", name, "log"), headers={"Accept": "*/*"})

    assert (answer.status in (200, 204), answer.text) == (True, "")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ({}, "a container name must be specified for pod {}, choose one of: [kaniko other]"),
        ({"container": "nobody"}, "container nobody is not valid for pod {}"),
    ],
    ids=["several", "unknown"],
)
def test_a_log_needs_a_container_that_exists(api: RawKubernetes, name: str, query: Json, told: str) -> None:
    two = [{"name": each, "image": "registry.example/kaniko:v1"} for each in ("kaniko", "other")]
    create(api, pod(name, containers=two), "pods")

    answer = api.call("GET", api.path("pods", name, "log"), query=query)

    assert (answer.status, answer.reason) == (400, "BadRequest")
    assert told.format(name) in answer.body["message"]


def test_the_log_of_a_pod_that_does_not_exist_is_not_found(api: RawKubernetes) -> None:
    answer = api.call("GET", api.path("pods", "no-such-pod", "log"))

    assert (answer.status, answer.body["details"]["kind"]) == (404, "pods")


def test_events_are_found_by_what_they_are_about(api: RawKubernetes, name: str) -> None:
    uid = create(api, job(name)).body["metadata"]["uid"]
    about = {"kind": "Job", "namespace": api.namespace, "name": name, "uid": uid, "apiVersion": "batch/v1"}
    event = {"metadata": {"name": f"{name}.1"}, "involvedObject": about, "reason": "FailedCreate", "type": "Warning"}
    create(api, event, "events")

    for selector in (f"involvedObject.uid={uid}", f"involvedObject.name={name},reason=FailedCreate"):
        assert api.names("events", fieldSelector=selector) == [f"{name}.1"]
    assert api.names("events", fieldSelector=f"involvedObject.name={name},type=Normal") == []


def test_one_may_ask_what_one_may_do(api: RawKubernetes) -> None:
    asked = {"namespace": api.namespace, "verb": "create", "group": "batch", "resource": "jobs"}
    review = {"kind": "SelfSubjectAccessReview", "apiVersion": "authorization.k8s.io/v1"}

    answer = api.call(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        review | {"spec": {"resourceAttributes": asked}},
    )

    assert (answer.status, answer.body["status"]["allowed"]) == (201, True)
