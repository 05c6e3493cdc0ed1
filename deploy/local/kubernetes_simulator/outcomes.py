"""What can become of a build's pod, and what kaniko, the kubelet and the cluster write about it.

The log lines follow kaniko 1.2x (`INFO[0003] …`, `error building image: …`), so that whoever classifies failures
by text is tested on texts that occur. `DESTINATION` stands for the Job's own argument. kaniko's own lines are written
in the format that the command line asks for.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

KANIKO_CONTAINER = "kaniko"

_START = (
    "INFO[0000] Using dockerignore file: /kaniko/buildcontext/.dockerignore",
    "INFO[0000] Retrieving image manifest registry.example/library/node:18-alpine",
    "INFO[0000] Retrieving image registry.example/library/node:18-alpine from registry registry.example",
    "INFO[0001] Built cross stage deps: map[]",
    "INFO[0001] Retrieving image manifest registry.example/library/node:18-alpine",
    "INFO[0001] Returning cached image manifest",
    "INFO[0001] Executing 0 build triggers",
    "INFO[0001] Building stage 'registry.example/library/node:18-alpine' [idx: '0', base-idx: '-1']",
    "INFO[0001] Unpacking rootfs as cmd COPY package*.json ./ requires it.",
    "INFO[0004] WORKDIR /app",
    "INFO[0004] Cmd: workdir",
    "INFO[0004] Changed working directory to /app",
    "INFO[0004] Creating directory /app with uid -1 and gid -1",
    "INFO[0004] Taking snapshot of files...",
    "INFO[0004] COPY package*.json ./",
    "INFO[0004] Resolving srcs [package*.json]...",
    "INFO[0004] Taking snapshot of files...",
    "INFO[0004] RUN npm ci --omit=dev",
    "INFO[0004] Initializing snapshotter ...",
    "INFO[0004] Taking snapshot of full filesystem...",
    "INFO[0006] Cmd: /bin/sh",
    "INFO[0006] Args: [-c npm ci --omit=dev]",
    "INFO[0006] Running: [/bin/sh -c npm ci --omit=dev]",
)
_PUSH = (
    "added 57 packages in 2s",
    "INFO[0011] Taking snapshot of full filesystem...",
    "INFO[0012] COPY . .",
    "INFO[0012] Taking snapshot of files...",
    'INFO[0012] CMD ["node", "index.js"]',
    "INFO[0012] Pushing image to DESTINATION",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one pod ends.

    `exit_code` is that of the kaniko container. `waits` names the reason for which a pod never starts; `ends` is
    False for a pod that stays as it is. `disrupted` is the reason of the DisruptionTarget condition; such an end is
    the node's, not the build's, so it happens once and the replacement pod goes its own way.
    """

    name: str
    exit_code: int = 0
    reason: str = "Completed"
    log: tuple[str, ...] = ()
    ends: bool = True
    waits: str = ""
    disrupted: str = ""
    disruption: str = ""
    pod_reason: str = ""
    pod_message: str = ""
    creates_pod: bool = True
    passes_deadline: bool = False


def _failure(name: str, *lines: str, started: bool = False) -> Outcome:
    return Outcome(name=name, exit_code=1, reason="Error", log=(*(_START if started else ()), *lines))


_EVICTION = (
    "The node was low on resource: ephemeral-storage. Threshold quantity: 10738417664, available: 9873012Ki. "
    "Container kaniko was using 12Gi, request is 0, has larger consumption of ephemeral-storage. "
)

