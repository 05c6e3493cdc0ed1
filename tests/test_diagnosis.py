"""What a Job, its pods and the end of a log come to: a state, a reason, a sentence. Texts as they occur in the wild."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kanikojobs.advice import ADVICE, advice
from kanikojobs.diagnosis import Read, diagnose, vanished
from kanikojobs.log_words import last_words
from kanikojobs.observed import Container, Job, Pod, read_job, read_pod
from kanikojobs.obstacles import refusal_of, told_by_events
from kanikojobs.pushes import says_pushed
from kanikojobs.states import State

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "a" * 64
IMAGE = "registry:5000/third-party/parser:abc"


def a_job(end: str = "Failed", reason: str = "BackoffLimitExceeded", **fields: Any) -> Job:
    message = "Job has reached the specified backoff limit" if end == "Failed" else ""
    return Job(**{"name": "j", "uid": "u", "end": end, "reason": reason, "message": message, "image": IMAGE} | fields)


def a_pod(*containers: Container, age: int = 0, **fields: Any) -> Pod:
    values: dict[str, Any] = {
        "name": f"j-{age}",
        "uid": f"pod-{age}",
        "job_name": "j",
        "phase": "Failed",
        "node": "node-1",
        "created_at": NOW + timedelta(seconds=age),
        "containers": containers,
    }
    return Pod(**values | fields)


def kaniko(exit_code: int | None = 1, *, message: str = "", reason: str = "Error", **fields: Any) -> Container:
    values: dict[str, Any] = {
        "name": "kaniko",
        "init": False,
        "state": "terminated",
        "reason": reason,
        "message": message,
        "exit_code": exit_code,
        "started_at": NOW,
    }
    return Container(**values | fields)


def all_read(log: str | None) -> Read:
    """The log of the only pod's main container, and nothing else to be had."""
    return Read(logs={("j-0", "kaniko"): log} if log else {}, complete=True)


def waiting(reason: str, message: str = "") -> Container:
    return Container(name="kaniko", init=False, state="waiting", reason=reason, message=message)


@pytest.mark.parametrize(
    ("exit_code", "deleted_after", "reason"),
    [
        pytest.param(143, -2, "JobVanished", id="told to end"),
        pytest.param(143, 0, "JobVanished", id="ended in the second of its deletion"),
        pytest.param(137, -2, "JobVanished", id="killed"),
        pytest.param(1, -2, "BuildFailed", id="failed by itself meanwhile"),
        pytest.param(143, 2, "BuildFailed", id="deleted when it was over"),
    ],
)
def test_a_build_that_ended_because_its_job_was_deleted_did_not_fail(
    exit_code: int, deleted_after: int, reason: str
) -> None:
    # Seen at a Job controller: a deletion in the foreground ends the pods first, which counts as BackoffLimitExceeded.
    job = a_job(ended_at=NOW, terminating=True, deleted_at=NOW + timedelta(seconds=deleted_after))

    found = diagnose(job, pods=[a_pod(kaniko(exit_code), terminating=True)], read=all_read(None))

    assert (found.state, found.reason) == (State.FAILED, reason)


