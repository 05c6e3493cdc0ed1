"""What a pod (template) must fulfil: the rules of pkg/apis/core/validation that a build Job can run into."""

import functools
import re
from fractions import Fraction
from typing import Any

from deploy.local.kubernetes_simulator.answers import (
    FieldError,
    duplicate,
    invalid_value,
    not_found_value,
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

Json = dict[str, Any]

_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_MESSAGE_POLICIES = ["FallbackToLogsOnError", "File"]
_DNS_POLICIES = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]
_EFFECTS = ["NoSchedule", "PreferNoSchedule", "NoExecute"]
_SECCOMP = ["Localhost", "RuntimeDefault", "Unconfined"]
_STANDARD_RESOURCES = ("cpu", "memory", "ephemeral-storage")
# Since 1.34 any printable ASCII but `=` may stand in a variable's name (RelaxedEnvironmentVariableValidation).
_ENVIRONMENT_NAME = re.compile(r"[ -<>-~]+")
_SCALES = {
    "": Fraction(1),
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "k": Fraction(10**3),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(2**10),
    "Mi": Fraction(2**20),
    "Gi": Fraction(2**30),
    "Ti": Fraction(2**40),
    "Pi": Fraction(2**50),
    "Ei": Fraction(2**60),
}
_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]*)([numkMGTPE]i?|Ki|)")


@functools.lru_cache(4096)
def quantity(text: str | float) -> Fraction | None:
    """The value of a quantity such as `500m` or `2Gi`, or None where it is none."""
    text = str(text)
    if re.fullmatch(r"[+-]?[0-9.]+[eE][+-]?[0-9]+", text):
        return Fraction(text)
    found = _QUANTITY.fullmatch(text)
    if not found or found[1] in ("", "+", "-", ".") or found[2] not in _SCALES:
        return None
    return Fraction(found[1]) * _SCALES[found[2]]


def check_pod_template(template: Json, *, path: str) -> list[FieldError]:
    """ValidatePodTemplateSpec: the template's labels, annotations and spec."""
    metadata = template.get("metadata", {})
    errors = check_labels(metadata.get("labels", {}), path=f"{path}.labels")
    errors += check_annotations(metadata.get("annotations", {}), path=f"{path}.annotations")
    return errors + check_pod_spec(template.get("spec", {}), path=f"{path}.spec")


def check_pod_spec(spec: Json, *, path: str) -> list[FieldError]:
    """ValidatePodSpec, as far as named in this module."""
    volumes, errors = _check_volumes(spec.get("volumes", []), path=f"{path}.volumes")
    names: set[str] = set()
    containers = spec.get("containers") or []
    if not containers:
        errors.append(required(f"{path}.containers"))
    for index, container in enumerate(containers):
        errors += _check_container(container, path=f"{path}.containers[{index}]", volumes=volumes, names=names)
    for index, container in enumerate(spec.get("initContainers", [])):
        errors += _check_container(container, path=f"{path}.initContainers[{index}]", volumes=volumes, names=names)
    if spec.get("dnsPolicy") not in _DNS_POLICIES:
        errors.append(not_supported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), _DNS_POLICIES))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2**31 - 1:
        errors.append(
            invalid_value(f"{path}.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647, inclusive")
        )
    if spec.get("serviceAccountName"):
        errors += check_name(spec["serviceAccountName"], path=f"{path}.serviceAccountName")
    if spec.get("priorityClassName"):
        errors += check_name(spec["priorityClassName"], path=f"{path}.priorityClassName")
    errors += check_labels(spec.get("nodeSelector", {}), path=f"{path}.nodeSelector")
    errors += _check_tolerations(spec.get("tolerations", []), path=f"{path}.tolerations")
    errors += _check_seccomp(spec.get("securityContext", {}), path=f"{path}.securityContext")
    return errors


def _check_volumes(volumes: list[Json], *, path: str) -> tuple[set[str], list[FieldError]]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        where = f"{path}[{index}]"
        sources = [key for key in volume if key != "name"]
        if not sources:
            errors.append(required(where, "must specify a volume type"))
        elif len(sources) > 1:
            errors.append(
                FieldError(
                    "FieldValueForbidden", f"{where}.{sources[1]}", "Forbidden: may not specify more than 1 volume type"
                )
            )
        if "secret" in volume and not volume["secret"].get("secretName"):
            errors.append(required(f"{where}.secret.secretName"))
        if "configMap" in volume and not volume["configMap"].get("name"):
            errors.append(required(f"{where}.configMap.name"))
        name = volume.get("name", "")
        if not name:
            errors.append(required(f"{where}.name"))
        elif problems := check_name(name, path=f"{where}.name", rule=label_problems):
            errors += problems
        elif name in names:
            errors.append(duplicate(f"{where}.name", name))
        else:
            names.add(name)
    return names, errors