OUTCOMES: dict[str, Outcome] = {
    outcome.name: outcome
    for outcome in (
        Outcome(
            name="succeed",
            log=(*_START, *_PUSH, "INFO[0014] Pushed DESTINATION@DIGEST"),
        ),
        _failure(
            "build-error",
            "npm error code E404",
            "npm error 404 Not Found - GET https://registry.example/left-padd - Not found",
            "npm error 404  'left-padd@^1.3.0' is not in this registry.",
            "error building image: error building stage: failed to execute command: waiting for process to exit: "
            "exit status 1",
            started=True,
        ),
        _failure(
            "dockerfile-error",
            "Error: error resolving dockerfile path: please provide a valid path to a Dockerfile within the build "
            "context with --dockerfile",
        ),
        Outcome(name="oom", exit_code=137, reason="OOMKilled", log=_START),
        Outcome(name="deadline", log=_START, ends=False, passes_deadline=True),
        Outcome(name="hang", log=_START, ends=False),
        Outcome(name="image-pull-backoff", ends=False, waits="ImagePullBackOff"),
        Outcome(name="unschedulable", ends=False, waits="Unschedulable"),
        Outcome(name="quota", ends=False, creates_pod=False),
        Outcome(
            name="evicted",
            exit_code=137,
            reason="Error",
            log=_START,
            disrupted="TerminationByKubelet",
            disruption=_EVICTION,
            pod_reason="Evicted",
            pod_message=_EVICTION,
        ),
        Outcome(
            name="node-lost",
            exit_code=137,
            reason="ContainerStatusUnknown",
            log=_START,
            disrupted="DeletionByPodGC",
            disruption="PodGC: node no longer exists",
            pod_reason="NodeLost",
            pod_message="Node which was running pod is unresponsive",
        ),
        _failure(
            "push-denied",
            'error checking push permissions: checking push permission for "DESTINATION": POST '
            "https://registry.example/v2/builds/blobs/uploads/: DENIED: requested access to the resource is denied",
        ),
        _failure(
            "registry-auth",
            *_START[:3],
            "error building image: unable to complete operation after 0 attempts, last error: GET "
            "https://registry.example/v2/library/node/manifests/18-alpine: UNAUTHORIZED: authentication required; "
            "[map[Action:pull Class: Name:library/node Type:repository]]",
        ),
        _failure(
            "rate-limited",
            *_START[:3],
            "error building image: unable to complete operation after 0 attempts, last error: GET "
            "https://registry.example/v2/library/node/manifests/18-alpine: TOOMANYREQUESTS: You have reached your "
            "unauthenticated pull rate limit. Retry later or authenticate.",
        ),
        _failure(
            "source-not-found",
            "Enumerating objects: 0, done.",
            "Error: error resolving source context: authentication required: Repository not found.",
            "error resolving source context: authentication required: Repository not found.",
        ),
        _failure(
            "push-timeout",
            *_START,
            *_PUSH,
            "error pushing image: failed to push to destination DESTINATION: Put "
            '"https://registry.example/v2/builds/manifests/latest": net/http: TLS handshake timeout',
        ),
    )
}


def is_script(text: str) -> bool:
    """Whether a text scripts pods: outcomes joined by commas, the first for the first pod, and so on."""
    return bool(text) and all(part.strip() in OUTCOMES for part in text.split(","))


def outcome_of(script: str, *, attempt: int) -> Outcome:
    """The outcome of a Job's pod number `attempt`, counted from 0. The last one repeats, but a disruption does not."""
    names = [part.strip() for part in script.split(",")]
    if attempt < len(names):
        return OUTCOMES[names[attempt]]
    last = OUTCOMES[names[-1]]
    return OUTCOMES["succeed"] if last.disrupted else last


def digest_of(pod: Json) -> str:
    """The image digest that kaniko would have pushed: made of the pod's uid, so that it can be foretold."""
    return "sha256:" + hashlib.sha256(str(pod["metadata"]["uid"]).encode()).hexdigest()


def argument(container: Json, name: str) -> str:
    """The value of a kaniko argument such as `--destination`, in either spelling; empty where it is missing."""
    arguments = container.get("args", [])
    for index, text in enumerate(arguments):
        if text == name and index + 1 < len(arguments):
            return str(arguments[index + 1])
        if text.startswith(f"{name}="):
            return str(text.partition("=")[2])
    return ""


def log_lines(pod: Json, *, container: Json, outcome: Outcome) -> list[str]:
    """The whole log that a container of this pod writes until its end."""
    if container is not main_container(pod):
        return [f"{container['name']}: prepared the build context"]
    destination = argument(container, "--destination") or "registry.example/builds:latest"
    digest = digest_of(pod)
    log_format = argument(container, "--log-format") or "color"
    lines = (line.replace("DESTINATION", destination).replace("DIGEST", digest) for line in outcome.log)
    return [_as_logged(line, log_format=log_format) for line in lines]


def _as_logged(line: str, *, log_format: str) -> str:
    """One of kaniko's own lines as logrus writes it (TextFormatter); a build's lines as they are."""
    own = re.fullmatch(r"INFO\[(\d+)\] (.*)", line)
    if own is None:
        return line
    if log_format == "color":
        return f"\x1b[36mINFO\x1b[0m[{own[1]}] {own[2]:<44} "
    return f'time="2026-11-23T14:02:{int(own[1]):02}Z" level=info msg={json.dumps(own[2])}'


def main_container(pod: Json) -> Json:
    """The container that builds: the one called kaniko, else the first."""
    containers: list[Json] = pod["spec"]["containers"]
    return next((found for found in containers if found["name"] == KANIKO_CONTAINER), containers[0])


def termination_message(outcome: Outcome, *, pod: Json) -> str:
    """What stands in the termination log: the digest, where the command line makes kaniko write it there.

    A container that is not given a kaniko command line at all gets it too, for tests with the simplest of Jobs.
    """
    container = main_container(pod)
    told = argument(container, "--digest-file") == container.get("terminationMessagePath")
    if outcome.exit_code or not (told or not argument(container, "--destination")):
        return ""
    return digest_of(pod)
