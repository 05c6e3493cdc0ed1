"""The API server's refusals: each a `Status` object (meta/v1) with the code, reason and wording of a real server.

Clients tell errors apart by `code`, `reason` and `details.causes`, people by `message`, so all four are kept to
the letter of k8s.io/apimachinery `api/errors` and `util/validation/field`.
"""

import json
from dataclasses import dataclass
from typing import Any

from deploy.local.kubernetes_simulator.resources import Resource

Json = dict[str, Any]


class ApiError(Exception):
    """A request that is refused. `plain` answers are text, as the server's own filters write them."""

    def __init__(
        self,
        *,
        code: int,
        reason: str,
        message: str,
        details: Json | None = None,
        headers: dict[str, str] | None = None,
        plain: bool = False,
        list_metadata: Json | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}
        self.plain = plain
        self.list_metadata = list_metadata or {}

    def status(self) -> Json:
        """The `Status` object of this refusal."""
        body: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.list_metadata,
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details is not None:
            body["details"] = self.details
        body["code"] = self.code
        return body


@dataclass(frozen=True, slots=True)
class FieldError:
    """One thing wrong with an object, as `field.Error` of apimachinery words it."""

    kind: str
    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


def quoted(value: object) -> str:
    """A value as Go's `%q` or `%v` prints it in a field error."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | dict | list | bool) else str(value)


def invalid_value(path: str, value: object, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, f"Invalid value: {quoted(value)}: {detail}")


def invalid_without_value(path: str, detail: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, f"Invalid value: {detail}")


def required(path: str, detail: str = "") -> FieldError:
    return FieldError("FieldValueRequired", path, f"Required value: {detail}" if detail else "Required value")


def duplicate(path: str, value: object) -> FieldError:
    return FieldError("FieldValueDuplicate", path, f"Duplicate value: {quoted(value)}")


def not_found_value(path: str, value: object) -> FieldError:
    return FieldError("FieldValueNotFound", path, f"Not found: {quoted(value)}")


def not_supported(path: str, value: object, supported: list[str]) -> FieldError:
    choices = ", ".join(quoted(choice) for choice in supported)
    return FieldError(
        "FieldValueNotSupported", path, f"Unsupported value: {quoted(value)}: supported values: {choices}"
    )


def too_long(path: str, limit: int) -> FieldError:
    return FieldError("FieldValueTooLong", path, f"Too long: may not be more than {limit} bytes")


def forbidden_value(path: str, detail: str) -> FieldError:
    return FieldError("FieldValueForbidden", path, f"Forbidden: {detail}")


def _details(resource: Resource, name: str, *, kind: str = "") -> Json:
    details: Json = {}
    if name:
        details["name"] = name
    if resource.group:
        details["group"] = resource.group
    details["kind"] = kind or resource.plural
    return details


def bad_request(message: str) -> ApiError:
    return ApiError(code=400, reason="BadRequest", message=message)


def unauthorized() -> ApiError:
    return ApiError(code=401, reason="Unauthorized", message="Unauthorized")


def forbidden(*, resource: Resource, name: str, why: str, cause: Json | None = None) -> ApiError:
    """Admission and RBAC both answer so: `jobs.batch "x" is forbidden: why`."""
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    details = _details(resource, name)
    if cause:
        details["causes"] = [cause]
    return ApiError(code=403, reason="Forbidden", message=f"{subject} is forbidden: {why}", details=details)


def not_found(*, resource: Resource, name: str) -> ApiError:
    return ApiError(
        code=404,
        reason="NotFound",
        message=f'{resource.qualified} "{name}" not found',
        details=_details(resource, name),
    )


def no_such_path() -> ApiError:
    """The answer of the generic handler where no group serves the path at all."""
    return ApiError(code=404, reason="NotFound", message="404 page not found\n", plain=True)


def no_such_resource() -> ApiError:
    return ApiError(
        code=404,
        reason="NotFound",
        message="the server could not find the requested resource",
        details={},
    )


def method_not_allowed() -> ApiError:
    return ApiError(
        code=405,
        reason="MethodNotAllowed",
        message="the server does not allow this method on the requested resource",
        details={},
    )


def not_acceptable() -> ApiError:
    return ApiError(
        code=406,
        reason="NotAcceptable",
        message=(
            "only the following media types are accepted: application/json, application/yaml, "
            "application/vnd.kubernetes.protobuf, application/cbor"
        ),
    )


def already_exists(*, resource: Resource, name: str, terminating: bool) -> ApiError:
    """A terminating object still holds its name; the message then says so (registry/generic/registry/store.go)."""
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(
        code=409,
        reason="AlreadyExists",
        message=f"object is being deleted: {message}" if terminating else message,
        details=_details(resource, name),
    )


def conflict(*, resource: Resource, name: str, why: str, kind: str = "") -> ApiError:
    """Not the same as AlreadyExists: somebody else changed the object first, or a precondition does not hold."""
    shown = f"{kind}.{resource.group}" if kind and resource.group else kind or resource.qualified
    return ApiError(
        code=409,
        reason="Conflict",
        message=f'Operation cannot be fulfilled on {shown} "{name}": {why}',
        details=_details(resource, name, kind=kind),
    )


def expired(message: str, *, continue_token: str = "") -> ApiError:
    return ApiError(
        code=410,
        reason="Expired",
        message=message,
        list_metadata={"continue": continue_token} if continue_token else None,
    )


def request_too_large(limit: int) -> ApiError:
    return ApiError(
        code=413,
        reason="RequestEntityTooLarge",
        message=f"Request entity too large: limit is {limit}",
        headers={"Connection": "close"},
    )


def unsupported_media_type(accepted: tuple[str, ...]) -> ApiError:
    return ApiError(
        code=415,
        reason="UnsupportedMediaType",
        message=(
            "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
        ),
    )


def invalid(*, group: str, kind: str, name: str, errors: list[FieldError]) -> ApiError:
    """422 with one cause per field error. The message lists each distinct error once, as ToAggregate does."""
    texts = list(dict.fromkeys(str(error) for error in errors))
    told = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    qualified = f"{kind}.{group}" if group else kind
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [{"reason": error.kind, "message": error.text, "field": error.path} for error in errors]
    return ApiError(
        code=422,
        reason="Invalid",
        message=f'{qualified} "{name}" is invalid: {told}',
        details=details,
    )


def internal_error(why: str) -> ApiError:
    return ApiError(
        code=500,
        reason="InternalError",
        message=f"Internal error occurred: {why}",
        details={"causes": [{"message": why}]},
    )
