"""`/async-jobs/stats`: the numbers of the admin's home in one call, each described."""

from datetime import UTC, datetime
from typing import Any

from drf_spectacular.utils import OpenApiExample, PolymorphicProxySerializer, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import stats
from kanikojobs.api.permissions import MayView, StatsForAll


class Counts(serializers.DictField):
    """Numbers by name."""

    child = serializers.IntegerField(min_value=0)


class FirstVersionSerializer(serializers.Serializer[Any]):
    """The flat keys that callers of the system's first version read."""

    worker_count = serializers.IntegerField(help_text="Workers per cluster, as configured.")
    queue_size = serializers.IntegerField(help_text="Kaniko Jobs that wait for a worker, or are with one.")
    max_queue_size = serializers.IntegerField(help_text="Kaniko Jobs that one cluster holds in memory.")
    total_queued = serializers.IntegerField(help_text="Events that were ever recorded.")
    results_count = serializers.IntegerField(help_text="Attempts that have an outcome, ever.")
    is_shutdown = serializers.BooleanField(help_text="Always false: who answers is not shut down.")


class VerdictSerializer(serializers.Serializer[Any]):
    mood = serializers.ChoiceField(choices=["well", "behind", "failing", "down"])
    sentence = serializers.CharField(help_text="Why, in one sentence: the worst that is true.")
    at = serializers.DateTimeField()


class PartSerializer(serializers.Serializer[Any]):
    name = serializers.CharField()
    # A name of its own: `state` is also what Kaniko Jobs have.
    state = serializers.CharField(help_text="well, down or unknown.")
    seen_at = serializers.DateTimeField(allow_null=True, help_text="The last sign of life.")
    note = serializers.CharField()


class OutageSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField()
    message = serializers.CharField()
    started_at = serializers.DateTimeField()
    probes = serializers.IntegerField()


class ConsumingSerializer(serializers.Serializer[Any]):
    paused = serializers.BooleanField()
    by = serializers.CharField(help_text="Who paused or resumed it last; empty if nobody ever did.")
    reason = serializers.CharField()
    at = serializers.DateTimeField(allow_null=True)


class WaitSerializer(serializers.Serializer[Any]):
    state = serializers.CharField()
    reason = serializers.CharField(help_text="ForAWorker, ForItsNextTry, ForTheOneBefore, or as in Kubernetes.")
    count = serializers.IntegerField()


class ShareSerializer(serializers.Serializer[Any]):
    third_party_id = serializers.CharField()
    queued = serializers.IntegerField()
    active = serializers.IntegerField()


class RunningSerializer(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    name = serializers.CharField()
    third_party_id = serializers.CharField()
    parser_id = serializers.CharField()
    running_at = serializers.DateTimeField()


class UnfinishedSerializer(serializers.Serializer[Any]):
    queued = serializers.IntegerField()
    creating = serializers.IntegerField()
    created = serializers.IntegerField()
    running = serializers.IntegerField()
    oldest_queued_at = serializers.DateTimeField(allow_null=True)
    active = serializers.IntegerField(help_text="What counts under the caps.")
    waiting = WaitSerializer(many=True)
    busiest = ShareSerializer(many=True, help_text="The third parties with the most unfinished Kaniko Jobs.")
    running_longest = RunningSerializer(many=True)


class SecondsSerializer(serializers.Serializer[Any]):
    p50 = serializers.FloatField(allow_null=True)
    p95 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)


class MinuteSerializer(SecondsSerializer):
    at = serializers.DateTimeField()
    recorded = serializers.IntegerField()
    created = serializers.IntegerField()
    failed = serializers.IntegerField()


class LastHourSerializer(serializers.Serializer[Any]):
    recorded = serializers.IntegerField(help_text="Events.")
    created = serializers.IntegerField(help_text="Attempts that ended with the Job in Kubernetes.")
    failed = serializers.IntegerField(help_text="Attempts that ended without.")
    failure_rate = serializers.FloatField(allow_null=True, help_text="Percent of the attempts; null without any.")
    creation_seconds = SecondsSerializer(help_text="The calls that create Jobs.")
    wait_p95_seconds = serializers.FloatField(allow_null=True, help_text="From queued to created.")
    minutes = MinuteSerializer(many=True)


class FailureSerializer(serializers.Serializer[Any]):
    fingerprint = serializers.CharField(help_text="As of the dead letters of this group.")
    cause = serializers.CharField()
    title = serializers.CharField()
    count = serializers.IntegerField(help_text="Since the beginning of the hour before the last 60 minutes.")
    new = serializers.BooleanField(help_text="Whether it was never there before that.")


class LettersSerializer(serializers.Serializer[Any]):
    open = serializers.IntegerField(help_text="Counted up to 10000.")
    recorded = Counts(help_text="Ever, by cause.")


class RetentionSerializer(serializers.Serializer[Any]):
    finished_at = serializers.DateTimeField(allow_null=True, help_text="When old rows were last pruned to the end.")
    removed = Counts(help_text="Rows that this run removed, by kind.")
    removed_ever = Counts(help_text="Rows, by kind.")
    ongoing_since = serializers.DateTimeField(allow_null=True, help_text="When the run began that is going on.")


