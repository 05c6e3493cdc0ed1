"""What is built for an event, and each try to create it in Kubernetes."""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from kanikojobs.models.events import HIGHEST_PRIORITY, LOWEST_PRIORITY, JobStartEvent
from kanikojobs.models.moves import KanikoJobQuerySet
from kanikojobs.states import ACTIVE, FINISHED, HAS_A_UID, UNFINISHED, State


class KanikoJob(models.Model):
    """One Kubernetes Job for an event, numbered 1, 2, … per event. See `kanikojobs.states` for its life.

    While it is `queued` the row is the queue entry; while it is `creating` it is leased to a worker under `claim`.
    """

    id = models.BigAutoField(primary_key=True)
    event = models.ForeignKey(JobStartEvent, on_delete=models.CASCADE, related_name="kaniko_jobs", db_index=False)
    number = models.PositiveIntegerField(default=1, db_default=1)
    state = models.CharField(max_length=16, choices=State, default=State.QUEUED, db_default=State.QUEUED)
    reason = models.CharField(
        max_length=64, blank=True, db_default="", help_text="CamelCase, as in Kubernetes conditions."
    )
    message = models.TextField(blank=True, db_default="")
    name = models.CharField(max_length=63, help_text="The Job's name in Kubernetes.")
    namespace = models.CharField(max_length=63, help_text="The Job's namespace in Kubernetes.")
    job_uid = models.UUIDField("Job UID", null=True, blank=True)

    # Copies of the event's, so that a claim orders, caps and takes turns without a join.
    priority = models.PositiveSmallIntegerField()
    third_party_id = models.CharField("third party ID", max_length=128)
    parser_id = models.CharField("parser ID", max_length=128)

    run_at = models.DateTimeField(null=True, blank=True, help_text="Not before this time; empty means now.")
    retries_used = models.PositiveIntegerField(default=0, db_default=0)
    may_exist = models.BooleanField(
        default=False,
        db_default=False,
        help_text="Its Job may be in the cluster although no answer said so: while it waits for the next try it keeps "
        "its place under the caps.",
    )
    claim = models.UUIDField(null=True, blank=True, help_text="The claim under which a worker holds it.")
    leased_until = models.DateTimeField(null=True, blank=True)

    queued_at = models.DateTimeField(db_default=Now())
    creating_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(null=True, blank=True)
    running_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    node = models.CharField(max_length=253, blank=True, db_default="", help_text="Where its pod runs, or ran last.")
    cancel_requested_at = models.DateTimeField(
        null=True, blank=True, help_text="It is cancelled once its Job and pods are gone."
    )
    place = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="In the line of its third party and parser: empty until it has one, 0 is outside every line.",
    )
    # Without a constraint of PostgreSQL's, whose locks on the row pointed to would cross those of whoever moves it.
    # What is waited for is unfinished, and nothing deletes that.
    waits_for = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        db_index=False,
        db_constraint=False,
        help_text="The one before it of the same third party and parser.",
    )
    overrides = models.JSONField(
        null=True, blank=True, help_text="What a retry has changed of the event's own parameters."
    )

    objects = KanikoJobQuerySet.as_manager()

    class Meta:
        verbose_name = "Kaniko Job"
        permissions = [
            ("cancel_kanikojob", "Can cancel Kaniko Jobs"),
            ("retry_kanikojob", "Can retry Kaniko Jobs"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["event", "number"], name="kanikojob_number_once_per_event"),
            models.UniqueConstraint(fields=["name", "namespace"], name="kanikojob_kubernetes_name_once"),
            # A double click on "retry" is harmless by this: the second row cannot be.
            models.UniqueConstraint(
                fields=["event"], condition=Q(state__in=UNFINISHED), name="kanikojob_one_unfinished_per_event"
            ),
            # A line is a line: it has one head, and nobody has two behind them. So two of a line are never active.
            models.UniqueConstraint(
                fields=["third_party_id", "parser_id"],
                condition=Q(place__gt=0, waits_for__isnull=True, state__in=UNFINISHED),
                name="kanikojob_line_has_one_head",
            ),
            models.UniqueConstraint(
                fields=["waits_for"], condition=Q(waits_for__isnull=False), name="kanikojob_one_follower"
            ),
            models.CheckConstraint(
                condition=Q(waits_for__isnull=True) | Q(state__in=[State.QUEUED, *FINISHED]),
                name="kanikojob_who_waits_is_queued",
            ),
            models.CheckConstraint(condition=Q(number__gte=1), name="kanikojob_number_at_least_1"),
            models.CheckConstraint(condition=Q(state__in=State.values), name="kanikojob_state_known"),
            models.CheckConstraint(
                condition=Q(state__in=FINISHED, finished_at__isnull=False)
                | Q(state__in=UNFINISHED, finished_at__isnull=True),
                name="kanikojob_finished_has_its_time",
            ),
            models.CheckConstraint(
                condition=~Q(state__in=HAS_A_UID) | Q(job_uid__isnull=False),
                name="kanikojob_created_has_a_uid",
            ),
            models.CheckConstraint(
                condition=Q(state=State.CREATING, claim__isnull=False, leased_until__isnull=False)
                | (~Q(state=State.CREATING) & Q(claim__isnull=True, leased_until__isnull=True)),
                name="kanikojob_creating_is_leased",
            ),
            models.CheckConstraint(
                condition=Q(run_at__isnull=True) | Q(state=State.QUEUED), name="kanikojob_only_queued_waits"
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=HIGHEST_PRIORITY, priority__lte=LOWEST_PRIORITY),
                name="kanikojob_priority_1_to_10",
            ),
            models.CheckConstraint(condition=~Q(name=""), name="kanikojob_name_not_empty"),
        ]
        indexes = [
            # The claim reads this in order and never sees a row that is finished: its cost does not grow with history.
            models.Index(
                fields=["priority", "third_party_id", "id"],
                condition=Q(state=State.QUEUED, run_at__isnull=True, place__isnull=False, waits_for__isnull=True),
                name="kanikojob_due",
            ),
            models.Index(
                fields=["id"], condition=Q(state=State.QUEUED, place__isnull=True), name="kanikojob_without_place"
            ),
            models.Index(
                fields=["third_party_id", "parser_id", "place"],
                condition=Q(place__gt=0, state__in=UNFINISHED),
                name="kanikojob_lines",
            ),
            models.Index(fields=["third_party_id"], condition=Q(state__in=ACTIVE), name="kanikojob_active"),
            models.Index(
                fields=["third_party_id"],
                condition=Q(state=State.QUEUED, may_exist=True),
                name="kanikojob_keeps_its_place",
            ),
            models.Index(fields=["run_at"], condition=Q(run_at__isnull=False), name="kanikojob_waiting"),
            models.Index(fields=["leased_until"], condition=Q(state=State.CREATING), name="kanikojob_leases"),
            models.Index(
                fields=["cancel_requested_at"],
                condition=Q(cancel_requested_at__isnull=False, state__in=UNFINISHED),
                name="kanikojob_to_be_cancelled",
            ),
            models.Index(fields=["state", "id"], condition=~Q(state=State.SUCCEEDED), name="kanikojob_by_state"),
            models.Index(fields=["reason", "id"], condition=Q(state=State.FAILED), name="kanikojob_failed_for"),
            models.Index(fields=["third_party_id", "id"], name="kanikojob_of_third_party"),
            models.Index(fields=["job_uid"], condition=Q(job_uid__isnull=False), name="kanikojob_uid"),
            BrinIndex(fields=["queued_at"], name="kanikojob_queued"),
        ]

    def __str__(self) -> str:
        return self.name


