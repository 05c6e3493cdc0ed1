"""`/async-jobs/dead-letters` and `/async-jobs/failure-groups`: lists, items, and what may be done with one or with all
that match a filter."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.decorators import action
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import audit, failure_groups, inspection
from kanikojobs.api.consumer import ReasonSerializer
from kanikojobs.api.permissions import MayView
from kanikojobs.api.serializers import DeadLetterSerializer
from kanikojobs.api.views import ListAndItem, NewestFirst
from kanikojobs.models import DeadLetter, FailureGroup, OperatorAction
from kanikojobs.replay import disposal, mending, running, runs
from kanikojobs.replay.plan import ReplayPlan, now, plan
from kanikojobs.replay.runs import NothingToReplay
from kanikojobs.replay.selection import Selection, SelectionError, parse

MOST_PLANNED = 5000


class MayAct(BasePermission):
    """Reading needs the `view` permission; each action the one that its view names in `action_permissions`."""

    message = "Ask for the permission to do this, or send a token that has it."

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = getattr(view, "action_permissions", {}).get(getattr(view, "action", None))
        if needed is None:
            return MayView().has_permission(request, view)
        return bool(request.user and request.user.is_active and request.user.has_perm(f"kanikojobs.{needed}"))


class FaultSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="JSON path or header.")
    problem = serializers.CharField()


class SelectionField(serializers.JSONField):
    """A filter; see `kanikojobs.replay.selection`."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object of conditions; {} means all open dead letters")
        try:
            return parse(data)
        except SelectionError as error:
            raise serializers.ValidationError(str(error)) from None


class FilterSerializer(serializers.Serializer[Any]):
    filter = SelectionField(
        help_text="Conditions that must all hold: ids, groups (fingerprints), causes, reason (a Kaniko Job's), "
        "third_party_id, parser_id, died_from, died_until (times of the first death). {} means all open ones."
    )


class FilterAndReasonSerializer(FilterSerializer, ReasonSerializer):
    pass


class ReplayOneSerializer(ReasonSerializer):
    body = serializers.CharField(
        required=False,
        trim_whitespace=False,
        help_text="A mended body in the place of the letter's, which is kept. Needs the permission to edit.",
    )


class CheckSerializer(serializers.Serializer[Any]):
    body = serializers.CharField(trim_whitespace=False, allow_blank=True)


class CheckedSerializer(serializers.Serializer[Any]):
    outcome = serializers.CharField(help_text="What a replay would make of it, such as `queued` or `invalid`.")
    is_good = serializers.BooleanField()
    faults = FaultSerializer(many=True)


class DisposalSerializer(serializers.Serializer[Any]):
    done = serializers.IntegerField()
    left = serializers.IntegerField(help_text="Meant, but not restored: the same message is open already.")


class StartedSerializer(serializers.Serializer[Any]):
    run = serializers.IntegerField(help_text="Of `/async-jobs/replays/{run}`.")
    state = serializers.CharField()


class ProblemSerializer(serializers.Serializer[Any]):
    outcome = serializers.CharField()
    message = serializers.CharField()
    count = serializers.IntegerField()
    example = serializers.IntegerField(help_text="A dead letter to look at.")


class PlanSerializer(serializers.Serializer[ReplayPlan]):
    cut_off = serializers.DateTimeField(help_text="Send it with the start of the run: what dies later stays out.")
    total = serializers.IntegerField()
    counted = serializers.IntegerField(
        help_text=f"The numbers are those of the first so many (at most {MOST_PLANNED})."
    )
    outcomes = serializers.SerializerMethodField()
    problems = ProblemSerializer(many=True)
    elsewhere = serializers.IntegerField(help_text="Match too, but wait in another replay.")
    third_parties = serializers.IntegerField()
    parsers = serializers.IntegerField()

    def get_outcomes(self, planned: ReplayPlan) -> dict[str, int]:
        return {str(outcome): count for outcome, count in planned.outcomes.items()}


