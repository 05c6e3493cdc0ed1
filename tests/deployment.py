"""The objects that `kubectl apply -k` would send, and the schemas of the custom ones among them."""

import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

CHECKOUT = Path(__file__).resolve().parent.parent
KUBERNETES = CHECKOUT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))

Object = dict[str, Any]


@cache
def render(overlay: str) -> list[Object]:
    """All objects of an overlay, in the order in which they would be applied."""
    kubectl = Path(sys.executable).parent / "kubectl"
    done = subprocess.run([kubectl, "kustomize", KUBERNETES / "overlays" / overlay], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def told(obj: Object) -> str:
    """An object's kind, namespace and name, as failures name it."""
    metadata = obj["metadata"]
    return f"{obj['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def of_kind(overlay: str, kind: str) -> dict[str, Object]:
    """The objects of a kind by name; `kind` may carry a group: `Service.serving.knative.dev`."""
    kind, _, group = kind.partition(".")
    return {
        obj["metadata"]["name"]: obj
        for obj in render(overlay)
        if obj["kind"] == kind and (not group or obj["apiVersion"].startswith(f"{group}/"))
    }


def only(overlay: str, kind: str) -> Object:
    """The one object of a kind."""
    (obj,) = of_kind(overlay, kind).values()
    return obj


def config(overlay: str, name: str) -> dict[str, str]:
    """The data of a generated ConfigMap, whose name ends in a hash of it."""
    (data,) = (obj["data"] for found, obj in of_kind(overlay, "ConfigMap").items() if found.rpartition("-")[0] == name)
    return dict(data)


def pod_templates(overlay: str) -> Iterator[tuple[Object, Object]]:
    """Each object that makes pods, with its template."""
    for obj in render(overlay):
        template = obj.get("spec", {}).get("template")
        if isinstance(template, dict) and "containers" in template.get("spec", {}):
            yield obj, template


def containers(pod: Object) -> list[Object]:
    return [*pod.get("initContainers", []), *pod["containers"]]


@cache
def custom_schemas(folder: Path) -> dict[tuple[str, str], tuple[str, Object]]:
    """Scope and JSON schema of every version of every definition in a folder, by apiVersion and kind."""
    found: dict[tuple[str, str], tuple[str, Object]] = {}
    for path in sorted(folder.glob("*.yaml")):
        spec = yaml.safe_load(path.read_text())["spec"]
        for version in spec["versions"]:
            if version["served"]:
                key = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
                found[key] = (spec["scope"], _strict(version["schema"]["openAPIV3Schema"], top=True))
    return found


def _strict(schema: Object, *, top: bool = False) -> Object:
    """A structural schema as JSON Schema that refuses unknown fields, as the API server does with strict validation."""
    out = {
        key: value
        for key, value in schema.items()
        if key in ("type", "enum", "required", "pattern", "minimum", "maximum", "minLength", "maxLength")
        or key in ("minItems", "maxItems", "minProperties", "maxProperties", "multipleOf")
    }
    if schema.get("x-kubernetes-int-or-string"):
        out["type"] = ["integer", "string"]
    if schema.get("nullable") and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    if "items" in schema:
        out["items"] = _strict(schema["items"])
    if isinstance(schema.get("additionalProperties"), dict):
        out["additionalProperties"] = _strict(schema["additionalProperties"])
    if "properties" in schema:
        out["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if top:
            # Every object has these; some definitions leave them out.
            out["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {"type": "object"}}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            out.setdefault("additionalProperties", False)
    return out
