"""The simulator's own side: scripted outcomes, faults, outages, and what it says it saw.

How it answers as an API server is asked in `tests/kubernetes_conformance`.
"""

import http.client
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import yaml
from urllib3.exceptions import HTTPError

from tests.raw_kubernetes import Answer, Json, RawKubernetes, wait_for

_OUTCOME = "simulator.kanikojobs/outcome"
_PREFIX = "kanikojobs.notifi.network/"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A simulator: as a client sees it, and its control API on a port of its own."""

    api: RawKubernetes
    url: str
    control_url: str

    def control(self, method: str, what: str, body: Any = None) -> Json:
        connection = http.client.HTTPConnection(urlsplit(self.control_url).netloc, timeout=60)
        connection.request(method, f"/simulator/{what}", json.dumps(body) if body is not None else None)
        answer = connection.getresponse()
        told: Json = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, told
        return told

    def fault(self, **rule: Any) -> None:
        self.control("POST", "faults", rule)

    def stats(self) -> Json:
        return self.control("GET", "stats?detail=1")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    kubeconfig = tmp_path_factory.mktemp("simulator") / "kubeconfig"
    command = [sys.executable, "-m", "deploy.local.kubernetes_simulator", "--kubeconfig", str(kubeconfig)]
    command += ["--namespace", "builds", "--control-port", "0", "--run-seconds", "0.1"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url, control_url = (process.stdout.readline().split()[-1] for _ in range(2))
    try:
        yield Cluster(RawKubernetes(kubeconfig=kubeconfig, namespace="builds"), url, control_url)
    finally:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The simulator, empty, without scripts."""
    running.control("POST", "reset")
    return running


@pytest.fixture
def name() -> str:
    return f"job-{uuid4().hex[:12]}"


def job(name: str, *, outcome: str = "", **spec: Any) -> Json:
    container = {
        "name": "kaniko",
        "image": "registry.example/kaniko:v1",
        "args": ["--destination=registry.example/a:1", "--digest-file=/dev/termination-log"],
    }
    metadata: Json = {"name": name}
    if outcome:
        metadata["annotations"] = {_OUTCOME: outcome}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"metadata": metadata, "spec": {"backoffLimit": 0, "template": template, **spec}}


def start(cluster: Cluster, name: str, **given: Any) -> Answer:
    answer = cluster.api.create(job(name, **given))
    assert answer.status == 201, answer.text
    return answer


def conditions(cluster: Cluster, name: str) -> dict[str, str]:
    found = cluster.api.get(name).body.get("status", {}).get("conditions", [])
    return {condition["type"]: condition["reason"] for condition in found}


def pods(cluster: Cluster, name: str) -> list[Json]:
    query = {"labelSelector": f"batch.kubernetes.io/job-name={name}"}
    items: list[Json] = cluster.api.call("GET", cluster.api.path("pods"), query=query).body["items"]
    return items


def log(cluster: Cluster, pod: Json, **query: Any) -> str:
    path = cluster.api.path("pods", pod["metadata"]["name"], "log")
    return cluster.api.call("GET", path, query=query, headers={"Accept": "*/*"}).text


def terminated(pod: Json) -> Json:
    state: Json = pod["status"]["containerStatuses"][0]["state"]
    return dict(state["terminated"])


def reasons(cluster: Cluster, about: str) -> set[str]:
    query = {"fieldSelector": f"involvedObject.name={about}"}
    items = cluster.api.call("GET", cluster.api.path("events"), query=query).body["items"]
    return {event["reason"] for event in items}


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_a_build_that_succeeds_leaves_its_digest(cluster: Cluster, name: str) -> None:
    start(cluster, name)

    assert wait_for(lambda: "Complete" in conditions(cluster, name), seconds=60)
    [pod] = pods(cluster, name)
    digest = terminated(pod)["message"]
    assert digest.startswith("sha256:")
    assert log(cluster, pod).endswith(f"[0014] Pushed registry.example/a:1@{digest} \n")
    assert reasons(cluster, name) == {"SuccessfulCreate", "Completed"}
    assert reasons(cluster, pod["metadata"]["name"]) == {"Scheduled", "Pulling", "Pulled", "Created", "Started"}


