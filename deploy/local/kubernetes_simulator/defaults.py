"""What the API server fills in where a manifest is silent (SetDefaults_* of batch/v1 and core/v1)."""

from typing import Any

from deploy.local.kubernetes_simulator.job_rules import (
    CONTROLLER_UID,
    JOB_NAME,
    LEGACY_CONTROLLER_UID,
    LEGACY_JOB_NAME,
)

Json = dict[str, Any]

_FILE_MODE = 0o644


def fill_job(job: Json) -> None:
    """Defaults of a Job's spec, of its pod template and, where it has no labels, its labels from the template."""
    spec = job.setdefault("spec", {})
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "Failed" if "podFailurePolicy" in spec else "TerminatingOrFailed")
    for rule in spec.get("podFailurePolicy", {}).get("rules", []):
        for condition in rule.get("onPodConditions", []):
            condition.setdefault("status", "True")
    template = spec.setdefault("template", {})
    metadata = template.setdefault("metadata", {})
    fill_pod_spec(template.setdefault("spec", {}))
    if "labels" in metadata and not job["metadata"].get("labels"):
        # One map in memory: labels that are generated for the template appear on the Job as well.
        job["metadata"]["labels"] = metadata["labels"]


def generate_selector(job: Json) -> None:
    """The selector by controller uid, and the labels that make the pods match (registry/batch/job/strategy.go)."""
    metadata, spec = job["metadata"], job["spec"]
    if spec.get("manualSelector"):
        return
    labels = spec["template"]["metadata"].setdefault("labels", {})
    name, uid = metadata.get("name", ""), metadata["uid"]
    labels.setdefault(LEGACY_JOB_NAME, name)
    labels.setdefault(JOB_NAME, name)
    labels.setdefault(LEGACY_CONTROLLER_UID, uid)
    labels.setdefault(CONTROLLER_UID, uid)
    spec.setdefault("selector", {}).setdefault("matchLabels", {}).setdefault(CONTROLLER_UID, uid)


def fill_stored_job(job: Json) -> None:
    """What decoding a stored Job adds once more: one without labels shows those of its pod template."""
    if not job["metadata"].get("labels"):
        job["metadata"]["labels"] = dict(job["spec"]["template"]["metadata"].get("labels", {}))


def fill_pod_spec(spec: Json) -> None:
    """Defaults of a pod's spec that a reader can see."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        _fill_container(container)
    for volume in spec.get("volumes", []):
        for source in ("secret", "configMap", "projected", "downwardAPI"):
            if source in volume:
                volume[source].setdefault("defaultMode", _FILE_MODE)


def _fill_container(container: Json) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        image = container.get("image", "")
        tag = image.rpartition("/")[2].partition(":")[2]
        pinned = "@" in image or (tag and tag != "latest")
        container["imagePullPolicy"] = "IfNotPresent" if pinned else "Always"
    resources = container.setdefault("resources", {})
    if "limits" in resources:
        requests = resources.setdefault("requests", {})
        for name, amount in resources["limits"].items():
            requests.setdefault(name, amount)
    for source in (variable.get("valueFrom", {}) for variable in container.get("env", [])):
        if "fieldRef" in source:
            source["fieldRef"].setdefault("apiVersion", "v1")


def fill_pod(pod: Json) -> None:
    """Defaults of a pod itself, as its creation adds them to those of the spec."""
    spec = pod.setdefault("spec", {})
    fill_pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec.setdefault("priority", 0)