class DeadLetterDetailSerializer(DeadLetterSerializer):
    body = serializers.SerializerMethodField(
        help_text="As text; bytes that are no UTF-8 are written \\xNN. Secrets are struck out unless permitted."
    )
    headers = serializers.SerializerMethodField()
    properties = serializers.SerializerMethodField()
    replays = serializers.SerializerMethodField(help_text="Each run that it was in, and what came of it.")

    class Meta(DeadLetterSerializer.Meta):
        fields: tuple[str, ...] = (
            *DeadLetterSerializer.Meta.fields,
            "third_party_id",
            "parser_id",
            "arrived_at",
            "settled_at",
            "replayed_as",
            "faults",
            "body",
            "content_type",
            "headers",
            "properties",
            "replays",
        )

    def _secrets(self) -> bool:
        request = self.context.get("request")
        return bool(request and request.user.has_perm("kanikojobs.view_secrets_deadletter"))

    def get_body(self, letter: DeadLetter) -> str:
        return inspection.visible_body(letter, secrets=self._secrets()).decode("utf-8", "backslashreplace")

    def get_headers(self, letter: DeadLetter) -> dict[str, Any]:
        headers: dict[str, Any] = letter.headers if self._secrets() else inspection.masked(letter.headers)
        return headers

    def get_properties(self, letter: DeadLetter) -> dict[str, Any]:
        properties: dict[str, Any] = letter.properties if self._secrets() else inspection.masked(letter.properties)
        return properties

    def get_replays(self, letter: DeadLetter) -> list[Any]:
        rows = letter.replay_items.order_by("id").values("run", "outcome", "result", "event", "kaniko_job", "at")
        return list(rows[:100])


THE_REGISTRY_IS_BACK = OpenApiExample(
    "The registry is back", value={"reason": "The registry is back."}, request_only=True
)
ONE_GROUP = OpenApiExample(
    "One group since 14:00",
    value={"filter": {"groups": ["9f86d081884c7d65…"], "died_from": "2026-01-31T14:00:00Z"}},
    request_only=True,
)
DISCARD_A_GROUP = OpenApiExample(
    "The failures of a load test",
    value={"filter": {"third_party_id": "load-test"}, "reason": "A load test."},
    request_only=True,
)
A_PLAN = OpenApiExample(
    "412 of one cause",
    value={
        "cut_off": "2026-01-31T14:05:12.123456Z",
        "total": 412,
        "counted": 412,
        "outcomes": {"queued": 398, "already-built": 9, "active": 3, "invalid": 2},
        "problems": [
            {"outcome": "invalid", "message": "data.priority: the number 11; must be …", "count": 2, "example": 4711}
        ],
        "elsewhere": 0,
        "third_parties": 5,
        "parsers": 311,
    },
    response_only=True,
)


def author(request: Request) -> audit.Author:
    return audit.by_user(request.user, via=OperatorAction.Via.API)