@pytest.mark.parametrize(
    ("outcome", "code", "reason", "text"),
    [
        ("build-error", 1, "Error", "error building image: error building stage: failed to execute command"),
        ("oom", 137, "OOMKilled", "Running: [/bin/sh -c npm ci"),
        ("push-denied", 1, "Error", "DENIED: requested access to the resource is denied"),
        ("registry-auth", 1, "Error", "UNAUTHORIZED: authentication required"),
        ("rate-limited", 1, "Error", "TOOMANYREQUESTS"),
        ("source-not-found", 1, "Error", "error resolving source context"),
    ],
)
def test_a_build_that_fails_says_why(
    cluster: Cluster, name: str, outcome: str, code: int, reason: str, text: str
) -> None:
    start(cluster, name, outcome=outcome)

    assert wait_for(lambda: "Failed" in conditions(cluster, name), seconds=60)
    [pod] = pods(cluster, name)
    assert conditions(cluster, name) == dict.fromkeys(("FailureTarget", "Failed"), "BackoffLimitExceeded")
    assert (terminated(pod)["exitCode"], terminated(pod)["reason"]) == (code, reason)
    assert "message" not in terminated(pod)
    assert text in log(cluster, pod)


def test_a_failed_pod_is_tried_again_up_to_the_backoff_limit(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="oom,build-error,succeed", backoffLimit=2)

    assert wait_for(lambda: "Complete" in conditions(cluster, name), seconds=60)
    status = cluster.api.get(name).body["status"]
    assert (status["failed"], status["succeeded"], len(pods(cluster, name))) == (2, 1, 3)


@pytest.mark.parametrize(
    ("outcome", "phase", "condition"),
    [("evicted", "Failed", "TerminationByKubelet"), ("node-lost", "Failed", "DeletionByPodGC")],
)
def test_a_disrupted_pod_is_replaced_where_the_policy_ignores_it(
    cluster: Cluster, name: str, outcome: str, phase: str, condition: str
) -> None:
    rules = [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]
    with cluster.api.watch("pods", resourceVersion=str(cluster.stats()["resourceVersion"])) as stream:
        start(cluster, name, outcome=outcome, podFailurePolicy={"rules": rules})
        assert wait_for(lambda: "Complete" in conditions(cluster, name), seconds=60)
        last = stream.next()["object"]
        while last["status"]["phase"] != phase:
            last = stream.next()["object"]

    targets = [found for found in last["status"]["conditions"] if found["type"] == "DisruptionTarget"]
    assert [found["reason"] for found in targets] == [condition]
    assert "failed" not in cluster.api.get(name).body["status"]


def test_a_disruption_fails_a_job_without_a_policy(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="evicted")

    assert wait_for(lambda: "Failed" in conditions(cluster, name), seconds=60)
    assert pods(cluster, name)[0]["status"]["reason"] == "Evicted"


@pytest.mark.parametrize(
    ("outcome", "where", "reason"),
    [("image-pull-backoff", "waiting", "ImagePullBackOff"), ("unschedulable", "scheduled", "Unschedulable")],
)
def test_a_pod_that_cannot_start_stays_pending_and_says_why(
    cluster: Cluster, name: str, outcome: str, where: str, reason: str
) -> None:
    start(cluster, name, outcome=outcome)

    def why() -> str:
        status = next(iter(pods(cluster, name)), {}).get("status", {})
        if where == "waiting":
            return next((c["state"]["waiting"]["reason"] for c in status.get("containerStatuses", [])), "")
        return next((c["reason"] for c in status.get("conditions", []) if c["type"] == "PodScheduled"), "")

    assert wait_for(lambda: why() == reason, seconds=60)
    assert pods(cluster, name)[0]["status"]["phase"] == "Pending"
    assert conditions(cluster, name) == {}


def test_an_exceeded_quota_makes_an_event_and_no_pod(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="quota")

    assert wait_for(lambda: "FailedCreate" in reasons(cluster, name), seconds=60)
    assert (pods(cluster, name), conditions(cluster, name)) == ([], {})


def test_a_passed_deadline_fails_the_job_and_takes_its_pod(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="deadline")

    assert wait_for(lambda: "Failed" in conditions(cluster, name), seconds=60)
    assert conditions(cluster, name) == dict.fromkeys(("FailureTarget", "Failed"), "DeadlineExceeded")
    assert pods(cluster, name) == []


