"""`/async-jobs/replays`: replay runs; started, looked at, paused, resumed and cancelled."""

from collections.abc import Callable
from typing import Any

from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from kanikojobs.api.acting import FilterAndReasonSerializer, ReasonSerializer, author
from kanikojobs.api.permissions import MayAct
from kanikojobs.api.secrets import MaskedField
from kanikojobs.api.views import ListAndItem, NewestFirst
from kanikojobs.database_time import now
from kanikojobs.models import ReplayItem, ReplayRun
from kanikojobs.replay import runs
from kanikojobs.replay.runs import NothingToReplay, Pace, PaceError


class ReplayRunSerializer(serializers.ModelSerializer[ReplayRun]):
    failures = serializers.IntegerField(read_only=True, help_text="What failed again, at the door or as a Kaniko Job.")

    class Meta:
        model = ReplayRun
        fields: tuple[str, ...] = (
            "id",
            "state",
            "note",
            "selection",
            "cut_off",
            "rate",
            "batch",
            "probe",
            "max_failure_rate",
            "author_name",
            "rule",
            "reason",
            "started_at",
            "finished_at",
            "total",
            "handled",
            "queued",
            "duplicate",
            "already_built",
            "active",
            "invalid",
            "not_ours",
            "conflict",
            "gone",
            "withdrawn",
            "passed",
            "failed_again",
            "failures",
        )


class ReplayItemSerializer(serializers.ModelSerializer[ReplayItem]):
    detail = MaskedField(read_only=True, help_text="Why it would not do. Secrets are struck out unless permitted.")

    class Meta:
        model = ReplayItem
        fields: tuple[str, ...] = (
            "id",
            "letter",
            "position",
            "outcome",
            "result",
            "detail",
            "event",
            "kaniko_job",
            "at",
        )


class ItemsSerializer(serializers.Serializer[Any]):
    """Which items of a replay are meant."""

    outcome = serializers.ChoiceField(choices=ReplayItem.Outcome.choices, required=False)
    result = serializers.ChoiceField(
        choices=[(value, label) for value, label in ReplayItem.Result.choices if value], required=False
    )


class InOrder(NewestFirst):
    """By the place in the replay, which an index has in order; by id it would pass all items of later replays."""

    ordering = "position"


class StartSerializer(FilterAndReasonSerializer):
    cut_off = serializers.DateTimeField(required=False, help_text="Of the plan; what died later stays out.")
    limit = serializers.IntegerField(required=False, min_value=1, help_text="The first so many.")
    rate = serializers.FloatField(required=False, allow_null=True, help_text="Per second; null: as fast as it goes.")
    batch = serializers.IntegerField(required=False, default=100)
    probe = serializers.IntegerField(required=False, default=0, help_text="So many first, to see.")
    max_failure_rate = serializers.FloatField(
        required=False, allow_null=True, help_text="Percent that may fail again before it pauses by itself."
    )

    def validate(self, given: dict[str, Any]) -> dict[str, Any]:
        try:
            given["pace"] = Pace(
                rate=given.get("rate"),
                batch=given["batch"],
                probe=given["probe"],
                max_failure_rate=given.get("max_failure_rate"),
            )
        except PaceError as error:
            name, _, problem = str(error).partition(": ")
            raise serializers.ValidationError({name: [problem]}) from None
        return given


START = OpenApiExample(
    "412 of one cause, 20 per second after a probe of 5",
    value={
        "filter": {"groups": ["9f86d081884c7d65…"]},
        "cut_off": "2026-01-31T14:05:12.123456Z",
        "rate": 20,
        "probe": 5,
        "max_failure_rate": 10,
        "reason": "The registry is back.",
    },
    request_only=True,
)


class ReplayRunViewSet(ListAndItem):
    """Replays of dead letters: what was chosen, by whom and why, how far they are, and what came of each letter."""

    queryset = ReplayRun.objects.all()
    serializer_class = ReplayRunSerializer
    detail_serializer_class = ReplayRunSerializer
    permission_classes = (MayAct,)
    action_permissions = {
        "create": "replay_deadletter",
        "pause": "replay_deadletter",
        "resume": "replay_deadletter",
        "cancel": "replay_deadletter",
    }
    filterset_fields = {"state": ["exact", "in"], "author_name": ["exact"], "rule": ["exact"]}

    def get_queryset(self) -> Any:
        return ReplayRun.objects.all()

    @extend_schema(request=StartSerializer, responses={202: ReplayRunSerializer}, examples=[START], tags=["replays"])
    def create(self, request: Request) -> Response:
        """Start a replay of all open dead letters that match and wait in no other one. 409 if there is none."""
        given = StartSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        try:
            run = runs.start(
                selection=values["filter"],
                cut_off=values.get("cut_off") or now(),
                pace=values["pace"],
                author=author(request),
                reason=values["reason"],
                limit=values.get("limit"),
            )
        except NothingToReplay as nothing:
            return Response({"detail": str(nothing)}, status=409)
        return Response(ReplayRunSerializer(run).data, status=202)

    @extend_schema(responses=ReplayItemSerializer(many=True), parameters=[ItemsSerializer], tags=["replays"])
    @action(detail=True, methods=["get"], filterset_fields=None, pagination_class=InOrder)
    def items(self, request: Request, pk: str) -> Response:
        """The dead letters of a replay in their order, and what came of each."""
        asked = ItemsSerializer(data=request.query_params)
        asked.is_valid(raise_exception=True)
        items = self.get_object().items.filter(**asked.validated_data)
        page = self.paginate_queryset(items.defer("body"))
        rows = ReplayItemSerializer(page or [], many=True, context=self.get_serializer_context())
        return self.get_paginated_response(rows.data)

    @extend_schema(request=ReasonSerializer, responses=ReplayRunSerializer, tags=["replays"])
    @action(detail=True, methods=["post"])
    def pause(self, request: Request, pk: str) -> Response:
        """Take no further dead letters until it is resumed. 409 if it is not going."""
        return self._switch(request, runs.pause)

    @extend_schema(request=ReasonSerializer, responses=ReplayRunSerializer, tags=["replays"])
    @action(detail=True, methods=["post"])
    def resume(self, request: Request, pk: str) -> Response:
        """Go on. What has failed again so far is forgiven. 409 if it is not paused."""
        return self._switch(request, runs.resume)

    @extend_schema(request=ReasonSerializer, responses=ReplayRunSerializer, tags=["replays"])
    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:
        """End it; what waits in it is open again. 409 if it is over already."""
        return self._switch(request, runs.cancel)

    def _switch(self, request: Request, switch: Callable[..., bool]) -> Response:
        run = self.get_object()
        given = ReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        done = switch(run_id=run.pk, author=author(request), reason=given.validated_data["reason"])
        run.refresh_from_db()
        return Response(ReplayRunSerializer(run).data, status=200 if done else 409)
