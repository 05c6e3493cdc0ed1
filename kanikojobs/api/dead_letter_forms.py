"""What goes in and out of `/async-jobs/dead-letters`, with the examples of the documentation."""

from typing import Any

from drf_spectacular.utils import OpenApiExample
from rest_framework import serializers

from kanikojobs import inspection
from kanikojobs.api.acting import ReasonSerializer
from kanikojobs.api.secrets import MaskedField, may_see_secrets
from kanikojobs.api.serializers import DeadLetterSerializer
from kanikojobs.errors import Fault
from kanikojobs.models import DeadLetter
from kanikojobs.replay.plan import ReplayPlan

MOST_PLANNED = 5000


class FaultSerializer(serializers.Serializer[Any]):
    path = serializers.CharField(help_text="JSON path or header.")
    problem = serializers.CharField()


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
    message = MaskedField()
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
    faults = serializers.SerializerMethodField()
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
            "replayed_as_job",
            "faults",
            "body",
            "content_type",
            "headers",
            "properties",
            "replays",
        )

    def get_body(self, letter: DeadLetter) -> str:
        secrets = may_see_secrets(self.context)
        return inspection.visible_body(letter, secrets=secrets).decode("utf-8", "backslashreplace")

    def get_headers(self, letter: DeadLetter) -> dict[str, Any]:
        headers: dict[str, Any] = letter.headers
        return headers if may_see_secrets(self.context) else inspection.masked(headers)

    def get_properties(self, letter: DeadLetter) -> dict[str, Any]:
        properties: dict[str, Any] = letter.properties
        return properties if may_see_secrets(self.context) else inspection.masked(properties)

    def get_faults(self, letter: DeadLetter) -> list[dict[str, str]]:
        if may_see_secrets(self.context):
            return list(letter.faults)
        faults = (Fault(str(fault.get("path", "")), str(fault.get("problem", ""))) for fault in letter.faults)
        return [{"path": fault.path, "problem": inspection.masked_fault(fault).problem} for fault in faults]

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