def test_a_hanging_build_runs_until_it_is_told_its_outcome(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="hang")
    assert wait_for(lambda: cluster.api.get(name).body["status"].get("ready") == 1, seconds=60)

    cluster.control("POST", f"jobs/{name}/outcome", {"outcome": "oom"})

    assert wait_for(lambda: "Failed" in conditions(cluster, name), seconds=60)
    assert terminated(pods(cluster, name)[0])["reason"] == "OOMKilled"


def test_rules_script_jobs_and_the_annotation_goes_before_them(cluster: Cluster, name: str) -> None:
    rules = [{"name": name, "outcome": "oom"}]
    cluster.control("POST", "outcomes", {"default": "build-error", "rules": rules})

    start(cluster, f"{name}-rule")
    start(cluster, f"{name}-own", outcome="succeed")
    start(cluster, f"other-{uuid4().hex}")

    assert wait_for(lambda: cluster.stats()["active"] == 0, seconds=60)
    assert terminated(pods(cluster, f"{name}-rule")[0])["reason"] == "OOMKilled"
    assert "Complete" in conditions(cluster, f"{name}-own")
    assert cluster.stats()["finished"] == {"Failed": 2, "Complete": 1}


def test_an_outcome_that_does_not_exist_is_refused(cluster: Cluster) -> None:
    with pytest.raises(AssertionError, match="succeed, build-error"):
        cluster.control("POST", "outcomes", {"default": "explode"})


# --- logs -------------------------------------------------------------------------------------------------------------


def test_a_log_can_be_followed_to_its_end(cluster: Cluster, name: str) -> None:
    start(cluster, name)
    assert wait_for(lambda: cluster.api.get(name).body["status"].get("ready") == 1, seconds=60)
    [pod] = pods(cluster, name)

    followed = log(cluster, pod, follow="true")

    assert followed == log(cluster, pod)
    assert followed.count("\n") > 20


def test_a_log_is_cut_as_asked(cluster: Cluster, name: str) -> None:
    start(cluster, name)
    assert wait_for(lambda: "Complete" in conditions(cluster, name), seconds=60)
    [pod] = pods(cluster, name)
    whole = log(cluster, pod)

    assert log(cluster, pod, tailLines=2) == "".join(whole.splitlines(keepends=True)[-2:])
    assert log(cluster, pod, limitBytes=10) == whole[:10]
    assert log(cluster, pod, timestamps="true").splitlines()[0].endswith(f"Z {whole.splitlines()[0]}")


def test_a_container_that_has_not_started_has_no_log(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="image-pull-backoff")
    assert wait_for(lambda: pods(cluster, name) and "nodeName" in pods(cluster, name)[0]["spec"], seconds=60)

    told = log(cluster, pods(cluster, name)[0])

    assert "is waiting to start" in json.loads(told)["message"]


def test_lines_can_be_added_to_a_log(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="hang")
    assert wait_for(lambda: cluster.api.get(name).body["status"].get("ready") == 1, seconds=60)

    cluster.control("POST", f"jobs/{name}/log", {"lines": ["password=<b>hunter2</b>"]})

    assert log(cluster, pods(cluster, name)[0]).endswith("password=<b>hunter2</b>\n")


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "status", "reason", "text"),
    [
        ({"do": "status", "status": 429, "retry_after": 7}, 429, "", "Too many requests"),
        (
            {"do": "status", "status": 429, "retry_after": 7, "plain": False},
            429,
            "TooManyRequests",
            '"retryAfterSeconds":7',
        ),
        ({"do": "status", "status": 500}, 500, "InternalError", "Internal error occurred"),
        ({"do": "status", "status": 503}, 503, "ServiceUnavailable", "apiserver is shutting down"),
        ({"do": "status", "status": 504}, 504, "Timeout", "Timeout"),
        ({"do": "forbidden"}, 403, "Forbidden", 'cannot create resource \\"jobs\\" in API group \\"batch\\"'),
        ({"do": "quota"}, 403, "Forbidden", "exceeded quota: builds"),
        ({"do": "webhook", "message": "no"}, 400, "", "denied the request: no"),
        ({"do": "garbage"}, 200, "", "<html>"),
    ],
    ids=["429", "429 Status", "500", "503", "504", "RBAC", "quota", "webhook", "garbage"],
)
def test_a_fault_refuses_and_nothing_is_created(
    cluster: Cluster, name: str, rule: Json, status: int, reason: str, text: str
) -> None:
    cluster.fault(verb="create", **rule)

    answer = cluster.api.create(job(name))

    assert (answer.status, answer.reason) == (status, reason)
    assert text in answer.text
    assert answer.headers.get("Retry-After") == ("7" if status == 429 else None)
    assert (cluster.api.get(name).status, cluster.stats()["creates"]["total"]) == (404, 0)


