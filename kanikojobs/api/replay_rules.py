"""`/async-jobs/replay-rules`: the standing rules; listed, made, changed and switched off. None is deleted, because runs
point to them."""

from math import isfinite
from typing import Any

from django.db import IntegrityError, transaction
from drf_spectacular.utils import OpenApiExample, extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from kanikojobs import audit
from kanikojobs.api.acting import ReasonSerializer, author
from kanikojobs.api.permissions import MayAct
from kanikojobs.api.views import ListAndItem
from kanikojobs.models import ReplayRule
from kanikojobs.replay import rules
from kanikojobs.transience import TransientClass


class FiniteField(serializers.FloatField):
    """A number between two; `"nan"`, which Python reads as one, is between none."""

    def to_internal_value(self, data: Any) -> float:
        value: float = super().to_internal_value(data)
        if not isfinite(value):
            self.fail("invalid")
        return value


class ReplayRuleSerializer(serializers.ModelSerializer[ReplayRule]):
    transient_class = serializers.ChoiceField(choices=TransientClass.choices, help_text="Of what it replays.")
    rate = FiniteField(min_value=rules.SLOWEST_RATE, max_value=rules.FASTEST_RATE, required=False)
    max_failure_rate = FiniteField(min_value=0, max_value=100, required=False)
    most_times = serializers.IntegerField(
        min_value=rules.FEWEST_TIMES,
        max_value=rules.MOST_TIMES,
        required=False,
        help_text="Kaniko Jobs per event, the first included, after which a person has to look.",
    )
    reason = serializers.CharField(max_length=audit.MOST_REASON_CHARACTERS, help_text="Why it is so; it is kept.")

    class Meta:
        model = ReplayRule
        fields: tuple[str, ...] = (
            "id",
            "name",
            "enabled",
            "transient_class",
            "delay",
            "rate",
            "max_failure_rate",
            "most_times",
            "reason",
            "made_by",
            "made_at",
        )
        read_only_fields = ("made_by", "made_at")


RATE_LIMITS = OpenApiExample(
    "What died of a rate limit, ten minutes later, one per second",
    value={
        "name": "rate limits",
        "enabled": True,
        "transient_class": "rate-limited",
        "delay": 600,
        "rate": 1,
        "max_failure_rate": 50,
        "most_times": 3,
        "reason": "The registry lets us pull again after ten minutes.",
    },
    request_only=True,
)
FASTER = OpenApiExample("Faster", value={"rate": 5, "reason": "The limit was raised."}, request_only=True)
NO_LONGER = OpenApiExample("No longer", value={"reason": "The registry is being replaced."}, request_only=True)


class ReplayRuleViewSet(ListAndItem):
    """Standing rules: what died of passing trouble is replayed later, slowly and not for ever. Off by default."""

    queryset = ReplayRule.objects.all()
    serializer_class = ReplayRuleSerializer
    detail_serializer_class = ReplayRuleSerializer
    permission_classes = (MayAct,)
    action_permissions = {
        "create": "add_replayrule",
        "partial_update": "change_replayrule",
        "switch_off": "change_replayrule",
    }
    filterset_fields = {"enabled": ["exact"], "transient_class": ["exact"]}

    @extend_schema(
        request=ReplayRuleSerializer,
        responses={201: ReplayRuleSerializer},
        examples=[RATE_LIMITS],
        tags=["replay-rules"],
    )
    def create(self, request: Request) -> Response:
        """Make a rule. It does nothing until it is enabled."""
        given = ReplayRuleSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        rule = ReplayRule(**given.validated_data)
        _save(rule, request)
        return Response(ReplayRuleSerializer(rule).data, status=201)

    @extend_schema(
        request=ReplayRuleSerializer, responses=ReplayRuleSerializer, examples=[FASTER], tags=["replay-rules"]
    )
    def partial_update(self, request: Request, pk: str) -> Response:
        """Change what is sent, with the reason, which must be."""
        ReasonSerializer(data=request.data).is_valid(raise_exception=True)
        with transaction.atomic():
            # Locked: what somebody else changes at the same moment is not to be taken back.
            rule = self.get_queryset().select_for_update().filter(pk=self.get_object().pk).get()
            given = ReplayRuleSerializer(rule, data=request.data, partial=True)
            given.is_valid(raise_exception=True)
            for name, value in given.validated_data.items():
                setattr(rule, name, value)
            _save(rule, request)
        return Response(ReplayRuleSerializer(rule).data)

    @extend_schema(
        request=ReasonSerializer, responses=ReplayRuleSerializer, examples=[NO_LONGER], tags=["replay-rules"]
    )
    @action(detail=True, methods=["post"], url_path="switch-off")
    def switch_off(self, request: Request, pk: str) -> Response:
        """Switch it off; a run that it has started goes on. 409 if it is off."""
        rule = self.get_object()
        given = ReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        done = rules.switch_off(rule_id=rule.pk, author=author(request), reason=given.validated_data["reason"])
        rule.refresh_from_db()
        return Response(ReplayRuleSerializer(rule).data, status=200 if done else 409)


def _save(rule: ReplayRule, request: Request) -> None:
    try:
        with transaction.atomic():
            rules.save(rule, author=author(request))
    except IntegrityError:
        # Two who take a name at the same moment both find it free; the database decides.
        raise serializers.ValidationError({"name": ["This name is taken."]}) from None
    rule.refresh_from_db()
