"""`/async-jobs/failure-groups`: failures of one cause, listed and shown; a note on one, and who looks after it."""

from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.db import transaction
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, serializers, viewsets
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.response import Response

from kanikojobs import audit, failure_groups, inspection
from kanikojobs.api.acting import author
from kanikojobs.api.permissions import MayAct
from kanikojobs.api.views import ListAndItem, NewestFirst
from kanikojobs.models import FailureGroup


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
            # Locked: what is not sent stays as it is now, also if somebody else changes it at this moment.
            group = self.get_queryset().select_for_update(of=("self",)).get(pk=self.get_object().pk)
            group = failure_groups.take_note(
                group,
                note=values.get("note", group.note),
                assignee=values.get("assignee", group.assignee),
                author=author(request),
                reason=values["reason"],
            )
        return Response(FailureGroupDetailSerializer(group).data)