@pytest.mark.parametrize(
    ("do", "created"),
    [("drop", 404), ("drop-after", 200), ("timeout-before", 404), ("timeout-after", 200)],
)
def test_a_lost_answer_leaves_the_job_created_or_not(cluster: Cluster, name: str, do: str, created: int) -> None:
    cluster.fault(do=do, verb="create", seconds=0.2)

    with pytest.raises(HTTPError):
        cluster.api.create(job(name))

    assert cluster.api.get(name).status == created


def test_a_fault_of_latency_answers_rightly_in_the_end(cluster: Cluster, name: str) -> None:
    cluster.fault(do="latency", seconds=0.05)

    answer = cluster.api.create(job(name))

    assert (answer.status, cluster.control("GET", "faults")["faults"][0]["hits"]) == (201, 1)


def test_a_fault_meets_only_what_it_matches(cluster: Cluster, name: str) -> None:
    cluster.fault(do="status", status=500, verb="create,delete", name=f"^{name}$")

    answers = [cluster.api.create(job(each)).status for each in (name, f"{name}-other")]

    assert (answers, cluster.api.get(name).status) == ([500, 201], 404)


def test_a_fault_can_be_meant_for_one_event(cluster: Cluster, name: str) -> None:
    cluster.fault(do="status", status=500, event_id="e-1")
    marked = job(name)
    marked["metadata"]["annotations"] = {f"{_PREFIX}event-id": "e-1"}

    assert (cluster.api.create(marked).status, cluster.api.create(job(name)).status) == (500, 201)


def test_a_fault_can_be_counted_and_late(cluster: Cluster, name: str) -> None:
    cluster.fault(do="status", status=500, verb="create", skip=1, count=2)

    answers = [cluster.api.create(job(f"{name}-{index}")).status for index in range(5)]

    assert answers == [201, 500, 500, 201, 201]
    assert cluster.control("GET", "faults")["faults"][0]["hits"] == 2


def test_chance_comes_from_the_seed(cluster: Cluster, name: str) -> None:
    def statuses() -> list[int]:
        cluster.control("DELETE", "faults")
        cluster.fault(do="status", status=500, verb="get", probability=0.5, seed=7)
        return [cluster.api.get(name).status for _ in range(20)]

    first, second = statuses(), statuses()

    assert first == second
    assert set(first) == {500, 404}


def test_denied_access_is_told_beforehand(cluster: Cluster, name: str) -> None:
    cluster.control("POST", "access", {"deny": [{"verb": "create", "resource": "jobs"}]})
    review = {"spec": {"resourceAttributes": {"namespace": "builds", "verb": "create", "resource": "jobs"}}}

    asked = cluster.api.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    refused = cluster.api.create(job(name))

    assert (asked.body["status"]["allowed"], refused.status, refused.reason) == (False, 403, "Forbidden")


# --- outages and watches ----------------------------------------------------------------------------------------------


def test_an_outage_refuses_connections_cuts_watches_and_ends(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="hang")
    address = urlsplit(cluster.url)

    with cluster.api.watch(fieldSelector=f"metadata.name={name}") as stream:
        stream.next()
        cluster.control("POST", "outage", {"seconds": 1.0})
        with pytest.raises(HTTPError):
            stream.rest()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=1)
    alive = cluster.stats()["active"]

    def answers() -> bool:
        try:
            return cluster.api.get(name).status == 200
        except HTTPError:
            return False

    assert alive == 1
    assert wait_for(answers, seconds=60)


@pytest.mark.parametrize("politely", [False, True], ids=["cut", "politely"])
def test_watches_can_be_broken(cluster: Cluster, politely: bool) -> None:
    with cluster.api.watch(seconds=90) as stream:
        assert wait_for(lambda: cluster.stats()["watches"] == 1, seconds=60)
        broken = cluster.control("POST", "break-watches", {"politely": politely})["broken"]
        if politely:
            assert stream.rest() == []
        else:
            with pytest.raises(HTTPError):
                stream.rest()

    assert broken == 1