class DeadLetterViewSet(ListAndItem):
    """What could not be used, with all the evidence; replayed, mended, discarded and restored."""

    queryset = DeadLetter.objects.all()
    serializer_class = DeadLetterSerializer
    detail_serializer_class = DeadLetterDetailSerializer
    permission_classes = (MayAct,)
    action_permissions = {
        "replay": "replay_deadletter",
        "discard": "discard_deadletter",
        "restore": "discard_deadletter",
        "discard_all": "discard_deadletter",
        "restore_all": "discard_deadletter",
        "check": "view_deadletter",
        "plan": "view_deadletter",
    }
    filterset_fields = {
        "cause": ["exact", "in"],
        "state": ["exact"],
        "fingerprint": ["exact"],
        "ce_id": ["exact"],
        "third_party_id": ["exact"],
        "parser_id": ["exact"],
        "event": ["exact"],
        "first_died_at": ["gte", "lt"],
        "last_died_at": ["gte", "lt"],
    }

    @extend_schema(
        request=FilterSerializer, responses=PlanSerializer, examples=[ONE_GROUP, A_PLAN], tags=["dead-letters"]
    )
    @action(detail=False, methods=["post"])
    def plan(self, request: Request) -> Response:
        """What a replay of all that match would do. Changes nothing."""
        given = FilterSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        return Response(PlanSerializer(plan(selection=given.validated_data["filter"], most=MOST_PLANNED)).data)

    @extend_schema(
        request=ReplayOneSerializer,
        responses={202: StartedSerializer},
        examples=[THE_REGISTRY_IS_BACK],
        tags=["dead-letters"],
    )
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Replay one, as it is or with a mended body. 409 if it is not open, or waits in another replay."""
        letter = self.get_object()
        given = ReplayOneSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        body = given.validated_data.get("body")
        if body is not None and not request.user.has_perm("kanikojobs.edit_deadletter"):
            self.permission_denied(request, message="Ask for the permission to mend dead letters.")
        try:
            run = self._start(request, letter, reason=given.validated_data["reason"], body=body)
        except NothingToReplay as nothing:
            return Response({"detail": str(nothing)}, status=409)
        return Response({"run": run.pk, "state": run.state}, status=202)

    def _start(self, request: Request, letter: DeadLetter, *, reason: str, body: str | None) -> Any:
        if body is not None:
            try:
                run = mending.replay(letter=letter, body=encoded(body), author=author(request), reason=reason)
            except mending.StillInvalid as invalid:
                raise serializers.ValidationError(
                    {"body": [{"path": fault.path, "problem": fault.problem} for fault in invalid.faults]}
                ) from None
        else:
            run = runs.start(
                selection=Selection(ids=(letter.pk,)),
                cut_off=now(),
                pace=runs.Pace(),
                author=author(request),
                reason=reason,
            )
        return running.first_step(run)

    @extend_schema(request=CheckSerializer, responses=CheckedSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        """What a replay would make of a mended body. Changes nothing."""
        letter = self.get_object()
        given = CheckSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        checked = mending.check(letter=letter, body=encoded(given.validated_data["body"]))
        return Response(CheckedSerializer(checked).data)

    @extend_schema(request=ReasonSerializer, responses=DisposalSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, pk: str) -> Response:
        """Discard one: nobody is to replay it. It is kept."""
        return self._dispose(request, disposal.discard, Selection(ids=(self.get_object().pk,)))

    @extend_schema(request=ReasonSerializer, responses=DisposalSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        """Open a discarded one again."""
        return self._dispose(request, disposal.restore, Selection(ids=(self.get_object().pk,)))

    @extend_schema(
        request=FilterAndReasonSerializer,
        responses=DisposalSerializer,
        examples=[DISCARD_A_GROUP],
        operation_id="async_jobs_dead_letters_discard_all",
        tags=["dead-letters"],
    )
    @action(detail=False, methods=["post"], url_path="discard")
    def discard_all(self, request: Request) -> Response:
        """Discard all open ones that match."""
        return self._dispose(request, disposal.discard, self._filter(request))

    @extend_schema(
        request=FilterAndReasonSerializer,
        responses=DisposalSerializer,
        operation_id="async_jobs_dead_letters_restore_all",
        tags=["dead-letters"],
    )
    @action(detail=False, methods=["post"], url_path="restore")
    def restore_all(self, request: Request) -> Response:
        """Open all discarded ones again that match."""
        return self._dispose(request, disposal.restore, self._filter(request))

    def _filter(self, request: Request) -> Selection:
        given = FilterAndReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        selection: Selection = given.validated_data["filter"]
        return selection

    def _dispose(self, request: Request, dispose: Any, selection: Selection) -> Response:
        given = ReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        done = dispose(selection=selection, author=author(request), reason=given.validated_data["reason"])
        return Response(DisposalSerializer(done).data)


def encoded(body: str) -> bytes:
    """As UTF-8; a lone surrogate, which JSON can write and UTF-8 cannot, as its escape."""
    return body.encode("utf-8", "backslashreplace")


class FailureGroupSerializer(serializers.ModelSerializer[FailureGroup]):
    assignee = serializers.SlugRelatedField(
        slug_field="username", queryset=get_user_model().objects.filter(is_active=True), allow_null=True, required=False
    )

    class Meta:
        model = FailureGroup
        fields: tuple[str, ...] = (
            "id",
            "fingerprint",
            "cause",
            "signature",
            "transient_class",
            "state",
            "deaths",
            "open_letters",
            "third_parties",
            "more_third_parties",
            "first_seen_at",
            "last_seen_at",
            "replayed_at",
            "note",
            "assignee",
        )


class FailureGroupDetailSerializer(FailureGroupSerializer):
    sample = serializers.SerializerMethodField(help_text="What the last one said. Secrets are struck out.")
    hours = serializers.SerializerMethodField(help_text="How often it happened per hour, the latest 72 hours.")

    class Meta(FailureGroupSerializer.Meta):
        fields: tuple[str, ...] = (*FailureGroupSerializer.Meta.fields, "sample", "hours")

    def get_sample(self, group: FailureGroup) -> str:
        return inspection.masked_text(group.sample)

    def get_hours(self, group: FailureGroup) -> list[Any]:
        return list(group.hours.order_by("-hour").values("hour", "deaths")[:72])


class NoteSerializer(serializers.Serializer[Any]):
    note = serializers.CharField(required=False, allow_blank=True, max_length=4000)
    assignee = serializers.SlugRelatedField(
        slug_field="username", queryset=get_user_model().objects.filter(is_active=True), allow_null=True, required=False
    )
    reason = serializers.CharField(
        required=False, default="Took note.", max_length=audit.MOST_REASON_CHARACTERS, help_text="Why; it is kept."
    )


class LastSeenFirst(NewestFirst):
    """By when it was last seen, or as `order` says: `first_seen`, `last_seen`, `deaths` or `open`."""

    ordering: Any = ("-last_seen_at", "-id")
    orders = {
        "last_seen": ("-last_seen_at", "-id"),
        "first_seen": ("-first_seen_at", "-id"),
        "deaths": ("-deaths", "-id"),
        "open": ("-open_letters", "-id"),
    }

    def get_ordering(self, request: Request, queryset: Any, view: Any) -> tuple[str, ...]:
        return self.orders.get(request.query_params.get("order", ""), self.ordering)

    def decode_cursor(self, request: Request) -> Any:
        return CursorPagination.decode_cursor(self, request)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (ValueError, ValidationError):
            # Anybody can make up a cursor.
            raise NotFound(self.invalid_cursor_message) from None


class FailureGroupViewSet(mixins.UpdateModelMixin, ListAndItem):
    """Failures of one cause, counted: what is new, what goes on, what came back after a replay."""

    queryset = FailureGroup.objects.all()
    serializer_class = FailureGroupSerializer
    detail_serializer_class = FailureGroupDetailSerializer
    pagination_class = LastSeenFirst
    permission_classes = (MayAct,)
    action_permissions = {"partial_update": "change_failuregroup"}
    http_method_names = ["get", "head", "options", "patch"]
    lookup_field = "fingerprint"
    lookup_value_regex = "[0-9a-f]{64}"
    filterset_fields = {
        "cause": ["exact", "in"],
        "state": ["exact", "in"],
        "transient_class": ["exact"],
        "first_seen_at": ["gte", "lt"],
        "last_seen_at": ["gte", "lt"],
        "open_letters": ["gte"],
    }

    def get_queryset(self) -> Any:
        return viewsets.ReadOnlyModelViewSet.get_queryset(self).select_related("assignee")

    @extend_schema(request=NoteSerializer, responses=FailureGroupDetailSerializer, tags=["failure-groups"])
    def partial_update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Write a note, or say who looks after it."""
        given = NoteSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        with transaction.atomic():
            group = self.get_object()
            group = failure_groups.take_note(
                group,
                note=values.get("note", group.note),
                assignee=values.get("assignee", group.assignee),
                author=author(request),
                reason=values["reason"],
            )
        return Response(FailureGroupDetailSerializer(group).data)
