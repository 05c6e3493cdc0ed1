"""What a Job must fulfil when it is created, changed or reported on: pkg/apis/batch/validation of Kubernetes."""

from typing import Any

from deploy.local.kubernetes_simulator.answers import (
    FieldError,
    duplicate,
    forbidden_value,
    invalid_value,
    invalid_without_value,
    not_supported,
    required,
)
from deploy.local.kubernetes_simulator.names import (
    check_annotations,
    check_labels,
    check_name,
    label_problems,
    qualified_name_problems,
)
from deploy.local.kubernetes_simulator.pod_rules import check_pod_template

Json = dict[str, Any]

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
JOB_NAME = "batch.kubernetes.io/job-name"
LEGACY_CONTROLLER_UID = "controller-uid"
LEGACY_JOB_NAME = "job-name"

_NOT_NEGATIVE = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")
_POLICY_ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]
_IMMUTABLE = ("completions", "selector", "template", "completionMode", "podFailurePolicy", "managedBy", "successPolicy")
_MAX_POLICY_RULES = 20


def check_metadata(metadata: Json, *, any_name: bool = False) -> list[FieldError]:
    """ValidateObjectMeta for the objects that the simulator serves."""
    errors: list[FieldError] = []
    name = metadata.get("name", "")
    if not name:
        errors.append(required("metadata.name", "name or generateName is required"))
    elif not any_name:
        errors += check_name(name, path="metadata.name")
    errors += check_labels(metadata.get("labels", {}), path="metadata.labels")
    errors += check_annotations(metadata.get("annotations", {}), path="metadata.annotations")
    for index, finalizer in enumerate(metadata.get("finalizers", [])):
        errors += [
            invalid_value(f"metadata.finalizers[{index}]", finalizer, problem)
            for problem in qualified_name_problems(finalizer)
        ]
    return errors


def check_job(job: Json) -> list[FieldError]:
    """ValidateJob, after defaulting and the generation of the selector."""
    metadata, spec = job["metadata"], job["spec"]
    errors = check_metadata(metadata)
    if not spec.get("manualSelector"):
        errors += _check_generated_labels(metadata, spec)
    errors += _check_spec(spec)
    if spec.get("completionMode") == "Indexed" and spec.get("completions"):
        host = f"{metadata.get('name', '')}-{spec['completions'] - 1}"
        if label_problems(host):
            errors.append(
                invalid_value(
                    "metadata.name", metadata.get("name"), f"will not able to create pod with invalid DNS label: {host}"
                )
            )
    return errors