def test_after_a_compaction_an_earlier_version_is_gone(cluster: Cluster, name: str) -> None:
    for index in range(2):
        start(cluster, f"{name}-{index}", outcome="hang")
    listed = cluster.api.call("GET", cluster.api.path("jobs"), query={"limit": 1}).body["metadata"]

    cluster.control("POST", "compact")

    with cluster.api.watch(resourceVersion=listed["resourceVersion"]) as stream:
        event = stream.next()
    page = cluster.api.call("GET", cluster.api.path("jobs"), query={"limit": 1, "continue": listed["continue"]})
    fresh = cluster.api.call("GET", cluster.api.path("jobs")).body["metadata"]["resourceVersion"]
    with cluster.api.watch(seconds=1, resourceVersion=fresh) as stream:
        after = stream.rest()
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert "ERROR" not in {later["type"] for later in after}
    assert (page.status, page.reason) == (410, "Expired")
    assert page.body["metadata"]["continue"]


# --- what was seen ----------------------------------------------------------------------------------------------------


def owned(name: str, *, event: str, third_party: str, parser: str, outcome: str) -> Json:
    made = job(name, outcome=outcome)
    labels = {"event-id": event, "third-party-id": third_party, "parser-id": parser, "number": "1"}
    made["metadata"]["labels"] = {_PREFIX + key: value for key, value in labels.items()}
    made["metadata"]["annotations"][_PREFIX + "source"] = "tests"
    return made


def test_the_stats_count_creates_and_the_most_active_at_once(cluster: Cluster, name: str) -> None:
    for index, third_party in enumerate(["t-1", "t-1", "t-2"]):
        made = owned(f"{name}-{index}", event=f"e-{index}", third_party=third_party, parser="p", outcome="hang")
        cluster.api.create(made)
    cluster.api.delete(f"{name}-0", propagationPolicy="Background")
    again = owned(f"{name}-3", event="e-1", third_party="t-1", parser="p", outcome="hang")
    cluster.api.create(again)

    stats = cluster.stats()

    assert (stats["creates"]["total"], stats["creates"]["repeated_identities"]) == (4, {"tests|e-1|1": 2})
    assert (stats["active"], stats["max_active"], stats["finished"]) == (3, 3, {"Deleted": 1})
    assert stats["max_active_by"]["third_party"] == {"t-1": 2, "t-2": 1}
    assert stats["active_by"]["parser"] == {"p": 3}
    assert [step["do"] for step in stats["sequence"]] == ["create", "create", "create", "Deleted", "create"]
    assert stats["requests"]["create 201"] == 4


def test_a_refused_duplicate_is_no_create(cluster: Cluster, name: str) -> None:
    start(cluster, name, outcome="hang")
    cluster.api.create(job(name))

    stats = cluster.stats()

    assert (stats["creates"]["total"], stats["requests"]["create 409"]) == (1, 1)


# --- the process ------------------------------------------------------------------------------------------------------


def test_a_token_is_demanded_where_one_is_set_and_a_signal_ends_the_process(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    command = [sys.executable, "-m", "deploy.local.kubernetes_simulator", "--kubeconfig", str(kubeconfig)]
    process = subprocess.Popen(
        [*command, "--token", "secret"], cwd=Path(__file__).parents[1], stdout=subprocess.DEVNULL
    )
    try:
        assert wait_for(kubeconfig.exists, seconds=60)
        api = RawKubernetes(kubeconfig=kubeconfig)
        allowed = api.call("GET", api.path("jobs"))
        text = yaml.safe_load(kubeconfig.read_text())
        text["users"][0]["user"] = {"token": "wrong"}
        (tmp_path / "wrong").write_text(yaml.safe_dump(text))
        wrong = RawKubernetes(kubeconfig=tmp_path / "wrong")
        refused = wrong.call("GET", api.path("jobs"))
        text["users"][0]["user"] = {}
        (tmp_path / "none").write_text(yaml.safe_dump(text))
        anonymous = RawKubernetes(kubeconfig=tmp_path / "none").call("GET", api.path("jobs"))
        with api.watch(seconds=60) as stream:
            process.send_signal(signal.SIGTERM)
            with pytest.raises(HTTPError):
                stream.rest()
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
        process.wait()

    assert (allowed.status, refused.status, refused.reason) == (200, 401, "Unauthorized")
    assert (anonymous.status, anonymous.reason) == (403, "Forbidden")
    assert 'User "system:anonymous" cannot list resource "jobs"' in anonymous.body["message"]