# The last line that kaniko, or git in the source container, writes; the reason that it tells.
KANIKO_WORDS: dict[str, tuple[str, str]] = {
    "a step": (
        "error building image: error building stage: failed to execute command: waiting for process to exit: "
        "exit status 1",
        "BuildStepFailed",
    ),
    "nothing to copy": (
        "error building image: error building stage: failed to get files used from context: copy failed: no source "
        "files specified",
        "BuildStepFailed",
    ),
    "killed in a step": (
        "error building image: error building stage: failed to execute command: waiting for process to exit: "
        "signal: killed",
        "OOMKilled",
    ),
    "no Dockerfile": (
        "Error: error resolving dockerfile path: please provide a valid path to a Dockerfile within the build context "
        "with --dockerfile",
        "DockerfileInvalid",
    ),
    "unknown instruction": (
        "error building image: parsing dockerfile: dockerfile parse error on line 3: unknown instruction: RUNN",
        "DockerfileInvalid",
    ),
    "push check denied": (
        "error checking push permissions -- make sure you entered the correct tag name, and that you are authenticated "
        'correctly, and try again: checking push permission for "registry:5000/a/b": POST '
        "https://registry:5000/v2/a/b/blobs/uploads/: UNAUTHORIZED: authentication required; [map[Action:pull]]",
        "PushDenied",
    ),
    "push denied at the end": (
        "error pushing image: failed to push to destination registry:5000/a/b:c: PUT "
        "https://registry:5000/v2/a/b/manifests/c: DENIED: permission_denied: write_package",
        "PushDenied",
    ),
    "no route to the destination": (
        "error checking push permissions -- make sure you entered the correct tag name, and that you are authenticated "
        'correctly, and try again: checking push permission for "registry:5000/a/b": creating push check transport for '
        'registry:5000 failed: Get "https://registry:5000/v2/": dial tcp 10.0.0.1:5000: connect: no route to host',
        "PushFailed",
    ),
    "push timed out": (
        'error pushing image: failed to push to destination registry:5000/a/b:c: Put "https://registry:5000/v2/": '
        "net/http: TLS handshake timeout",
        "PushFailed",
    ),
    "base image refused": (
        "error building image: unable to complete operation after 0 attempts, last error: GET "
        "https://registry.example/v2/private/base/manifests/1: UNAUTHORIZED: authentication required; [map[Class:]]",
        "RegistryAuthFailed",
    ),
    "rate limit": (
        "error building image: unable to complete operation after 0 attempts, last error: GET "
        "https://index.docker.io/v2/library/node/manifests/18: TOOMANYREQUESTS: You have reached your pull rate limit.",
        "RegistryRateLimited",
    ),
    "no such base image": (
        "error building image: unable to complete operation after 0 attempts, last error: GET "
        "https://registry.example/v2/library/nood/manifests/18: MANIFEST_UNKNOWN: manifest unknown",
        "BaseImageNotFound",
    ),
    "registry away": (
        'error building image: unable to complete operation after 0 attempts, last error: Get "https://registry.example'
        '/v2/": dial tcp: lookup registry.example on 10.96.0.10:53: no such host',
        "RegistryUnavailable",
    ),
    "disk full": (
        "error building image: error building stage: failed to take snapshot: write /kaniko/1.tar: no space left on "
        "device",
        "DiskFull",
    ),
    "context in a bucket is missing": (
        "Error: error resolving source context: NoSuchKey: The specified key does not exist.",
        "SourceNotFound",
    ),
    "context's host is away": (
        "Error: error resolving source context: dial tcp 10.0.0.1:443: i/o timeout",
        "SourceUnavailable",
    ),
    "an error of a kind that nobody has seen": ("error building image: the moon is full", "BuildFailed"),
}
GIT_WORDS: dict[str, tuple[str, str]] = {
    "no repository": ("remote: Repository not found.\nfatal: repository 'https://h/a/b/' not found", "SourceNotFound"),
    "no credentials": (
        "fatal: could not read Username for 'https://github.com': terminal prompts disabled\n"
        "fetch-source: https://github.com/a/b cannot be read; the lines above say why",
        "SourceNotFound",
    ),
    "wrong password": ("fatal: Authentication failed for 'https://h/a/b/'", "SourceNotFound"),
    "forbidden": (
        "fatal: unable to access 'https://h/a/b/': The requested URL returned error: 403\n"
        "fetch-source: https://h/a/b cannot be read; the lines above say why",
        "SourceNotFound",
    ),
    "no branch": ('fetch-source: https://h/a/b has no branch or tag "nope"', "SourceNotFound"),
    "no folder": ('fetch-source: the repository has no folder "api"', "SourceNotFound"),
    "out of the repository": ('fetch-source: "../x" leads out of the repository', "SourceNotFound"),
    "no Dockerfile": (
        "fetch-source: no Dockerfile in the source, and there is no template for it",
        "DockerfileInvalid",
    ),
    "host away": (
        "fatal: unable to access 'https://h/a/b/': Could not resolve host: h\n"
        "fetch-source: https://h/a/b cannot be read; the lines above say why",
        "SourceUnavailable",
    ),
    "server error": (
        "fatal: unable to access 'https://h/a/b/': The requested URL returned error: 503",
        "SourceUnavailable",
    ),
    "disk full": ("fatal: write error: No space left on device", "DiskFull"),
}


