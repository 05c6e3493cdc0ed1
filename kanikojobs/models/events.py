"""What was asked for: each job start event as it arrived."""

from django.contrib.postgres.indexes import BrinIndex, HashIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

HIGHEST_PRIORITY, LOWEST_PRIORITY = 1, 10


class JobStartEvent(models.Model):
    """A job start event as it arrived: append-only, but for the count of how often it was seen again.

    Its identity is CloudEvents' own, (`source`, `event_id`) (CloudEvents 1.0.2, section 3.1.1).
    """

    class Origin(models.TextChoices):
        QUEUE = "queue", "RabbitMQ"
        DIRECT = "direct", "HTTP"
        REPLAY = "replay", "replay of a dead letter"

    id = models.BigAutoField(primary_key=True)
    event_id = models.CharField("event ID", max_length=256, help_text="CloudEvents attribute `id`.")
    source = models.CharField(max_length=512, help_text="CloudEvents attribute `source`.")
    type = models.CharField(max_length=256, help_text="CloudEvents attribute `type`.")
    specversion = models.CharField(max_length=8)
    subject = models.CharField(max_length=512, blank=True)
    time = models.DateTimeField(null=True, blank=True, help_text="When the sender says that it happened.")
    datacontenttype = models.CharField(max_length=256, blank=True)
    dataschema = models.CharField(max_length=2048, blank=True)
    extensions = models.JSONField(default=dict, db_default={}, help_text="CloudEvents extension attributes.")
    data = models.JSONField(help_text="All that was sent as `data`, unknown fields too.")

    third_party_id = models.CharField("third party ID", max_length=128)
    parser_id = models.CharField("parser ID", max_length=128)
    correlation_id = models.CharField("correlation ID", max_length=256)
    job_name = models.CharField(max_length=256, help_text="As asked for; Kubernetes sees a name that fits.")
    priority = models.PositiveSmallIntegerField(help_text="1 is the most urgent, 10 the least.")
    build_type = models.CharField(max_length=64)
    runtime = models.CharField(max_length=64, blank=True)
    source_url = models.CharField("source URL", max_length=2048, blank=True)
    build_timeout = models.PositiveIntegerField(help_text="Seconds.")

    content_hash = models.BinaryField(max_length=32, help_text="SHA-256 of what was asked for.")
    origin = models.CharField(max_length=16, choices=Origin)
    traceparent = models.CharField(max_length=64, blank=True, db_default="")
    trace_id = models.CharField("trace ID", max_length=32, blank=True, db_default="")
    received_at = models.DateTimeField(db_default=Now())
    times_seen = models.PositiveIntegerField(
        default=1, db_default=1, help_text="How often it was handed over, the first time included."
    )
    last_seen_at = models.DateTimeField(db_default=Now())
    other_way_at = models.DateTimeField(
        "came the other way",
        null=True,
        blank=True,
        help_text="When it first came by the other way too: over HTTP where its origin is RabbitMQ, and the reverse.",
    )

    class Meta:
        verbose_name = "job start event"
        constraints = [
            # The id first, so that an event is also found by its id alone.
            models.UniqueConstraint(fields=["event_id", "source"], name="event_identity"),
            models.CheckConstraint(
                condition=~Q(source="") & ~Q(event_id="") & ~Q(type=""), name="event_identity_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=HIGHEST_PRIORITY, priority__lte=LOWEST_PRIORITY),
                name="event_priority_1_to_10",
            ),
            models.CheckConstraint(condition=Q(build_timeout__gte=1), name="event_build_timeout_at_least_1s"),
            models.CheckConstraint(condition=Q(origin__in=["queue", "direct", "replay"]), name="event_origin_known"),
            models.CheckConstraint(condition=Q(times_seen__gte=1), name="event_times_seen_at_least_1"),
            models.CheckConstraint(
                condition=Q(other_way_at__isnull=True) | Q(origin__in=["queue", "direct"]),
                name="event_other_way_has_a_first",
            ),
        ]
        indexes = [
            # With the id, so that the newest of a third party are at the index's end: without it the planner takes a
            # walk down the whole primary key for cheaper than sorting them.
            models.Index(fields=["third_party_id", "id"], name="event_of_third_party"),
            models.Index(fields=["parser_id", "id"], name="event_of_parser"),
            models.Index(fields=["correlation_id"], name="event_correlation"),
            models.Index(fields=["trace_id"], condition=~Q(trace_id=""), name="event_trace"),
            HashIndex(fields=["job_name"], name="event_job_name"),
            models.Index(fields=["origin", "id"], condition=~Q(origin="queue"), name="event_not_from_queue"),
            # What speaks against switching direct events off; empty when nothing does.
            models.Index(
                fields=["received_at"],
                condition=Q(origin="direct", other_way_at__isnull=True),
                name="event_only_direct",
            ),
            # In the order of arrival, so that a block range is a stretch of time.
            BrinIndex(fields=["received_at"], name="event_received"),
        ]

    def __str__(self) -> str:
        return self.event_id
