"""Equal failures, counted and looked after together."""

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class FailureGroup(models.Model):
    """All failures of one cause: equal fingerprints. Counted in the transactions that record the failures.

    A replay marks it as `replayed`; if it dies again after that, it has `regressed`.
    """

    class State(models.TextChoices):
        NEW = "new", "new"
        ONGOING = "ongoing", "ongoing"
        REGRESSED = "regressed", "regressed after a replay"
        SETTLED = "settled", "settled"

    # So many third parties are named; that there are more is a flag. A row must not grow with its failures.
    MOST_THIRD_PARTIES = 20

    id = models.BigAutoField(primary_key=True)
    fingerprint = models.CharField(max_length=64)
    cause = models.CharField(max_length=32, help_text="As of its dead letters.")
    signature = models.TextField(help_text="The message with everything masked that differs between two of its kind.")
    sample = models.TextField(help_text="What the last one said, word for word.")
    transient_class = models.CharField(
        max_length=32, blank=True, db_default="", help_text="What kind of passing trouble it is, if it is one."
    )
    state = models.CharField(max_length=16, choices=State, default=State.NEW, db_default=State.NEW)
    deaths = models.BigIntegerField(default=0, db_default=0, help_text="How often it happened, ever.")
    open_letters = models.BigIntegerField(default=0, db_default=0, help_text="Dead letters that wait for somebody.")
    third_parties = ArrayField(models.CharField(max_length=128), default=list, db_default=[])
    more_third_parties = models.BooleanField(default=False, db_default=False)
    first_seen_at = models.DateTimeField(db_default=Now())
    last_seen_at = models.DateTimeField(db_default=Now())
    replayed_at = models.DateTimeField(null=True, blank=True, help_text="When one of its letters was last replayed.")
    replayed = models.BooleanField(
        default=False, db_default=False, help_text="Whether one was replayed since it last happened."
    )
    note = models.TextField(blank=True, db_default="")
    assignee = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="failure_groups"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["fingerprint"], name="failuregroup_once"),
            models.CheckConstraint(
                condition=Q(state__in=["new", "ongoing", "regressed", "settled"]), name="failuregroup_state_known"
            ),
            models.CheckConstraint(
                condition=Q(deaths__gte=0, open_letters__gte=0), name="failuregroup_counts_not_negative"
            ),
        ]
        indexes = [
            models.Index(fields=["last_seen_at"], name="failuregroup_last_seen"),
            models.Index(fields=["first_seen_at"], name="failuregroup_first_seen"),
            models.Index(fields=["open_letters"], name="failuregroup_open"),
            models.Index(fields=["transient_class"], condition=~Q(transient_class=""), name="failuregroup_transient"),
        ]

    def __str__(self) -> str:
        return self.signature[:120]


class FailureGroupHour(models.Model):
    """How often a group's failure happened in one hour: the trend."""

    id = models.BigAutoField(primary_key=True)
    group = models.ForeignKey(FailureGroup, on_delete=models.CASCADE, related_name="hours", db_index=False)
    hour = models.DateTimeField()
    deaths = models.BigIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["group", "hour"], name="failuregrouphour_once")]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}: {self.deaths}"