@pytest.mark.parametrize("name", KANIKO_WORDS)
def test_kanikos_last_words_tell_the_reason(name: str) -> None:
    line, reason = KANIKO_WORDS[name]

    told = last_words(f"INFO[0001] Building stage\nINFO[0004] RUN npm ci\nsome output\n{line}\n", init=False)

    assert told[0] == reason
    assert told[1].endswith(line)
    assert advice(reason)


@pytest.mark.parametrize("name", GIT_WORDS)
def test_gits_words_tell_the_reason(name: str) -> None:
    text, reason = GIT_WORDS[name]

    told, message = last_words(text, init=True)

    assert told == reason
    assert message in text.splitlines()
    assert advice(reason)


def test_a_build_that_prints_like_a_registry_fools_nobody() -> None:
    log = (
        "INFO[0004] RUN curl https://internal/\n"
        "UNAUTHORIZED: authentication required\n"
        "TOOMANYREQUESTS: You have reached your pull rate limit\n"
        "INFO[0005] Pushed registry:5000/third-party/parser@" + DIGEST + "\n"
        "error building image: error building stage: failed to execute command: exit status 22"
    )

    assert last_words(log, init=False)[0] == "BuildStepFailed"


def test_the_step_that_failed_is_named() -> None:
    error = "error building image: failed to execute command: exit status 1"
    log = f"INFO[0004] RUN npm ci --omit=dev              \nnpm error\n{error}"

    assert last_words(log, init=False)[1] == f"RUN npm ci --omit=dev: {error}"


def test_a_message_is_redacted_and_bounded() -> None:
    line = "fatal: unable to access 'https://me:hunter2@h/a/b/': " + "x" * 9000

    message = last_words(line, init=True)[1]

    assert "hunter2" not in message
    assert len(message) <= 2000


def test_a_job_that_is_complete_has_succeeded_with_its_digest() -> None:
    found = diagnose(a_job("Complete"), pods=[a_pod(kaniko(0, message=DIGEST), phase="Succeeded")])

    assert (found.state, found.digest, found.exit_code) == (State.SUCCEEDED, DIGEST, 0)


def test_a_job_that_is_complete_has_succeeded_although_its_pod_is_gone() -> None:
    found = diagnose(a_job("Complete"), pods=[])

    assert (found.state, found.digest) == (State.SUCCEEDED, "")


PUSHED = {
    "exit code 0 before the deadline": ([a_pod(kaniko(0, message=DIGEST))], None),
    "exit code 0 in a pod before the last": (
        [a_pod(kaniko(0, message=DIGEST), age=0), a_pod(kaniko(1, message="error: no"), age=9)],
        None,
    ),
    "killed after kaniko wrote that it had pushed": (
        [a_pod(kaniko(137, message=DIGEST))],
        f"INFO[0009] Pushing image to {IMAGE}\nINFO[0014] Pushed registry:5000/third-party/parser@{DIGEST}\n",
    ),
}


@pytest.mark.parametrize("name", PUSHED)
def test_nothing_has_failed_whose_image_was_pushed(name: str) -> None:
    pods, log = PUSHED[name]

    found = diagnose(a_job(), pods=pods, read=all_read(log))

    assert (found.state, found.digest) == (State.SUCCEEDED, DIGEST)


@pytest.mark.parametrize(
    ("image", "logged"),
    [
        ("docker.io/team/app:1", "index.docker.io/team/app"),
        ("docker.io/app:1", "index.docker.io/library/app"),
        ("ghcr.io/team/app:1", "ghcr.io/team/app"),
    ],
)
def test_a_push_is_found_by_the_name_that_kaniko_gives_the_registry(image: str, logged: str) -> None:
    assert says_pushed(f"INFO[0014] Pushed {logged}@{DIGEST}\n", image=image, digest=DIGEST)


NOT_PUSHED = {
    "another image was pushed": f"INFO[0014] Pushed registry:5000/third-party/parser/cache@{DIGEST}\n",
    "another digest was pushed": f"INFO[0014] Pushed registry:5000/third-party/parser@sha256:{'b' * 64}\n",
    "a build printed so": f"echo INFO[0014] Pushed registry:5000/third-party/parser@{DIGEST}\n",
    "the log is empty": "",
}


