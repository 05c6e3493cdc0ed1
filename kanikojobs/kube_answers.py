"""What an answer of the Kubernetes API means: pure, from status, headers and body to an error of the domain.

The server's own reason, message and status are kept as they are. What tells one refusal from another are the words of
its source, because several of its answers have the same status and reason.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from kanikojobs.errors import ClusterUnavailable, CreationError, PermanentError, TransientError
from kanikojobs.storable import printable

# HTTP statuses that say "not now": the same request may be taken later.
_TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})

# What Kubernetes calls an answer that names no reason of its own (apimachinery, pkg/apis/meta/v1, types.go).
_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Gone",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}

# An admission webhook may deny with any status, 401 and 409 among them (apiserver, admission/plugin/webhook/errors),
# and so may a ValidatingAdmissionPolicy: what it says is about the event, not about our credentials or the name.
_DENIED = re.compile(
    r"^admission webhook .* denied the request|ValidatingAdmissionPolicy '.*' denied request", re.DOTALL
)
# Until the controller has counted a new quota, everything that it covers is forbidden (apiserver,
# admission/plugin/resourcequota).
_UNCOUNTED_QUOTA = "status unknown for quota"
# Admission whose caches are not filled yet (apiserver, admission/plugin/namespace/lifecycle and others).
_STARTING = "not yet ready to handle request"
# The authorizer's words (apiserver, endpoints/handlers/responsewriters, forbiddenMessage).
_NOT_AUTHORIZED = re.compile(r"\bcannot (?:create resource|get path) ")

# What a server in Go says to plain HTTP on the port of its HTTPS (net/http).
_NOT_TLS = "Client sent an HTTP request to an HTTPS server."

# Who brings no credentials is not refused with 401 but has this name (apiserver, authentication/request/anonymous).
_NOBODY = 'User "system:anonymous" cannot '

_MOST_OF_A_MESSAGE = 8192  # characters
_LONGEST_RETRY_AFTER = 600.0  # seconds


class AlreadyExists(CreationError):
    """A Job of that name is there: perhaps ours, from a create whose answer was lost."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of the API server; `body` is the JSON object in it, or what stands in for one."""

    status: int
    body: dict[str, Any]
    retry_after: float | None

    @property
    def reason(self) -> str:
        return text_of(self.body.get("reason") or _REASONS.get(self.status, f"HTTP{self.status}"), most=64)

    @property
    def message(self) -> str:
        return text_of(self.body.get("message") or "")

    @property
    def details(self) -> dict[str, Any]:
        details = self.body.get("details")
        return details if isinstance(details, dict) else {}

    @property
    def is_of_kubernetes(self) -> bool:
        """Whether an API server said this, and not something on the way to it."""
        return "kind" in self.body and "apiVersion" in self.body


def read_answer(status: int, *, headers: Mapping[str, str], data: bytes) -> Answer:
    """The answer with this body, whoever gave it: an API server, or something on the way to it."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        # The API server's own shedding of load is plain text; anything else is a proxy, or a server in trouble.
        body = {"message": data[:_MOST_OF_A_MESSAGE].decode("utf-8", "backslashreplace")}
        if status < 300:
            body["reason"] = "UnreadableAnswer"
        elif status < 400:
            body = {"reason": "Redirected", "message": f"Sent on to {headers.get('Location', 'nowhere')}."}
    answer = Answer(status, body, None)
    seconds = headers.get("Retry-After") or answer.details.get("retryAfterSeconds")
    return answer if seconds is None else Answer(status, body, retry_after(str(seconds)))


def retry_after(text: str) -> float | None:
    """The seconds that a Retry-After asks for, as a number or as a date (RFC 9110, section 10.2.3), up to 600."""
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        seconds = float(text)
    else:
        try:
            at = parsedate_to_datetime(text)
            seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        except (ValueError, OverflowError):
            return None
    return min(max(0.0, seconds), _LONGEST_RETRY_AFTER)


def error_of(answer: Answer) -> CreationError:
    """What an answer other than success means."""
    reason, message, status = answer.reason, answer.message, answer.status
    if _DENIED.search(message) and status not in _TRY_AGAIN:
        return PermanentError(reason="AdmissionDenied", message=message, http_status=status)
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(reason=reason, message=message, http_status=status)
    unknown = status == 401 or (status == 403 and _NOBODY in message)
    astray = (status == 404 and not answer.is_of_kubernetes) or (status == 400 and _NOT_TLS in message)
    if unknown or astray:
        # Our credentials, or not the place where the API is: not this event.
        return ClusterUnavailable(reason=reason, message=message, http_status=status)
    if status == 403 and _STARTING in message:
        return ClusterUnavailable(reason="NotReady", message=message, http_status=status)
    if status == 403 and _UNCOUNTED_QUOTA in message:
        return TransientError(reason="QuotaUncounted", message=message, http_status=status)
    if status == 409 or status < 400 or status in _TRY_AGAIN or status >= 500:
        return TransientError(reason=reason, message=message, http_status=status, retry_after=answer.retry_after)
    return PermanentError(reason=_refusal(answer), message=message, http_status=status)


def is_not_authorized(*, status: int | None, message: str) -> bool:
    """Whether the API server's authorizer refused this, and nothing that came after it."""
    return status == 403 and _NOT_AUTHORIZED.search(message) is not None


def _refusal(answer: Answer) -> str:
    """The reason of a refusal, more exactly than the server's own where its other words tell."""
    if answer.status == 403 and "exceeded quota" in answer.message:
        return "QuotaExceeded"
    if answer.status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(answer)):
        return "NamespaceTerminating"
    if answer.status == 404 and answer.details.get("kind") == "namespaces":
        return "NamespaceNotFound"
    return answer.reason


def _causes(answer: Answer) -> list[dict[str, Any]]:
    causes = answer.details.get("causes")
    return [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def text_of(text: object, *, most: int = _MOST_OF_A_MESSAGE) -> str:
    """Text of a server as PostgreSQL can hold it, and not without end."""
    return printable(str(text))[:most]