def _check_container(container: Json, *, path: str, volumes: set[str], names: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    name = container.get("name", "")
    if not name:
        errors.append(required(f"{path}.name"))
    else:
        errors += check_name(name, path=f"{path}.name", rule=label_problems)
        if name in names:
            errors.append(duplicate(f"{path}.name", name))
        names.add(name)
    if not container.get("image"):
        errors.append(required(f"{path}.image"))
    if container.get("terminationMessagePolicy") not in _MESSAGE_POLICIES:
        errors.append(
            not_supported(
                f"{path}.terminationMessagePolicy", container.get("terminationMessagePolicy"), _MESSAGE_POLICIES
            )
        )
    if container.get("imagePullPolicy") not in _PULL_POLICIES:
        errors.append(not_supported(f"{path}.imagePullPolicy", container.get("imagePullPolicy"), _PULL_POLICIES))
    errors += _check_environment(container.get("env", []), path=f"{path}.env")
    errors += _check_mounts(container.get("volumeMounts", []), path=f"{path}.volumeMounts", volumes=volumes)
    errors += _check_resources(container.get("resources", {}), path=f"{path}.resources")
    errors += _check_security(container.get("securityContext", {}), path=f"{path}.securityContext")
    return errors


def _check_environment(variables: list[Json], *, path: str) -> list[FieldError]:
    """The same name twice is allowed: the last one wins."""
    errors: list[FieldError] = []
    for index, variable in enumerate(variables):
        where = f"{path}[{index}]"
        name = variable.get("name", "")
        if not name:
            errors.append(required(f"{where}.name"))
        elif not _ENVIRONMENT_NAME.fullmatch(name):
            errors.append(
                invalid_value(
                    f"{where}.name",
                    name,
                    "a valid environment variable name must consist only of printable ASCII characters other than '='",
                )
            )
        source = variable.get("valueFrom")
        if source is None:
            continue
        if variable.get("value"):
            errors.append(invalid_value(f"{where}.valueFrom", "", "may not be specified when `value` is not empty"))
        if len(source) != 1:
            detail = (
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
                if not source
                else "may not have more than one field specified at a time"
            )
            errors.append(invalid_value(f"{where}.valueFrom", "", detail))
        for kind in ("secretKeyRef", "configMapKeyRef"):
            if kind in source and not source[kind].get("key"):
                errors.append(required(f"{where}.valueFrom.{kind}.key"))
    return errors


def _check_mounts(mounts: list[Json], *, path: str, volumes: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    places: set[str] = set()
    for index, mount in enumerate(mounts):
        where = f"{path}[{index}]"
        name, place = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            errors.append(required(f"{where}.name"))
        if name not in volumes:
            errors.append(not_found_value(f"{where}.name", name))
        if not place:
            errors.append(required(f"{where}.mountPath"))
        if place in places:
            errors.append(invalid_value(f"{where}.mountPath", place, "must be unique"))
        places.add(place)
        sub_path = mount.get("subPath", "")
        if sub_path.startswith("/"):
            errors.append(invalid_value(f"{where}.subPath", sub_path, "must be a relative path"))
        elif ".." in sub_path.split("/"):
            errors.append(invalid_value(f"{where}.subPath", sub_path, "must not contain '..'"))
    return errors


def _check_resources(resources: Json, *, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    limits, requests = resources.get("limits", {}), resources.get("requests", {})
    for field, amounts in (("limits", limits), ("requests", requests)):
        for name, amount in amounts.items():
            where = f"{path}.{field}[{name}]"
            errors += [invalid_value(where, name, problem) for problem in qualified_name_problems(name)]
            if "/" not in name and name not in _STANDARD_RESOURCES and not name.startswith("hugepages-"):
                errors.append(invalid_value(where, name, "must be a standard resource type or fully qualified"))
                errors.append(invalid_value(where, name, "must be a standard resource for containers"))
            value = quantity(amount)
            if value is not None and value < 0:
                errors.append(invalid_value(where, str(amount), "must be greater than or equal to 0"))
    for name, amount in requests.items():
        limit = limits.get(name)
        wanted, allowed = quantity(amount), quantity(limit) if limit is not None else None
        if wanted is not None and allowed is not None and wanted > allowed:
            errors.append(
                invalid_value(f"{path}.requests", str(amount), f"must be less than or equal to {name} limit of {limit}")
            )
    return errors


def _check_security(context: Json, *, path: str) -> list[FieldError]:
    errors = _check_seccomp(context, path=path)
    if context.get("allowPrivilegeEscalation") is False and context.get("privileged"):
        errors.append(
            invalid_value(path, context, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
        )
    for field in ("runAsUser", "runAsGroup"):
        value = context.get(field)
        if value is not None and not 0 <= value <= 2**31 - 1:
            errors.append(invalid_value(f"{path}.{field}", value, "must be between 0 and 2147483647, inclusive"))
    return errors


def _check_seccomp(context: Json, *, path: str) -> list[FieldError]:
    profile = context.get("seccompProfile")
    if profile is None:
        return []
    where = f"{path}.seccompProfile.type"
    if not profile.get("type"):
        return [required(where, "type is required when seccompProfile is set")]
    return [] if profile["type"] in _SECCOMP else [not_supported(where, profile["type"], _SECCOMP)]


def _check_tolerations(tolerations: list[Json], *, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, toleration in enumerate(tolerations):
        where = f"{path}[{index}]"
        key, operator = toleration.get("key", ""), toleration.get("operator", "")
        if key:
            errors += check_labels({key: ""}, path=f"{where}.key")
        elif operator != "Exists":
            errors.append(
                invalid_value(
                    f"{where}.operator",
                    operator,
                    'operator must be Exists when `key` is empty, which means "match all values and all keys"',
                )
            )
        if operator not in ("", "Equal", "Exists"):
            errors.append(not_supported(f"{where}.operator", operator, ["Equal", "Exists"]))
        if operator == "Exists" and toleration.get("value"):
            errors.append(
                invalid_value(f"{where}.operator", toleration, "value must be empty when `operator` is 'Exists'")
            )
        effect = toleration.get("effect")
        if effect and effect not in _EFFECTS:
            errors.append(not_supported(f"{where}.effect", effect, _EFFECTS))
    return errors