class JobAttempt(models.Model):
    """One call to the Kubernetes API to create a Kaniko Job, numbered from 1.

    The row is written before the call, so that even a call whose worker was killed in it is on record.
    """

    class Outcome(models.TextChoices):
        STARTED = "started", "started"
        CREATED = "created", "created"
        ADOPTED = "adopted", "adopted: it was there already and is ours"
        RETRY = "retry", "failed, may be tried again"
        REFUSED = "refused", "refused, trying again cannot help"
        UNAVAILABLE = "unavailable", "the cluster could not be reached"
        LOST = "lost", "its worker was lost before the answer was recorded"

    id = models.BigAutoField(primary_key=True)
    kaniko_job = models.ForeignKey(KanikoJob, on_delete=models.CASCADE, related_name="attempts", db_index=False)
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.STARTED, db_default=Outcome.STARTED)
    http_status = models.PositiveSmallIntegerField("HTTP status", null=True, blank=True)
    reason = models.CharField(max_length=64, blank=True, db_default="")
    message = models.TextField(blank=True, db_default="")
    worker = models.CharField(max_length=128, blank=True, db_default="")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    duration = models.FloatField(null=True, blank=True, help_text="Seconds.")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kaniko_job", "number"], name="attempt_number_once_per_kanikojob"),
            models.CheckConstraint(condition=Q(number__gte=1), name="attempt_number_at_least_1"),
            models.CheckConstraint(
                condition=Q(outcome__in=["started", "created", "adopted", "retry", "refused", "unavailable", "lost"]),
                name="attempt_outcome_known",
            ),
            models.CheckConstraint(
                condition=Q(outcome="started", finished_at__isnull=True)
                | (~Q(outcome="started") & Q(finished_at__isnull=False)),
                name="attempt_finished_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(duration__isnull=True) | Q(duration__gte=0), name="attempt_duration_not_negative"
            ),
        ]
        indexes = [BrinIndex(fields=["started_at"], name="attempt_started")]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"