@pytest.mark.parametrize("name", NOT_PUSHED)
def test_a_digest_alone_proves_no_push(name: str) -> None:
    """kaniko writes --digest-file before it pushes (executor.DoPush)."""
    found = diagnose(a_job(), pods=[a_pod(kaniko(1, message=DIGEST))], read=all_read(NOT_PUSHED[name]))

    assert found.state == State.FAILED


def test_the_log_is_asked_for_where_only_it_can_tell() -> None:
    by_digest = diagnose(a_job(), pods=[a_pod(kaniko(1, message=DIGEST))])
    by_nothing = diagnose(a_job(), pods=[a_pod(kaniko(1))])
    by_message = diagnose(a_job(), pods=[a_pod(kaniko(1, message=KANIKO_WORDS["a step"][0]))])
    by_silence = diagnose(a_job(), pods=[a_pod(kaniko(1))], read=all_read(""))

    found = (by_digest, by_nothing, by_message, by_silence)
    assert [one.needs_reading for one in found] == [True, True, False, False]
    assert by_message.reason == "BuildStepFailed"
    assert (by_silence.state, by_silence.reason) == (State.FAILED, "BuildFailed")
    assert by_silence.message == "Container kaniko ended with exit code 1."


ENDS: dict[str, tuple[Job, list[Pod], str]] = {
    "out of memory": (a_job(), [a_pod(kaniko(137, reason="OOMKilled"))], "OOMKilled"),
    "out of memory in the source container": (
        a_job(),
        [a_pod(Container("source", True, "terminated", "OOMKilled", exit_code=137, started_at=NOW))],
        "OOMKilled",
    ),
    "deadline while it ran": (a_job(reason="DeadlineExceeded"), [a_pod(kaniko(137))], "DeadlineExceeded"),
    "deadline and nothing known": (a_job(reason="DeadlineExceeded"), [], "DeadlineExceeded"),
    "deadline before the image was pulled": (
        a_job(reason="DeadlineExceeded"),
        [a_pod(waiting("ImagePullBackOff", "Back-off pulling image"), phase="Pending")],
        "ImagePullBackOff",
    ),
    "deadline before there was a node": (
        a_job(reason="DeadlineExceeded"),
        [a_pod(phase="Pending", node="", unschedulable="0/3 nodes are available")],
        "Unschedulable",
    ),
    "evicted": (
        a_job(),
        [a_pod(kaniko(137), reason="Evicted", message="The node was low on resource: memory.")],
        "Evicted",
    ),
    "evicted by the API": (
        a_job(),
        [a_pod(kaniko(143), disruption=("EvictionByEvictionAPI", "Eviction API: evicting"))],
        "Evicted",
    ),
    "preempted": (a_job(), [a_pod(kaniko(143), disruption=("PreemptionByScheduler", "preempted"))], "Evicted"),
    "node lost": (a_job(), [a_pod(kaniko(137), disruption=("DeletionByPodGC", "node no longer exists"))], "NodeLost"),
    "node shut down": (a_job(), [a_pod(kaniko(137), reason="Terminated", message="node shutdown")], "NodeLost"),
    "the pod could never be created": (a_job(reason="DeadlineExceeded"), [], "QuotaExceeded"),
    "a policy of the Job": (a_job(reason="PodFailurePolicy"), [], "PodFailurePolicy"),
    "nothing is known": (a_job(), [], "BuildFailed"),
}


@pytest.mark.parametrize("name", ENDS)
def test_an_end_has_its_reason(name: str) -> None:
    job, pods, reason = ENDS[name]
    noted = ("QuotaExceeded", "exceeded quota") if "never be created" in name else ("", "")

    found = diagnose(job, pods=pods, noted=noted)

    assert (found.state, found.reason) == (State.FAILED, reason)
    assert found.message


