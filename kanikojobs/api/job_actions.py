"""What can be done with a Kaniko Job over REST: retry, cancel, read its log."""

from http import HTTPStatus
from typing import Any

from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import audit, job_logs, retry
from kanikojobs.api.serializers import KanikoJobSerializer
from kanikojobs.errors import CreationError
from kanikojobs.models import KanikoJob, OperatorAction
from kanikojobs.states import UNFINISHED


class MayRetry(BasePermission):
    """Needs the permission `kanikojobs.retry_kanikojob`."""

    message = "Ask for the permission to retry Kaniko Jobs, or send a token that has it."
    permission = "kanikojobs.retry_kanikojob"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user and request.user.is_active and request.user.has_perm(self.permission))


class MayCancel(MayRetry):
    """Needs the permission `kanikojobs.cancel_kanikojob`."""

    message = "Ask for the permission to cancel Kaniko Jobs, or send a token that has it."
    permission = "kanikojobs.cancel_kanikojob"


class CancelSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=audit.MOST_REASON_CHARACTERS, help_text="Why; it is kept.")


class RetrySerializer(CancelSerializer):
    overrides = serializers.DictField(
        required=False,
        help_text=f"Parameters to change, for example {{'memory': '8Gi'}}: {', '.join(retry.OVERRIDABLE)}.",
    )


class ActSerializer(serializers.Serializer[retry.Act]):
    done = serializers.BooleanField()
    message = serializers.CharField()
    kaniko_job = KanikoJobSerializer(help_text="After a retry the new one, else the one that was meant.")


class RetryView(APIView):
    """Queue the next Kaniko Job for the event of this one. 409 with the reason while one is unfinished."""

    permission_classes = (MayRetry,)

    @extend_schema(request=RetrySerializer, responses={200: ActSerializer, 409: ActSerializer}, tags=["jobs"])
    def post(self, request: Request, pk: int) -> Response:
        given = RetrySerializer(data=request.data)
        given.is_valid(raise_exception=True)
        try:
            act = retry.retry(
                pk,
                author=audit.by_user(request.user, via=OperatorAction.Via.API),
                reason=given.validated_data["reason"],
                overrides=given.validated_data.get("overrides"),
            )
        except KanikoJob.DoesNotExist:
            raise Http404 from None
        except retry.OverridesInvalid as problem:
            raise serializers.ValidationError({"overrides": [str(problem)]}) from None
        return _answer(act)


class CancelView(APIView):
    """Cancel a Kaniko Job; one that may be in the cluster is cancelled once its Job and pods are gone. 409 if it is
    finished, or being cancelled already."""

    permission_classes = (MayCancel,)

    @extend_schema(request=CancelSerializer, responses={200: ActSerializer, 409: ActSerializer}, tags=["jobs"])
    def post(self, request: Request, pk: int) -> Response:
        given = CancelSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        author = audit.by_user(request.user, via=OperatorAction.Via.API)
        try:
            act = retry.cancel(pk, author=author, reason=given.validated_data["reason"])
        except KanikoJob.DoesNotExist:
            raise Http404 from None
        return _answer(act)


def _answer(act: retry.Act) -> Response:
    return Response(ActSerializer(act).data, status=HTTPStatus.OK if act.done else HTTPStatus.CONFLICT)


_TEXT = "text/plain; charset=utf-8"


class LogsView(APIView):
    """The log of a Kaniko Job, redacted: from its pod while it runs, afterwards what was kept of it.

    With `follow=1` the lines come as they are written, until the container ends; 204 says that there are none yet.
    """

    queryset = KanikoJob.objects.all()

    @extend_schema(
        parameters=[
            OpenApiParameter("follow", OpenApiTypes.BOOL, description="Wait for further lines."),
            OpenApiParameter("container", OpenApiTypes.STR, description="`kaniko` if not said."),
        ],
        responses={(200, "text/plain"): OpenApiTypes.STR, 204: None},
        tags=["jobs"],
    )
    def get(self, request: Request, pk: int) -> HttpResponseBase:
        job = KanikoJob.objects.filter(pk=pk).first()
        place = job_logs.chosen(job, container=request.query_params.get("container", "")) if job else None
        follow = request.method != "HEAD" and request.query_params.get("follow", "").lower() in ("1", "true", "yes")
        if place is None and follow and job is not None and job.state in UNFINISHED:
            # Whoever waits for lines, as the page of a running build does, has done nothing wrong: ask again.
            return HttpResponse(status=HTTPStatus.NO_CONTENT, headers={"Retry-After": "5", "Cache-Control": "no-store"})
        if place is None:
            raise Http404("There is no such Kaniko Job, or it has no log yet.")
        response: HttpResponse | StreamingHttpResponse
        try:
            if follow and place.kept is None:
                # Closed with the response, which is whoever serves it that does that.
                response = StreamingHttpResponse(job_logs.Following(place), content_type=_TEXT)
                # A proxy that gathers the answer before it passes it on would make a live log none.
                response["X-Accel-Buffering"] = "no"
            else:
                response = HttpResponse("".join(job_logs.lines(place)), content_type=_TEXT)
        except job_logs.TooManyFollowers:
            return _refused(HTTPStatus.SERVICE_UNAVAILABLE, "As many logs as can be are being followed.")
        except CreationError as error:
            return _refused(HTTPStatus.BAD_GATEWAY, f"The log cannot be read: {error.reason}.")
        response["Cache-Control"] = "no-store"
        response["X-Kaniko-Pod"], response["X-Kaniko-Container"] = place.pod, place.container
        return response


def _refused(status: HTTPStatus, text: str) -> HttpResponse:
    response = HttpResponse(f"{text}\n", content_type=_TEXT, status=status)
    response["Retry-After"] = "10"
    return response
