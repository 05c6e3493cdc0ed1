"""Reads HTTP requests as the API server does: verb, parameters, body, selectors."""

import json
from typing import Any

import yaml
from aiohttp import web

from deploy.local.kubernetes_simulator.answers import (
    ApiError,
    FieldError,
    bad_request,
    invalid,
    method_not_allowed,
    not_acceptable,
    not_supported,
    request_too_large,
    unsupported_media_type,
)
from deploy.local.kubernetes_simulator.api import Body
from deploy.local.kubernetes_simulator.patches import ACCEPTED
from deploy.local.kubernetes_simulator.resources import Target
from deploy.local.kubernetes_simulator.selectors import Selection, parse_fields, parse_labels

BODY_LIMIT = 3 * 1024 * 1024
_JSON = "application/json"
_YAML = ("application/yaml", "text/yaml", "application/x-yaml")
_ACCEPTED = (_JSON, "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor")
_VERBS = {
    ("GET", True): "get",
    ("GET", False): "list",
    ("POST", False): "create",
    ("PUT", True): "update",
    ("PATCH", True): "patch",
    ("DELETE", True): "delete",
    ("DELETE", False): "deletecollection",
}
_VALIDATIONS = ["Ignore", "Strict", "Warn"]
_OPTIONS = {"create": "CreateOptions", "update": "UpdateOptions", "patch": "PatchOptions"}


def is_true(text: str | None) -> bool:
    return (text or "").lower() in ("true", "1", "") if text is not None else False


def verb_of(request: web.BaseRequest, *, target: Target) -> str:
    """The request's verb as RBAC names it. Raises 405."""
    verb = _VERBS.get((request.method, bool(target.name)))
    if verb is None or (target.subresource == "log" and verb != "get"):
        raise method_not_allowed()
    if verb == "list" and is_true(request.query.get("watch")):
        return "watch"
    return verb


def wants_metadata_alone(accept: str) -> bool:
    """Whether the first kind of answer that is asked for and can be given is a PartialObjectMetadata, which a real
    server gives for every object (endpoints/handlers/negotiation). Raises 406 if nothing else is left."""
    for wanted in accept.split(","):
        media_type, *parameters = (part.strip() for part in wanted.split(";"))
        if media_type not in (_JSON, "application/*", "*/*"):
            continue
        given = dict(part.partition("=")[::2] for part in parameters)
        shape = tuple(given.get(name, "") for name in ("as", "g", "v"))
        if shape == ("PartialObjectMetadata", "meta.k8s.io", "v1"):
            return True
        if not shape[0]:
            return False
    raise not_acceptable()


async def read_body(request: web.BaseRequest, *, verb: str) -> Body:
    """The request's body, decoded. Raises 400, 413, 415 or 422."""
    declared = request.content_length
    if declared is not None and declared > BODY_LIMIT:
        raise request_too_large(BODY_LIMIT)
    raw = await request.read()
    if len(raw) > BODY_LIMIT:
        raise request_too_large(BODY_LIMIT)
    query = request.query
    body = Body(obj={}, raw=raw, media_type=request.content_type)
    if query:
        _read_options(body, query=query, verb=verb)
    if not raw:
        if verb in ("create", "update", "patch"):
            raise bad_request(
                "the object provided is unrecognized: couldn't get version/kind; json parse error: "
                "unexpected end of JSON input"
            )
        return body
    body.obj = _decode(raw, verb=verb, media_type=request.content_type if "Content-Type" in request.headers else _JSON)
    return body


def _read_options(body: Body, *, query: Any, verb: str) -> None:
    errors: list[FieldError] = []
    dry_run = query.getall("dryRun", [])
    if dry_run and dry_run != ["All"]:
        errors.append(not_supported("dryRun", ",".join(dry_run), ["All"]))
    body.dry_run = bool(dry_run)
    validation = query.get("fieldValidation", "") or "Warn"
    if validation not in _VALIDATIONS:
        errors.append(not_supported("fieldValidation", validation, ["", *_VALIDATIONS]))
    body.validation = validation
    if errors and verb in _OPTIONS:
        raise invalid(group="meta.k8s.io", kind=_OPTIONS[verb], name="", errors=errors)


def _decode(raw: bytes, *, verb: str, media_type: str) -> Any:
    if verb == "patch":
        if media_type not in (*ACCEPTED, "application/apply-patch+yaml"):
            raise unsupported_media_type((*ACCEPTED, "application/apply-patch+yaml", "application/apply-patch+cbor"))
        if media_type == "application/apply-patch+yaml":
            return yaml.safe_load(raw)
    elif media_type in _YAML:
        try:
            return yaml.safe_load(raw)
        except yaml.YAMLError as problem:
            raise bad_request(f"error converting YAML to JSON: {problem}") from None
    elif media_type != _JSON:
        raise unsupported_media_type(_ACCEPTED)
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as problem:
        raise bad_request(
            f"the object provided is unrecognized: couldn't get version/kind; json parse error: {problem}"
        ) from None


def selection_of(request: web.BaseRequest, *, target: Target) -> Selection:
    """The selection of a list, a watch or a deletion of a collection. Raises 400."""
    query = request.query
    return Selection(
        namespace=target.namespace,
        labels=parse_labels(query.get("labelSelector", "")),
        fields=parse_fields(query.get("fieldSelector", ""), resource=target.resource),
    )


def number_of(request: web.BaseRequest, name: str) -> int | None:
    """A whole number from the query, or None where it is not given. Raises 400."""
    text = request.query.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def version_of(request: web.BaseRequest, *, target: Target) -> int | None:
    """The resourceVersion to start a watch from; None where it is not given or 0 (any). Raises 422."""
    text = request.query.get("resourceVersion", "")
    if text in ("", "0"):
        return None
    if not text.isdigit():
        error: ApiError = invalid(
            group=target.resource.group,
            kind=target.resource.plural,
            name="",
            errors=[
                FieldError(
                    "FieldValueInvalid",
                    "resourceVersion",
                    f'Invalid value: "{text}": strconv.ParseUint: parsing "{text}": invalid syntax',
                )
            ],
        )
        raise error
    return int(text)
