"""Which fields exist, and of what type: the published Kubernetes schemas, compiled once at start.

A real server decodes into Go structs: unknown fields are dropped, warned of or refused (`fieldValidation`), a value
of the wrong type is a 400, and a strategic merge patch knows each list's merge key. All three are answered from here.
"""

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kubernetes_validate

from deploy.local.kubernetes_simulator.answers import bad_request

_VERSION = "v1.36.0-local"
_QUANTITY = re.compile(r"^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$")
_GO_TYPES = {
    "integer": {"int32": "int32", "int64": "int64", "": "int64"},
    "string": {"": "string", "byte": "[]uint8", "date-time": "v1.Time"},
    "boolean": {"": "bool"},
    "number": {"": "float64", "double": "float64"},
}


class WrongType(Exception):
    """A value that the Go struct's field cannot take; the text is what encoding/json would say."""


@dataclass(slots=True)
class Node:
    """One place in an object: `fields` for a struct, `items` for a list or map, neither for a plain value."""

    go_name: str = ""
    fields: dict[str, "Node"] | None = None
    items: "Node | None" = None
    is_list: bool = False
    json_type: str = ""
    format: str = ""
    quantity: bool = False
    merge_key: str = ""
    merges: bool = False
    opaque: bool = field(default=False)


@functools.cache
def _definitions() -> dict[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / _VERSION
    definitions: dict[str, Any] = json.loads((folder / "_definitions.json").read_text())["$defs"]
    return definitions


@functools.cache
def definition(name: str) -> Node:
    """The compiled schema of a definition such as `io.k8s.api.batch.v1.Job`."""
    node = Node(go_name=name.rsplit(".", 1)[-1])
    _fill(node, _definitions()[name], name)
    return node


def _json_type(schema: dict[str, Any]) -> str:
    types = schema.get("type", "")
    return next(kind for kind in types if kind != "null") if isinstance(types, list) else str(types)


def _node(schema: dict[str, Any]) -> Node:
    reference = schema.get("$ref")
    if reference:
        shared = definition(reference.rsplit("/", 1)[-1])
        node = Node(
            go_name=shared.go_name,
            fields=shared.fields,
            items=shared.items,
            is_list=shared.is_list,
            json_type=shared.json_type,
            format=shared.format,
            quantity=shared.quantity,
            opaque=shared.opaque,
        )
    else:
        node = Node()
        _fill(node, schema, "")
    node.merge_key = schema.get("x-kubernetes-patch-merge-key", "")
    node.merges = "merge" in schema.get("x-kubernetes-patch-strategy", "")
    return node


def _fill(node: Node, schema: dict[str, Any], name: str) -> None:
    node.json_type = _json_type(schema)
    node.format = schema.get("format", "")
    node.quantity = name.endswith(".Quantity")
    if name.endswith("JSONSchemaProps") or "oneOf" in schema:
        node.opaque = True
    elif "properties" in schema:
        node.fields = {key: _node(value) for key, value in schema["properties"].items()}
    elif node.json_type == "array":
        node.is_list = True
        node.items = _node(schema["items"])
    elif isinstance(schema.get("additionalProperties"), dict):
        node.items = _node(schema["additionalProperties"])
    elif node.json_type == "object":
        node.opaque = True


def _go_value(value: object) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    names: dict[type, str] = {str: "string", list: "array", dict: "object"}
    return names.get(type(value), "value")


def _refuse(value: object, *, owner: str, path: str, wanted: str) -> WrongType:
    return WrongType(f"json: cannot unmarshal {_go_value(value)} into Go struct field {owner}.{path} of type {wanted}")


def prune(value: Any, *, node: Node, path: str, owner: str, unknown: list[str]) -> None:
    """Drops what the schema does not know from `value`, in place, and names it in `unknown`; nulls are dropped too.

    Raises `WrongType` where a value cannot be decoded.
    """
    fields = node.fields
    if fields is not None:
        if not isinstance(value, dict):
            raise _refuse(value, owner=owner, path=path, wanted=f"v1.{node.go_name}")
        prefix = f"{path}." if path else ""
        dropped: list[str] = []
        for key, child in value.items():
            child_node = fields.get(key)
            if child_node is None:
                unknown.append(prefix + key)
                dropped.append(key)
            elif child is None:
                dropped.append(key)
            elif child_node.fields is not None or child_node.items is not None:
                prune(child, node=child_node, path=prefix + key, owner=node.go_name, unknown=unknown)
            else:
                _check_plain(child, node=child_node, path=prefix + key, owner=node.go_name)
        for key in dropped:
            del value[key]
    elif node.is_list and node.items is not None:
        if not isinstance(value, list):
            raise _refuse(value, owner=owner, path=path, wanted=f"[]{node.items.go_name or 'string'}")
        for index, child in enumerate(value):
            if child is None:
                value[index] = _zero(node.items)
            else:
                _prune_item(child, node=node.items, path=f"{path}[{index}]", owner=owner, unknown=unknown)
    elif node.items is not None:
        if not isinstance(value, dict):
            raise _refuse(value, owner=owner, path=path, wanted="map[string]string")
        for key, child in value.items():
            if child is None:
                value[key] = _zero(node.items)
            else:
                _prune_item(child, node=node.items, path=path, owner=owner, unknown=unknown)
    else:
        _check_plain(value, node=node, path=path, owner=owner)


def _zero(node: Node) -> Any:
    """What Go makes of a null among the values of a list or a map."""
    if node.is_list:
        return []
    if node.fields is not None or node.items is not None or node.opaque:
        return {}
    return {"integer": 0, "number": 0, "boolean": False}.get(node.json_type, "")


def _prune_item(child: Any, *, node: Node, path: str, owner: str, unknown: list[str]) -> None:
    if node.fields is not None or node.items is not None:
        prune(child, node=node, path=path, owner=owner, unknown=unknown)
    else:
        _check_plain(child, node=node, path=path, owner=owner)


def _check_plain(value: object, *, node: Node, path: str, owner: str) -> None:
    wanted = node.json_type
    if node.quantity:
        # Quantity's own decoder words this one (apimachinery api/resource/quantity.go).
        if not (isinstance(value, int | float) or (isinstance(value, str) and _QUANTITY.match(value))):
            raise WrongType(f"quantities must match the regular expression '{_QUANTITY.pattern}'")
        return
    if node.opaque or not wanted:
        return
    fits = (
        (wanted == "string" and isinstance(value, str))
        or (wanted == "boolean" and isinstance(value, bool))
        or (wanted == "integer" and isinstance(value, int) and not isinstance(value, bool))
        or (wanted == "number" and isinstance(value, int | float) and not isinstance(value, bool))
    )
    if not fits:
        kinds = _GO_TYPES.get(wanted, {"": wanted})
        raise _refuse(value, owner=owner, path=path, wanted=kinds.get(node.format, kinds[""]))


def _duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    for key, value in pairs:
        if key in seen:
            raise WrongType(f'duplicate field "{key}"')
        seen[key] = value
    return seen


def decode(*, obj: dict[str, Any], raw: bytes, definition_name: str, kind: str, version: str, mode: str) -> list[str]:
    """Prunes `obj` as the decoder would and returns the warnings of `fieldValidation=Warn`.

    `mode` is the fieldValidation parameter; `Strict` turns unknown and duplicate fields into a 400.
    """
    unknown: list[str] = []
    refusal = f'{kind} in version "{version}" cannot be handled as a {kind}: '
    try:
        prune(obj, node=definition(definition_name), path="", owner=kind, unknown=unknown)
        if mode == "Strict" and raw.startswith(b"{"):
            try:
                json.loads(raw, object_pairs_hook=_duplicates)
            except WrongType as found:
                raise bad_request(f"{refusal}strict decoding error: {found}") from None
    except WrongType as found:
        raise bad_request(f"{refusal}{found}") from None
    problems = [f'unknown field "{name}"' for name in unknown]
    if problems and mode == "Strict":
        raise bad_request(f"{refusal}strict decoding error: {', '.join(problems)}")
    return problems if mode == "Warn" else []
