"""The CloudEvents sink: `POST /` and `POST /events`, for a Knative Trigger or any HTTP caller.

Same intake as the queue's, and the answer comes after the commit. To a request with `Prefer: reply`, which is how
Knative's broker asks, the answer is itself a CloudEvent: a 2xx with a body that is none would count as a failed
delivery. Statuses are chosen by what Knative retries: 404, 408, 409, 429 and 5xx.
"""

import json
from http import HTTPStatus
from secrets import compare_digest
from typing import Any
from uuid import uuid4

import structlog
from cloudevents.core.bindings.http import to_binary_event
from cloudevents.core.v1.event import CloudEvent
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import RequestDataTooBig
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from kanikojobs import cloudevent, flows, intake, undelivered
from kanikojobs.errors import Fault, InvalidEvent
from kanikojobs.messages import IntakeResult, Message, Outcome
from kanikojobs.models import JobStartEvent

log = structlog.get_logger(__name__)

QUEUED = {"status": "queued"}
KEPT = {"status": "kept"}  # as a dead letter
IGNORED = {"status": "ignored"}  # to an event of another type or from another source
DIRECT = JobStartEvent.Origin.DIRECT


@csrf_exempt  # As `receive`, which checks the caller's token.
@login_not_required
def front_door(request: HttpRequest) -> HttpResponse:
    """`/`: events are posted to it; a person who opens it in a browser wants the admin."""
    return receive(request) if request.method == "POST" else redirect("admin:index")


@csrf_exempt  # Callers are programs with a bearer token, not browsers with a session.
@login_not_required  # The token below is checked instead.
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """Take a CloudEvent, or a batch of them."""
    return _receive(request, from_broker=undelivered.is_from_a_broker(request))


@csrf_exempt
@login_not_required
@require_POST
def receive_from_broker(request: HttpRequest) -> HttpResponse:
    """The same for a Knative Trigger: what is refused here is kept."""
    return _receive(request, from_broker=True)


@csrf_exempt
@login_not_required
@require_POST
def receive_undelivered(request: HttpRequest) -> HttpResponse:
    """The dead-letter sink of a Knative Trigger: an event that the broker has given up becomes a dead letter."""
    if not authorized(request):
        return _unauthorized()
    try:
        undelivered.keep(message_of(request))
    except RequestDataTooBig:
        return _too_big()
    except (OperationalError, InterfaceError) as error:
        return _without_database(error)
    # No body for a broker that asks for events: another 2xx body is none.
    return HttpResponse(status=202) if "reply" in request.headers.get("Prefer", "") else JsonResponse(KEPT, status=202)


def _receive(request: HttpRequest, *, from_broker: bool) -> HttpResponse:
    rejecting = settings.KANIKOJOBS_DIRECT_EVENTS == "reject"
    if rejecting and not (from_broker and authorized(request)):
        return _gone()
    if not authorized(request):
        return _unauthorized()
    try:
        message = message_of(request)
        if rejecting:
            undelivered.keep(message, refused=True)
            return _gone()
        result = take(message)
    except RequestDataTooBig:
        return _too_big()
    except (OperationalError, InterfaceError) as error:
        return _without_database(error)
    return answer(request, result)


def _gone() -> HttpResponse:
    flows.note_refusal()
    return problem(
        HTTPStatus.GONE,
        f"Direct events are switched off. Publish to the RabbitMQ queue {settings.KANIKOJOBS_QUEUE}.",
    )


def _unauthorized() -> HttpResponse:
    response = problem(HTTPStatus.UNAUTHORIZED, "A bearer token is needed. Send Authorization: Bearer <token>.")
    response["WWW-Authenticate"] = 'Bearer realm="kanikojobs"'
    return response


def _too_big() -> HttpResponse:
    return problem(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The body is larger than {settings.DATA_UPLOAD_MAX_MEMORY_SIZE} bytes and was not read.",
    )