class FlowsSummarySerializer(serializers.Serializer[Any]):
    phase = serializers.IntegerField(help_text="Of the migration: 1 direct only, 2 both, 3 queue only.")
    ready = serializers.BooleanField(help_text="Whether the next step is safe.")
    next = serializers.CharField(help_text="What to do.")
    only_direct = serializers.IntegerField(help_text="Events that came directly and not through the queue.")
    both = serializers.IntegerField(help_text="Events that came by both ways.")
    refused = serializers.IntegerField(help_text="Requests that were answered with 410.")


class ConfiguredSerializer(serializers.Serializer[Any]):
    max_retries = serializers.IntegerField()
    retry_delay_ms = serializers.IntegerField()
    direct_events = serializers.CharField()
    max_active_jobs = serializers.IntegerField(help_text="0 is no cap.")
    max_active_jobs_per_third_party = serializers.IntegerField(help_text="0 is no cap.")


class StatsSerializer(FirstVersionSerializer):
    """Everything that the admin's home shows."""

    verdict = VerdictSerializer()
    parts = PartSerializer(many=True)
    outage = OutageSerializer(allow_null=True, help_text="The outage of Kubernetes that is going on.")
    consuming = ConsumingSerializer()
    queue_depth = serializers.IntegerField(allow_null=True, help_text="In RabbitMQ, as a consumer said last.")
    kaniko_jobs = UnfinishedSerializer()
    last_hour = LastHourSerializer()
    failures = FailureSerializer(many=True)
    intake = serializers.DictField(child=Counts(), help_text="Messages ever, by origin and outcome.")
    flows = FlowsSummarySerializer(help_text="Direct and queue, within 24 hours.")
    attempts = Counts(help_text="Ever, by outcome.")
    finished = Counts(help_text="Kaniko Jobs that were seen to end, ever, by `state` or `state/reason`.")
    drift = Counts(help_text="Where rows and cluster had come apart, ever, by kind.")
    dead_letters = LettersSerializer()
    retention = RetentionSerializer()
    settings = ConfiguredSerializer()


FIRST_VERSION = {
    "worker_count": 5,
    "queue_size": 12,
    "max_queue_size": 100,
    "total_queued": 48211,
    "results_count": 48407,
    "is_shutdown": False,
}
_AT = datetime(2026, 1, 1, 3, tzinfo=UTC).isoformat()
EVERYTHING = {
    **FIRST_VERSION,
    "verdict": {"mood": "behind", "sentence": "12 Kaniko Jobs wait, the oldest for 41 s.", "at": _AT},
    "parts": [{"name": "Consumer", "state": "well", "seen_at": _AT, "note": "2 running"}],
    "outage": None,
    "consuming": {"paused": False, "by": "", "reason": "", "at": None},
    "queue_depth": 0,
    "kaniko_jobs": {
        "queued": 10,
        "creating": 2,
        "created": 4,
        "running": 31,
        "oldest_queued_at": _AT,
        "active": 37,
        "waiting": [{"state": "queued", "reason": "ForAWorker", "count": 10}],
        "busiest": [{"third_party_id": "a-third-party", "queued": 9, "active": 20}],
        "running_longest": [],
    },
    "last_hour": {
        "recorded": 1201,
        "created": 1188,
        "failed": 3,
        "failure_rate": 0.25,
        "creation_seconds": {"p50": 0.012, "p95": 0.031, "p99": 0.08},
        "wait_p95_seconds": 2.1,
        "minutes": [],
    },
    "failures": [],
    "intake": {"queue": {"recorded": 48211, "duplicate": 12}},
    "flows": {
        "phase": 2,
        "ready": True,
        "next": "Every direct event of the last 24 hours came through the queue, too.",
        "only_direct": 0,
        "both": 1180,
        "refused": 0,
    },
    "attempts": {"created": 48200, "retry": 207},
    "finished": {"succeeded": 47000, "failed/BuildStepFailed": 412},
    "drift": {},
    "dead_letters": {"open": 3, "recorded": {"invalid": 3}},
    "retention": {
        "finished_at": _AT,
        "removed": {"events": 1204, "kaniko-jobs": 1206},
        "removed_ever": {"events": 90412, "kaniko-jobs": 90600},
        "ongoing_since": None,
    },
    "settings": {
        "max_retries": 3,
        "retry_delay_ms": 100,
        "direct_events": "accept",
        "max_active_jobs": 0,
        "max_active_jobs_per_third_party": 0,
    },
}


class StatsView(APIView):
    """Is it healthy, is it behind, what fails: the numbers of the admin's home in one cheap call.

    Without credentials it answers the six flat keys that the system's first version had. With the permission to
    view Kaniko Jobs it answers everything.
    """

    permission_classes = (StatsForAll,)

    @extend_schema(
        tags=["stats"],
        responses=PolymorphicProxySerializer(
            component_name="StatsAnswer",
            serializers=[StatsSerializer, FirstVersionSerializer],
            resource_type_field_name=None,
        ),
        examples=[
            OpenApiExample("with the permission", value=EVERYTHING, response_only=True),
            OpenApiExample("without", value=FIRST_VERSION, response_only=True),
        ],
    )
    def get(self, request: Request) -> Response:
        if MayView().has_permission(request, self):
            return Response(stats.everything())
        return Response(stats.first_version())