WAITS: dict[str, tuple[Job, list[Pod], str]] = {
    "nothing is known yet": (a_job("", ""), [], ""),
    "the image cannot be pulled": (
        a_job("", ""),
        [a_pod(waiting("ErrImagePull", "not found"), phase="Pending")],
        "ImagePullBackOff",
    ),
    "the image has no image's name": (
        a_job("", ""),
        [a_pod(waiting("InvalidImageName", "x"), phase="Pending")],
        "InvalidImageName",
    ),
    "a secret is missing": (
        a_job("", ""),
        [a_pod(waiting("CreateContainerConfigError", 'secret "registry" not found'), phase="Pending")],
        "ContainerCannotStart",
    ),
    "containers are being created": (a_job("", ""), [a_pod(waiting("ContainerCreating"), phase="Pending")], ""),
    "no node has room": (
        a_job("", ""),
        [a_pod(phase="Pending", node="", unschedulable="0/3 nodes are available: 3 Insufficient memory.")],
        "Unschedulable",
    ),
    "the Job is suspended": (a_job("", "", suspended=True), [], "Suspended"),
    "the pod was evicted and is being replaced": (
        a_job("", ""),
        [a_pod(kaniko(137), reason="Evicted", message="The node was low on resource: memory.")],
        "Evicted",
    ),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_has_its_reason_and_no_state(name: str) -> None:
    job, pods, reason = WAITS[name]

    found = diagnose(job, pods=pods)

    assert (found.state, found.reason) == (None, reason)


def test_it_runs_once_a_container_has_started_and_says_since_when_and_where() -> None:
    source = Container("source", True, "running", started_at=NOW)

    found = diagnose(a_job("", ""), pods=[a_pod(source, waiting("PodInitializing"), phase="Pending")])

    assert (found.state, found.at, found.node) == (State.RUNNING, NOW, "node-1")


def test_the_latest_pod_counts() -> None:
    evicted = a_pod(kaniko(137), reason="Evicted", age=0)
    running = a_pod(kaniko(None, state="running"), phase="Running", age=5)

    assert diagnose(a_job("", ""), pods=[running, evicted]).state == State.RUNNING


def test_a_job_that_is_gone_has_vanished_unless_its_image_was_pushed() -> None:
    assert vanished().reason == "JobVanished"
    assert vanished(pods=[a_pod(kaniko(0, message=DIGEST))]).state == State.SUCCEEDED


REFUSALS = {
    "quota": (
        'Error creating: pods "j-x" is forbidden: exceeded quota: builds, requested: pods=1, used: pods=10, limited: '
        "pods=10",
        "QuotaExceeded",
    ),
    "LimitRange": (
        'Error creating: pods "j-x" is forbidden: maximum memory usage per Container is 2Gi, but limit is 4Gi',
        "LimitRangeExceeded",
    ),
    "Pod Security": (
        'Error creating: pods "j-x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true',
        "PodSecurityViolated",
    ),
    "service account": (
        'Error creating: pods "j-x" is forbidden: error looking up service account builds/kaniko-builder: '
        'serviceaccount "kaniko-builder" not found',
        "ServiceAccountNotFound",
    ),
    "webhook": ('Error creating: admission webhook "x" denied the request', "PodRefused"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_pod_that_cannot_be_created_has_its_reason(name: str) -> None:
    message, reason = REFUSALS[name]

    assert refusal_of(["Error creating: something before", message]) == (reason, message)
    assert advice(reason)


def test_no_event_is_no_reason() -> None:
    assert refusal_of([]) is None


def test_every_advice_is_one_sentence_to_act_on() -> None:
    for reason, sentence in ADVICE.items():
        assert reason.isidentifier(), reason
        assert reason[0].isupper(), reason
        assert sentence.endswith("."), reason
        assert len(sentence) > 20, reason


ODD_OBJECTS: list[dict[str, Any]] = [
    {"metadata": {"name": "j", "uid": "u"}},
    {"metadata": {"name": "j", "uid": "u", "labels": None, "annotations": None}, "spec": None, "status": None},
    {"metadata": {"name": "j", "uid": "u"}, "status": {"conditions": None, "containerStatuses": None}},
    {"metadata": {"name": "j", "uid": "u"}, "status": {"containerStatuses": [{"name": "kaniko", "state": None}]}},
    {"metadata": {"name": "j", "uid": "u"}, "status": {"containerStatuses": [{"state": {"terminated": None}}]}},
    {"metadata": {"name": "j", "uid": "u", "creationTimestamp": "yesterday"}},
]


@pytest.mark.parametrize("obj", ODD_OBJECTS, ids=range(len(ODD_OBJECTS)))
def test_an_object_that_lacks_things_is_read_all_the_same(obj: dict[str, Any]) -> None:
    job, pod = read_job(obj), read_pod(obj)

    found = diagnose(job, pods=[pod])

    assert (job.name, pod.name) == ("j", "j")
    assert found.state in (None, State.RUNNING)


EVENTS: dict[str, tuple[list[dict[str, str]], tuple[str, str] | None]] = {
    "nothing": ([], None),
    "nothing that explains": ([{"reason": "Scheduled", "message": "Successfully assigned"}], None),
    "a quota": (
        [{"reason": "FailedCreate", "message": "exceeded quota: builds"}],
        ("QuotaExceeded", "exceeded quota: builds"),
    ),
    "an image": (
        [{"reason": "Pulling", "message": ""}, {"reason": "Failed", "message": 'Failed to pull image "x": not found'}],
        ("ImagePullBackOff", 'Failed to pull image "x": not found'),
    ),
    "no node": ([{"reason": "FailedScheduling", "message": "0/3 nodes"}], ("Unschedulable", "0/3 nodes")),
    "a volume": (
        [{"reason": "FailedMount", "message": 'secret "registry" not found'}],
        ("ContainerCannotStart", 'secret "registry" not found'),
    ),
    "the last of several": (
        [{"reason": "FailedCreate", "message": "exceeded quota"}, {"reason": "FailedScheduling", "message": "0/3"}],
        ("Unschedulable", "0/3"),
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_events_tell_why_nothing_ran(name: str) -> None:
    events, told = EVENTS[name]

    assert told_by_events(events) == told


# As a status can look that somebody patched, and not a kubelet.
PARTIAL: dict[str, tuple[dict[str, Any], State | None, str]] = {
    "only a phase": ({"phase": "Running"}, State.RUNNING, ""),
    "a container and no phase": (
        {"containerStatuses": [{"name": "kaniko", "state": {"running": {"startedAt": None}}}]},
        State.RUNNING,
        "",
    ),
    "a disruption without a reason": (
        {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]},
        None,
        "Evicted",
    ),
    "an init container that waits": (
        {"initContainerStatuses": [{"name": "source", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
        None,
        "ImagePullBackOff",
    ),
    "a pod that is held back": (
        {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]},
        None,
        "Unschedulable",
    ),
    "a reason that PostgreSQL cannot hold": ({"phase": "Failed", "reason": "\x00" * 999}, None, "NodeRefused"),
}


@pytest.mark.parametrize("name", PARTIAL)
def test_a_status_with_few_fields_is_read_for_what_it_has(name: str) -> None:
    status, state, reason = PARTIAL[name]
    pod = read_pod({"metadata": {"name": "j-x", "uid": "u", "resourceVersion": "12"}, "status": status})

    found = diagnose(a_job("", ""), pods=[pod])

    assert (found.state, found.reason) == (state, reason)
    assert "\x00" not in pod.reason + found.message


def test_a_message_in_colours_tells_its_words() -> None:
    text = "\x1b[36mINFO\x1b[0m[0004] RUN npm ci                                   \n" + KANIKO_WORDS["a step"][0]
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": text}}
    status = {"phase": "Failed", "containerStatuses": [{"name": "kaniko", "state": ended}]}
    pod = read_pod({"metadata": {"name": "j-x", "uid": "u"}, "status": status})

    found = diagnose(a_job(), pods=[pod])

    assert found.message == f"RUN npm ci: {KANIKO_WORDS['a step'][0]}"


def test_a_pod_says_how_old_what_it_says_is() -> None:
    read = [
        read_pod({"metadata": {"name": "j-x", "uid": "u"} | version})
        for version in ({"resourceVersion": "12"}, {"resourceVersion": "opaque"}, {})
    ]

    assert [pod.version for pod in read] == [12, 0, 0]
    assert read[0] == read[1]