def _without_database(error: Exception) -> HttpResponse:
    log.warning("sink-without-database", error=type(error).__name__)
    response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "The database is away; nothing was taken. Send it again.")
    response["Retry-After"] = "5"
    return response


def authorized(request: HttpRequest) -> bool:
    if not settings.KANIKOJOBS_SINK_TOKEN:
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    # compare_digest takes text in ASCII only, and bytes of any kind.
    return scheme.lower() == "bearer" and compare_digest(
        token.strip().encode(), settings.KANIKOJOBS_SINK_TOKEN.encode()
    )


def message_of(request: HttpRequest) -> Message:
    """The request as it came, but for its secrets. Raises `RequestDataTooBig`."""
    properties = {
        "method": request.method,
        "path": request.path,
        "remote_addr": request.META.get("REMOTE_ADDR", ""),
    }
    secret = {"authorization", "cookie", "proxy-authorization"}
    headers = {name: value for name, value in request.headers.items() if name.lower() not in secret}
    return Message(body_of(request), request.headers.get("Content-Type"), headers, properties)


def body_of(request: HttpRequest) -> bytes:
    """The body, also of a chunked request. Raises `RequestDataTooBig`.

    Django reads as many bytes as Content-Length says, and a chunked request says nothing: it would seem empty.
    """
    if request.META.get("CONTENT_LENGTH") or not request.META.get("wsgi.input_terminated"):
        return request.body
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    body: bytes = request.META["wsgi.input"].read(most + 1)
    if len(body) > most:
        raise RequestDataTooBig
    return body


def take(message: Message) -> IntakeResult:
    """Record the event of a request, or each event of a batch. Raises what `intake.record` raises."""
    if not cloudevent.is_batch(message.content_type):
        return intake.record([message], origin=DIRECT)
    try:
        bodies = cloudevent.split_batch(body=message.body, rules=intake.rules())
    except InvalidEvent as invalid:
        return intake.refuse(message, invalid, origin=DIRECT)
    return intake.record(
        [Message(body, "application/cloudevents+json", {}, message.properties) for body in bodies], origin=DIRECT
    )


def answer(request: HttpRequest, result: IntakeResult) -> HttpResponse:
    """202 when all was taken, 400 with the faults when something was not; what was good in a batch is taken."""
    if result.faults:
        if len(result.outcomes) == 1:
            return refusal(result.faults[0])
        return refusal(
            [Fault(f"[{index}]", str(fault)) for index, faults in result.faults.items() for fault in faults],
            accepted=result.recorded + result.duplicates,
        )
    ours = set(result.outcomes) != {Outcome.NOT_OURS}
    if "reply" not in request.headers.get("Prefer", ""):
        return JsonResponse(QUEUED if ours else IGNORED, status=HTTPStatus.ACCEPTED)
    if not ours:
        return HttpResponse(status=HTTPStatus.ACCEPTED)
    reply = to_binary_event(
        CloudEvent(
            {
                "id": str(uuid4()),
                "source": settings.KANIKOJOBS_EVENT_SOURCE,
                "type": "network.notifi.lambda.job.queued",
                "specversion": "1.0",
                "datacontenttype": "application/json",
            },
            QUEUED,
        )
    )
    return HttpResponse(reply.body, status=HTTPStatus.ACCEPTED, headers=dict(reply.headers))


def refusal(faults: tuple[Fault, ...] | list[Fault], *, accepted: int = 0) -> HttpResponse:
    """400 with every fault; the message itself is kept as a dead letter."""
    body: dict[str, Any] = {
        "status": "invalid",
        "faults": [{"path": fault.path, "problem": fault.problem} for fault in faults],
    }
    if accepted:
        body["accepted"] = accepted
    return JsonResponse(body, status=HTTPStatus.BAD_REQUEST)


def problem(status: HTTPStatus, detail: str) -> HttpResponse:
    """An answer in the form of RFC 9457."""
    body = json.dumps({"title": status.phrase, "status": int(status), "detail": detail})
    return HttpResponse(body, status=status, content_type="application/problem+json")
