"""The discovery documents, as far as kubectl and client libraries ask for them."""

from deploy.local.kubernetes_simulator.resources import SERVED
from deploy.local.kubernetes_simulator.store import to_json

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]


def _version() -> dict[str, object]:
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.0",
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-04-22T00:00:00Z",
        "goVersion": "go1.26.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    }


def _resources(group: str, version: str) -> dict[str, object]:
    found: list[dict[str, object]] = []
    for resource in SERVED:
        if resource.group != group:
            continue
        entry = {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _VERBS,
        }
        found.append(entry)
        if resource.has_status:
            found.append({**entry, "name": f"{resource.plural}/status", "verbs": ["get", "patch", "update"]})
    if not group:
        found.append({"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]})
    api_version = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": found}


def _groups() -> dict[str, object]:
    groups = []
    for name in ("batch", "authorization.k8s.io"):
        version = {"groupVersion": f"{name}/v1", "version": "v1"}
        groups.append({"name": name, "versions": [version], "preferredVersion": version})
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


_DOCUMENTS = {
    "/version": to_json(_version()),
    "/api": to_json({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
    "/apis": to_json(_groups()),
    "/api/v1": to_json(_resources("", "v1")),
    "/apis/batch/v1": to_json(_resources("batch", "v1")),
    "/apis/authorization.k8s.io/v1": to_json(
        {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": "authorization.k8s.io/v1",
            "resources": [
                {
                    "name": "selfsubjectaccessreviews",
                    "singularName": "selfsubjectaccessreview",
                    "namespaced": False,
                    "kind": "SelfSubjectAccessReview",
                    "verbs": ["create"],
                }
            ],
        }
    ),
}


def discover(path: str) -> bytes | None:
    """The discovery document at a path, or None."""
    return _DOCUMENTS.get(path)
