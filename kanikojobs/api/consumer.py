"""`/async-jobs/consumer`: whether consuming is paused, and pausing and resuming it, by whom and why."""

from collections.abc import Callable
from http import HTTPStatus

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import pausing
from kanikojobs.api.acting import ReasonSerializer, author


class MayPause(BasePermission):
    """Needs the permission `kanikojobs.pause_consumer`."""

    message = "Ask for the permission to pause and resume consuming, or send a token that has it."

    def has_permission(self, request: Request, view: APIView) -> bool:
        return bool(request.user and request.user.is_active and request.user.has_perm("kanikojobs.pause_consumer"))


class PauseSerializer(serializers.Serializer[pausing.Pause]):
    paused = serializers.BooleanField()
    by = serializers.CharField(help_text="Who paused or resumed last; empty if nobody ever did.")
    reason = serializers.CharField()
    at = serializers.DateTimeField(allow_null=True)


class ConsumerView(APIView):
    """Whether consuming is paused, and who said so last. For those who may view Kaniko Jobs."""

    @extend_schema(responses=PauseSerializer, tags=["consumer"])
    def get(self, request: Request) -> Response:
        return Response(PauseSerializer(pausing.current()).data)


class SwitchView(APIView):
    """What pausing and resuming share: a reason in, the state out; 200 also if it was so already."""

    permission_classes = (MayPause,)
    switch: Callable[..., bool]

    @extend_schema(request=ReasonSerializer, responses=PauseSerializer, tags=["consumer"])
    def post(self, request: Request) -> Response:
        given = ReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        self.switch(author=author(request), reason=given.validated_data["reason"])
        return Response(PauseSerializer(pausing.current()).data, status=HTTPStatus.OK)


class PauseView(SwitchView):
    """Stop taking messages from RabbitMQ, within about a second; they wait there."""

    switch = staticmethod(pausing.pause)


class ResumeView(SwitchView):
    """Take messages from RabbitMQ again."""

    switch = staticmethod(pausing.resume)
