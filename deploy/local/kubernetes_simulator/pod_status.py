"""The status of a pod at each step of its life, as scheduler and kubelet write it. Pure."""

from typing import Any

from deploy.local.kubernetes_simulator.outcomes import Outcome, main_container, termination_message

Json = dict[str, Any]

UNSCHEDULABLE = (
    "0/3 nodes are available: 3 Insufficient memory. preemption: 0/3 nodes are available: "
    "3 No preemption victims found for incoming pod."
)

_NEVER_RAN = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
    "startedAt": None,
    "finishedAt": None,
}


def _condition(kind: str, *, true: bool, moment: str, reason: str = "", message: str = "") -> Json:
    condition = {
        "type": kind,
        "status": "True" if true else "False",
        "lastProbeTime": None,
        "lastTransitionTime": moment,
    }
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition


def _unready(names: list[str]) -> str:
    return f"containers with unready status: [{' '.join(names)}]"


def _container(container: Json, *, uid: str, state: Json, ready: bool, started: bool) -> Json:
    status = {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": ready,
        "restartCount": 0,
        "started": started,
        "state": state,
        "lastState": {},
    }
    if "waiting" not in state:
        status["containerID"] = f"containerd://{uid.replace('-', '')}{container['name']}"
        status["imageID"] = container["image"].partition("@")[0]
    return status


def _names(pod: Json, field: str = "containers") -> list[str]:
    return [container["name"] for container in pod["spec"].get(field, [])]


def pending() -> Json:
    return {"phase": "Pending", "qosClass": "Burstable"}


def unschedulable(pod: Json, *, moment: str) -> Json:
    condition = _condition("PodScheduled", true=False, moment=moment, reason="Unschedulable", message=UNSCHEDULABLE)
    return {**pod["status"], "conditions": [condition]}


def waiting(pod: Json, *, moment: str, reason: str, message: str = "") -> Json:
    """Scheduled, its containers not started: ContainerCreating, ErrImagePull, ImagePullBackOff."""
    names = _names(pod)
    unready = {"reason": "ContainersNotReady", "message": _unready(names)}
    state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}
    return {
        **pod["status"],
        "phase": "Pending",
        "startTime": pod["status"].get("startTime", moment),
        "hostIP": "192.0.2.10",
        "conditions": [
            _condition("PodReadyToStartContainers", true=False, moment=moment),
            _condition("Initialized", true=True, moment=moment),
            _condition("Ready", true=False, moment=moment, **unready),
            _condition("ContainersReady", true=False, moment=moment, **unready),
            _condition("PodScheduled", true=True, moment=moment),
        ],
        "containerStatuses": [
            _container(found, uid=pod["metadata"]["uid"], state=state, ready=False, started=False)
            for found in pod["spec"]["containers"]
        ],
        **_init_statuses(pod, state={"waiting": {"reason": "PodInitializing"}}, ready=False),
    }


def _init_statuses(pod: Json, *, state: Json, ready: bool) -> Json:
    containers = pod["spec"].get("initContainers")
    if not containers:
        return {}
    return {
        "initContainerStatuses": [
            _container(found, uid=pod["metadata"]["uid"], state=state, ready=ready, started=False)
            for found in containers
        ]
    }


def running(pod: Json, *, moment: str) -> Json:
    done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": moment, "finishedAt": moment}}
    return {
        **pod["status"],
        "phase": "Running",
        "podIP": "198.51.100.7",
        "podIPs": [{"ip": "198.51.100.7"}],
        "conditions": [
            _condition(kind, true=True, moment=moment)
            for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
        ],
        "containerStatuses": [
            _container(
                found,
                uid=pod["metadata"]["uid"],
                state={"running": {"startedAt": moment}},
                ready=True,
                started=True,
            )
            for found in pod["spec"]["containers"]
        ],
        **_init_statuses(pod, state=done, ready=True),
    }


def finished(pod: Json, *, moment: str, outcome: Outcome) -> Json:
    """Succeeded or Failed, with the container's end, and the disruption where that was the cause."""
    failed = outcome.exit_code != 0
    started = _started_at(pod) or moment
    reason = "PodFailed" if failed else "PodCompleted"
    conditions = [
        _condition("PodReadyToStartContainers", true=False, moment=moment),
        _condition("Initialized", true=True, moment=moment, reason="" if failed else "PodCompleted"),
        _condition("Ready", true=False, moment=moment, reason=reason),
        _condition("ContainersReady", true=False, moment=moment, reason=reason),
        _condition("PodScheduled", true=True, moment=moment),
    ]
    if outcome.disrupted:
        conditions.append(
            _condition(
                "DisruptionTarget",
                true=True,
                moment=moment,
                reason=outcome.disrupted,
                message=outcome.disruption,
            )
        )
    status = {
        **pod["status"],
        "phase": "Failed" if failed else "Succeeded",
        "conditions": conditions,
        "containerStatuses": [
            _container(
                found,
                uid=pod["metadata"]["uid"],
                state={"terminated": _end(pod, container=found, outcome=outcome, started=started, moment=moment)},
                ready=False,
                started=False,
            )
            for found in pod["spec"]["containers"]
        ],
    }
    if outcome.pod_reason:
        status |= {"reason": outcome.pod_reason, "message": outcome.pod_message}
    return status


def _started_at(pod: Json) -> str:
    for status in pod["status"].get("containerStatuses", []):
        return str(status["state"].get("running", {}).get("startedAt", ""))
    return ""


def _end(pod: Json, *, container: Json, outcome: Outcome, started: str, moment: str) -> Json:
    main = container is main_container(pod)
    end: Json = {
        "exitCode": outcome.exit_code if main else 0,
        "reason": outcome.reason if main else "Completed",
        "startedAt": started,
        "finishedAt": moment,
        "containerID": f"containerd://{pod['metadata']['uid'].replace('-', '')}{container['name']}",
    }
    message = termination_message(outcome, pod=pod) if main else ""
    if message:
        end["message"] = message
    return end


def killed(pod: Json, *, moment: str) -> Json:
    """Ended by a deletion: the grace period is over and the containers got SIGKILL. Those that never ran, the kubelet
    cannot find, and says so (pkg/kubelet/status, TerminatePod)."""
    status = finished(pod, moment=moment, outcome=Outcome(name="killed", exit_code=137, reason="Error"))
    ran = {found["name"] for found in pod["status"].get("containerStatuses", []) if "waiting" not in found["state"]}
    for found in status["containerStatuses"]:
        if found["name"] not in ran:
            found["state"] = {"terminated": dict(_NEVER_RAN)}
    return status


def is_over(pod: Json) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(found["type"] == "Ready" and found["status"] == "True" for found in conditions)
