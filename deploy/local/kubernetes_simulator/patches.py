"""The three patch formats that clients of the Python and Go libraries send: merge, strategic merge, JSON Patch."""

import copy
from typing import Any

from deploy.local.kubernetes_simulator.answers import ApiError, bad_request, unsupported_media_type
from deploy.local.kubernetes_simulator.schema import Node, definition

Json = dict[str, Any]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
ACCEPTED = (JSON_PATCH, MERGE_PATCH, STRATEGIC_PATCH)


def apply_patch(obj: Json, *, patch: Any, media_type: str, definition_name: str) -> Json:
    """The patched copy of an object. Raises 400, 415 or 422 as the server does. Server-side apply is not offered."""
    match media_type:
        case "application/json-patch+json":
            return _json_patch(copy.deepcopy(obj), operations=patch)
        case "application/merge-patch+json":
            if not isinstance(patch, dict):
                raise bad_request(
                    "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
                )
            merged = merge(obj, patch=patch)
        case "application/strategic-merge-patch+json":
            if not isinstance(patch, dict):
                raise bad_request(
                    "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"
                )
            merged = _strategic(obj, patch=patch, node=definition(definition_name))
        case _:
            raise unsupported_media_type((*ACCEPTED, "application/apply-patch+yaml", "application/apply-patch+cbor"))
    return dict(merged)


def merge(target: Any, *, patch: Any) -> Any:
    """RFC 7386: objects merge, null deletes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), patch=value)
    return result


def _strategic(target: Any, *, patch: Any, node: Node | None) -> Any:
    """As a merge patch, but lists whose schema names a merge key are merged by it (`$patch` directives as well)."""
    if isinstance(patch, list):
        return _strategic_list(target, patch=patch, node=node)
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            result.pop(key, None)
            continue
        child = node.fields.get(key) if node and node.fields else None
        result[key] = _strategic(result.get(key), patch=value, node=child)
    return result


def _strategic_list(target: Any, *, patch: list[Any], node: Node | None) -> list[Any]:
    present = list(target) if isinstance(target, list) else []
    if node is None or not node.merges:
        return patch
    if not node.merge_key:
        return [*present, *(value for value in patch if value not in present)]
    result = present
    for value in patch:
        if value.get("$patch") == "replace":
            return [other for other in patch if "$patch" not in other]
        key = value.get(node.merge_key)
        index = next((at for at, other in enumerate(result) if other.get(node.merge_key) == key), None)
        if value.get("$patch") == "delete":
            result = [other for other in result if other.get(node.merge_key) != key]
        elif index is None:
            result.append(value)
        else:
            result[index] = _strategic(result[index], patch=value, node=node.items)
    return result


def _pointer(path: str) -> list[str]:
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _json_patch(obj: Json, *, operations: Any) -> Json:
    """RFC 6902: add, replace, remove and test."""
    if not isinstance(operations, list):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    for operation in operations:
        try:
            *parents, last = _pointer(operation["path"])
            holder: Any = obj
            for part in parents:
                holder = holder[int(part)] if isinstance(holder, list) else holder[part]
            _apply_operation(holder, key=last, operation=operation)
        except (KeyError, IndexError, ValueError, TypeError) as problem:
            raise ApiError(
                code=422,
                reason="Invalid",
                message=f"the server rejected our request due to an error in our request: {problem}",
                details={},
            ) from None
    return obj


def _apply_operation(holder: Any, *, key: str, operation: Json) -> None:
    at: Any = key if isinstance(holder, dict) else len(holder) if key == "-" else int(key)
    match operation["op"]:
        case "add" if isinstance(holder, list):
            holder.insert(at, operation["value"])
        case "add":
            holder[at] = operation["value"]
        case "replace":
            _ = holder[at]
            holder[at] = operation["value"]
        case "remove":
            del holder[at]
        case "test":
            if holder[at] != operation["value"]:
                raise ValueError(f"testing path {operation['path']} failed")
        case other:
            raise ValueError(f"unexpected operation {other}")
