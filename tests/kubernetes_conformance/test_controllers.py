"""What the Job controller, the TTL controller and the garbage collector make of Jobs and pods."""

from typing import Any

import pytest

from tests.kubernetes_conformance.objects import MOMENT, controlled, create, ended_status, seen
from tests.raw_kubernetes import Json, RawKubernetes, wait_for

pytestmark = pytest.mark.cluster


def pods_of(api: RawKubernetes, name: str) -> list[Json]:
    query = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
    items: list[Json] = api.call("GET", api.path("pods"), query=query).body["items"]
    return items


def conditions_of(api: RawKubernetes, name: str) -> dict[str, str]:
    conditions = api.get(name).body.get("status", {}).get("conditions", [])
    return {found["type"]: found.get("reason", "") for found in conditions if found["status"] == "True"}


def end_pod(api: RawKubernetes, found: Json, *, code: int, **status: Any) -> None:
    ended = {"exitCode": code, "reason": "Error" if code else "Completed", "startedAt": MOMENT, "finishedAt": MOMENT}
    change = ended_status(ended, phase="Failed" if code else "Succeeded") | status
    answer = api.patch(found["metadata"]["name"], {"status": change}, plural="pods", part="status")
    assert answer.status == 200, answer.text


def test_the_job_controller_makes_a_pod_that_belongs_to_the_job(api: RawKubernetes, name: str) -> None:
    uid = create(api, controlled(name)).body["metadata"]["uid"]

    [found] = seen(lambda: pods_of(api, name), needs="Job controller")

    owner = found["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Job", name, uid, True)
    assert found["metadata"]["name"].startswith(f"{name}-")
    assert found["metadata"]["labels"]["job-name"] == name
    assert wait_for(lambda: api.get(name).body["status"].get("active") == 1, seconds=60)


def test_a_job_whose_pod_succeeds_is_complete(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    [found] = seen(lambda: pods_of(api, name), needs="Job controller")

    end_pod(api, found, code=0)

    assert wait_for(lambda: "Complete" in conditions_of(api, name), seconds=60)
    status = api.get(name).body["status"]
    assert list(conditions_of(api, name)) == ["SuccessCriteriaMet", "Complete"]
    assert (status["succeeded"], "completionTime" in status, "active" in status) == (1, True, False)


def test_a_job_whose_pod_fails_is_failed(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    [found] = seen(lambda: pods_of(api, name), needs="Job controller")

    end_pod(api, found, code=1)

    assert wait_for(lambda: "Failed" in conditions_of(api, name), seconds=60)
    assert conditions_of(api, name) == {"FailureTarget": "BackoffLimitExceeded", "Failed": "BackoffLimitExceeded"}
    assert (api.get(name).body["status"]["failed"], "completionTime" in api.get(name).body["status"]) == (1, False)


def test_a_disruption_that_the_policy_ignores_is_no_failure(api: RawKubernetes, name: str) -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    create(api, controlled(name, podFailurePolicy={"rules": rules}))
    [first] = seen(lambda: pods_of(api, name), needs="Job controller")

    disrupted = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": MOMENT}
    end_pod(api, first, code=137, reason="Evicted", conditions=[disrupted])

    def others() -> list[Json]:
        return [found for found in pods_of(api, name) if found["metadata"]["uid"] != first["metadata"]["uid"]]

    assert wait_for(others, seconds=60)
    assert (api.get(name).body["status"].get("failed", 0), conditions_of(api, name)) == (0, {})


def test_an_exit_code_that_the_policy_names_fails_the_job(api: RawKubernetes, name: str) -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    create(api, controlled(name, backoffLimit=5, podFailurePolicy={"rules": rules}))
    [found] = seen(lambda: pods_of(api, name), needs="Job controller")

    end_pod(api, found, code=42)

    assert wait_for(lambda: "Failed" in conditions_of(api, name), seconds=60)
    assert conditions_of(api, name)["Failed"] == "PodFailurePolicy"


def test_the_deadline_counts_the_time_that_a_pod_is_pending(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name, activeDeadlineSeconds=1))
    seen(lambda: pods_of(api, name), needs="Job controller")

    assert wait_for(lambda: "Failed" in conditions_of(api, name), seconds=60)
    assert conditions_of(api, name) == {"FailureTarget": "DeadlineExceeded", "Failed": "DeadlineExceeded"}


def test_a_suspended_job_has_no_pods_until_it_is_resumed(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name, suspend=True))
    seen(lambda: conditions_of(api, name).get("Suspended"), needs="Job controller")
    before = pods_of(api, name)

    api.patch(name, {"spec": {"suspend": False}})

    assert before == []
    assert wait_for(lambda: pods_of(api, name), seconds=60)


def test_a_suspension_takes_the_pods_and_is_no_failure(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    seen(lambda: pods_of(api, name), needs="Job controller")

    api.patch(name, {"spec": {"suspend": True}})

    assert wait_for(lambda: "Suspended" in conditions_of(api, name) and not pods_of(api, name), seconds=60)
    status = api.get(name).body["status"]
    assert (status.get("failed", 0), "startTime" in status) == (0, False)


def test_a_finished_job_goes_when_its_time_to_live_is_over(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name, ttlSecondsAfterFinished=1))
    [found] = seen(lambda: pods_of(api, name), needs="Job controller")
    end_pod(api, found, code=0)

    seen(lambda: api.get(name).status == 404, needs="TTL controller")

    assert pods_of(api, name) == []


def test_deleting_in_the_background_takes_the_pods_along(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    seen(lambda: pods_of(api, name), needs="Job controller")

    api.delete(name, propagationPolicy="Background")

    assert api.get(name).status == 404
    seen(lambda: not pods_of(api, name), needs="garbage collector")


def test_deleting_in_the_foreground_takes_the_pods_first(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    seen(lambda: pods_of(api, name), needs="Job controller")

    deleted = api.delete(name, propagationPolicy="Foreground")

    assert deleted.body["metadata"]["deletionTimestamp"]
    seen(lambda: api.get(name).status == 404, needs="garbage collector")
    assert pods_of(api, name) == []


def test_deleting_without_a_policy_leaves_the_pods(api: RawKubernetes, name: str) -> None:
    create(api, controlled(name))
    [found] = seen(lambda: pods_of(api, name), needs="Job controller")

    api.delete(name)

    seen(lambda: api.get(name).status == 404, needs="garbage collector")
    left = api.get(found["metadata"]["name"], "pods")
    assert (left.status, "ownerReferences" in left.body.get("metadata", {})) == (200, False)
    api.delete(found["metadata"]["name"], "pods", gracePeriodSeconds=0)
