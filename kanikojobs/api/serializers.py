"""The rows as JSON. Field names are those of the models, which are those of CloudEvents and Kubernetes."""

from rest_framework import serializers

from kanikojobs.api.secrets import MaskedField
from kanikojobs.models import DeadLetter, JobAttempt, JobStartEvent, KanikoJob


class JobAttemptSerializer(serializers.ModelSerializer[JobAttempt]):
    class Meta:
        model = JobAttempt
        fields: tuple[str, ...] = (
            "number",
            "outcome",
            "http_status",
            "reason",
            "message",
            "worker",
            "started_at",
            "finished_at",
            "duration",
        )


class KanikoJobSerializer(serializers.ModelSerializer[KanikoJob]):
    class Meta:
        model = KanikoJob
        fields: tuple[str, ...] = (
            "id",
            "event",
            "number",
            "state",
            "reason",
            "message",
            "name",
            "namespace",
            "job_uid",
            "priority",
            "third_party_id",
            "parser_id",
            "retries_used",
            "run_at",
            "queued_at",
            "creating_at",
            "created_at",
            "running_at",
            "finished_at",
        )


class KanikoJobDetailSerializer(KanikoJobSerializer):
    attempts = JobAttemptSerializer(many=True, read_only=True)

    class Meta(KanikoJobSerializer.Meta):
        fields = (*KanikoJobSerializer.Meta.fields, "attempts")


class JobStartEventSerializer(serializers.ModelSerializer[JobStartEvent]):
    class Meta:
        model = JobStartEvent
        fields: tuple[str, ...] = (
            "id",
            "event_id",
            "source",
            "type",
            "subject",
            "time",
            "third_party_id",
            "parser_id",
            "correlation_id",
            "job_name",
            "priority",
            "build_type",
            "runtime",
            "source_url",
            "build_timeout",
            "origin",
            "trace_id",
            "received_at",
            "times_seen",
            "other_way_at",
            "last_seen_at",
        )


class JobStartEventDetailSerializer(JobStartEventSerializer):
    kaniko_jobs = KanikoJobSerializer(many=True, read_only=True)

    class Meta(JobStartEventSerializer.Meta):
        fields: tuple[str, ...] = (
            *JobStartEventSerializer.Meta.fields,
            "specversion",
            "datacontenttype",
            "dataschema",
            "extensions",
            "data",
            "kaniko_jobs",
        )


class DeadLetterSerializer(serializers.ModelSerializer[DeadLetter]):
    reason = MaskedField(read_only=True, help_text="What is wrong, and where. Secrets are struck out unless permitted.")

    class Meta:
        model = DeadLetter
        fields: tuple[str, ...] = (
            "id",
            "cause",
            "state",
            "origin",
            "reason",
            "fingerprint",
            "ce_source",
            "ce_id",
            "event",
            "kaniko_job",
            "times_seen",
            "first_died_at",
            "last_died_at",
        )