def _check_generated_labels(metadata: Json, spec: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    wanted = {
        LEGACY_CONTROLLER_UID: metadata["uid"],
        LEGACY_JOB_NAME: metadata.get("name", ""),
        CONTROLLER_UID: metadata["uid"],
        JOB_NAME: metadata.get("name", ""),
    }
    for key, value in wanted.items():
        if labels.get(key) != value:
            errors.append(
                invalid_value("spec.template.metadata.labels", labels, f"must be '{value}'")
                if key in labels
                else required("spec.template.metadata.labels", f"must be '{value}'")
            )
    selected = spec.get("selector", {}).get("matchLabels", {})
    if any(wanted.get(key) != value for key, value in selected.items()):
        errors.append(invalid_value("spec.selector", spec["selector"], "`selector` not auto-generated"))
    return errors


def _check_spec(spec: Json) -> list[FieldError]:
    errors = [
        invalid_value(f"spec.{field}", spec[field], "must be greater than or equal to 0")
        for field in _NOT_NEGATIVE
        if spec.get(field) is not None and spec[field] < 0
    ]
    mode = spec.get("completionMode")
    if mode not in ("NonIndexed", "Indexed"):
        errors.append(not_supported("spec.completionMode", mode, ["NonIndexed", "Indexed"]))
    if mode == "Indexed" and spec.get("completions") is None:
        errors.append(required("spec.completions", "when completion mode is Indexed"))
    errors += [
        invalid_value(f"spec.{field}", spec[field], "requires indexed completion mode")
        for field in ("backoffLimitPerIndex", "maxFailedIndexes", "successPolicy")
        if mode != "Indexed" and spec.get(field) is not None
    ]
    if "podFailurePolicy" in spec:
        errors += _check_failure_policy(spec)
    replacement = spec.get("podReplacementPolicy")
    choices = ["Failed"] if "podFailurePolicy" in spec else ["Failed", "TerminatingOrFailed"]
    if replacement not in choices:
        errors.append(not_supported("spec.podReplacementPolicy", replacement, choices))
    errors += check_pod_template(spec.get("template", {}), path="spec.template")
    return errors + _check_restart_policy(spec)


def _check_restart_policy(spec: Json) -> list[FieldError]:
    path = "spec.template.spec.restartPolicy"
    policy = spec.get("template", {}).get("spec", {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        return [required(path, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [not_supported(path, policy, ["OnFailure", "Never"])]
    if "podFailurePolicy" in spec and policy != "Never":
        return [invalid_value(path, policy, 'only "Never" is supported when podFailurePolicy is specified')]
    return []


def _check_failure_policy(spec: Json) -> list[FieldError]:
    errors: list[FieldError] = []
    rules = spec["podFailurePolicy"].get("rules", [])
    if len(rules) > _MAX_POLICY_RULES:
        errors.append(
            FieldError(
                "FieldValueTooMany",
                "spec.podFailurePolicy.rules",
                f"Too many: {len(rules)}: must have at most {_MAX_POLICY_RULES} items",
            )
        )
    pod = spec.get("template", {}).get("spec", {})
    names = {container.get("name") for container in pod.get("containers", []) + pod.get("initContainers", [])}
    for index, rule in enumerate(rules):
        errors += _check_policy_rule(rule, path=f"spec.podFailurePolicy.rules[{index}]", spec=spec, names=names)
    return errors


def _check_policy_rule(rule: Json, *, path: str, spec: Json, names: set[str | None]) -> list[FieldError]:
    errors: list[FieldError] = []
    action = rule.get("action", "")
    if not action:
        errors.append(required(f"{path}.action", 'valid values: ["Count" "FailIndex" "FailJob" "Ignore"]'))
    elif action not in _POLICY_ACTIONS:
        errors.append(not_supported(f"{path}.action", action, _POLICY_ACTIONS))
    elif action == "FailIndex" and spec.get("backoffLimitPerIndex") is None:
        errors.append(invalid_value(f"{path}.action", action, "requires the backoffLimitPerIndex to be set"))
    codes, conditions = rule.get("onExitCodes"), rule.get("onPodConditions")
    if codes is not None:
        errors += _check_exit_codes(codes, path=f"{path}.onExitCodes", names=names)
    for index, condition in enumerate(conditions or []):
        if condition.get("status") not in ("True", "False", "Unknown"):
            errors.append(
                not_supported(
                    f"{path}.onPodConditions[{index}].status", condition.get("status"), ["False", "True", "Unknown"]
                )
            )
    if codes is not None and conditions:
        errors.append(invalid_without_value(path, "specifying both OnExitCodes and OnPodConditions is not supported"))
    if codes is None and not conditions:
        errors.append(invalid_without_value(path, "specifying one of OnExitCodes and OnPodConditions is required"))
    return errors


def _check_exit_codes(codes: Json, *, path: str, names: set[str | None]) -> list[FieldError]:
    errors: list[FieldError] = []
    operator = codes.get("operator", "")
    if not operator:
        errors.append(required(f"{path}.operator", 'valid values: ["In" "NotIn"]'))
    elif operator not in ("In", "NotIn"):
        errors.append(not_supported(f"{path}.operator", operator, ["In", "NotIn"]))
    container = codes.get("containerName")
    if container is not None and container not in names:
        errors.append(
            invalid_value(
                f"{path}.containerName",
                container,
                "must be one of the container or initContainer names in the pod template",
            )
        )
    values = codes.get("values", [])
    if not values:
        errors.append(invalid_value(f"{path}.values", values, "at least one value is required"))
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(invalid_value(f"{path}.values[{index}]", value, "must not be 0 for the In operator"))
        if value in values[:index]:
            errors.append(duplicate(f"{path}.values[{index}]", value))
    if values != sorted(values):
        errors.append(invalid_value(f"{path}.values", values, "must be ordered"))
    return errors


def check_job_update(job: Json, *, old: Json) -> list[FieldError]:
    """ValidateJobUpdate: most of a Job's spec may not change. A suspended Job that never started may be rescheduled."""
    errors = check_job(job)
    new, was = job["spec"], old["spec"]
    unstarted = was.get("suspend") and "startTime" not in old.get("status", {})
    for field in _IMMUTABLE:
        before, after = was.get(field), new.get(field)
        if field == "template" and unstarted:
            before, after = _without_scheduling(before), _without_scheduling(after)
        if before != after:
            errors.append(invalid_value(f"spec.{field}", after, "field is immutable"))
    return errors


def _without_scheduling(template: Json) -> Json:
    pod = {
        key: value for key, value in template["spec"].items() if key not in ("nodeSelector", "tolerations", "affinity")
    }
    return {"spec": pod}


def _is_true(job: Json, kind: str) -> bool:
    conditions = job.get("status", {}).get("conditions", [])
    return any(condition["type"] == kind and condition["status"] == "True" for condition in conditions)


def is_finished(job: Json) -> bool:
    """Complete or Failed: the two conditions after which a Job does not change any more."""
    return _is_true(job, "Complete") or _is_true(job, "Failed")


def check_job_status(job: Json, *, old: Json) -> list[FieldError]:
    """ValidateJobUpdateStatus: who writes a Job's status has to do it as the Job controller would (since 1.31)."""
    errors: list[FieldError] = []
    status = job.get("status", {})
    for field in ("active", "ready", "succeeded", "failed", "terminating"):
        if status.get(field, 0) < 0:
            errors.append(invalid_value(f"status.{field}", status[field], "must be greater than or equal to 0"))
    complete, failed = _is_true(job, "Complete"), _is_true(job, "Failed")
    changed = complete != _is_true(old, "Complete") or failed != _is_true(old, "Failed")
    rules = [
        (complete and failed, "cannot set Complete=True and Failed=true conditions"),
        (
            complete and _is_true(job, "FailureTarget"),
            "cannot set Complete=True and FailureTarget=true conditions",
        ),
        (
            changed and failed and not _is_true(job, "FailureTarget"),
            "cannot set Failed=True condition without the FailureTarget=true condition",
        ),
        (
            changed and complete and not _is_true(job, "SuccessCriteriaMet"),
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        ),
        (
            _is_true(job, "SuccessCriteriaMet") and failed,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        ),
        (
            _is_true(job, "SuccessCriteriaMet") and _is_true(job, "FailureTarget"),
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        ),
    ]
    errors += [invalid_without_value("status.conditions", detail) for broken, detail in rules if broken]
    return errors + _check_finished_status(
        job, old=old, complete=complete, finished=complete or failed, changed=changed
    )


def _check_finished_status(job: Json, *, old: Json, complete: bool, finished: bool, changed: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    status, before = job.get("status", {}), old.get("status", {})
    if is_finished(old) and not finished:
        errors.append(invalid_without_value("status.conditions", "cannot disable a terminal condition"))
    if "completionTime" in status and not complete:
        errors.append(
            invalid_value(
                "status.completionTime",
                status["completionTime"],
                "cannot set completionTime when there is no Complete=True condition",
            )
        )
    if complete and "completionTime" not in status:
        errors.append(required("status.completionTime", "completionTime is required for Complete jobs"))
    if changed and finished:
        if status.get("active", 0) > 0:
            errors.append(invalid_value("status.active", status["active"], "active>0 is invalid for finished job"))
        if "startTime" not in status:
            errors.append(required("status.startTime", "startTime is required for finished job"))
        if status.get("terminating", 0) > 0:
            errors.append(
                invalid_value("status.terminating", status["terminating"], "terminating>0 is invalid for finished job")
            )
    ready_changed = (status.get("ready"), status.get("active")) != (before.get("ready"), before.get("active"))
    if ready_changed and "ready" in status and status["ready"] > status.get("active", 0):
        errors.append(invalid_value("status.ready", status["ready"], "cannot set more ready pods than active"))
    if "startTime" in before and status.get("startTime") != before["startTime"] and not old["spec"].get("suspend"):
        errors.append(
            required("status.startTime", "startTime cannot be removed for unsuspended job")
            if "startTime" not in status
            else invalid_value("status.startTime", status["startTime"], "field is immutable")
        )
    return errors


def check_finalizers(new: Json, *, old: Json) -> list[FieldError]:
    """No finalizer may be added to an object that is being deleted."""
    added = set(new.get("finalizers", [])) - set(old.get("finalizers", []))
    if "deletionTimestamp" not in old or not added:
        return []
    return [
        forbidden_value(
            "metadata.finalizers",
            "no new finalizers can be added if the object is being deleted, found new finalizers "
            f"[]string{{{', '.join(chr(34) + name + chr(34) for name in sorted(added))}}}",
        )
    ]
