"""Counts and signs of life, from which the health and the metrics are read."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Heartbeat(models.Model):
    """The last sign of life of a process: how an on-call sees that one is silent."""

    class Role(models.TextChoices):
        CONSUMER = "consumer", "consumer"
        WORKERS = "workers", "workers"
        WATCHER = "watcher", "watcher"

    id = models.BigAutoField(primary_key=True)
    role = models.CharField(max_length=16, choices=Role)
    instance = models.CharField(max_length=128, help_text="Host and process id.")
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now())
    details = models.JSONField(default=dict, db_default={}, help_text="What it says of itself.")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["role", "instance"], name="heartbeat_one_row_per_process")]

    def __str__(self) -> str:
        return f"{self.role} {self.instance}"


class Tally(models.Model):
    """Increment-only counts per minute, per hour and of all time, kept in the transaction of what they count.

    They make exact counters and histograms that survive restarts and retention, at one place for every process.
    `shard` spreads the writers, so that workers do not queue for one row.
    """

    id = models.BigAutoField(primary_key=True)
    span = models.CharField(max_length=8, choices=[("minute", "minute"), ("hour", "hour"), ("all", "all time")])
    since = models.DateTimeField(help_text="When the span began; of all time, the Unix epoch.")
    series = models.CharField(max_length=96, help_text="For example `creation/created` or `intake/queue/recorded`.")
    shard = models.PositiveSmallIntegerField()
    count = models.BigIntegerField(default=0, db_default=0)
    seconds = models.FloatField(default=0, db_default=0.0, help_text="Sum of the durations.")
    buckets = ArrayField(
        models.BigIntegerField(), default=list, db_default=[], help_text="Durations per histogram bucket."
    )

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [
            # The span and its time first: the index is also how the sums of a range are read.
            models.UniqueConstraint(
                fields=["span", "since", "series", "shard"], name="tally_one_row_per_span_and_shard"
            ),
            models.CheckConstraint(condition=Q(span__in=["minute", "hour", "all"]), name="tally_span_known"),
            models.CheckConstraint(condition=Q(count__gte=0), name="tally_never_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.series} {self.span} {self.since:%Y-%m-%d %H:%M}"
