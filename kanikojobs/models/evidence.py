"""What Kubernetes knew of a Kaniko Job and will throw away, and where rows and cluster had come apart."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from kanikojobs.models.jobs import KanikoJob


class JobEvidence(models.Model):
    """What Kubernetes knew of a Kaniko Job and will throw away: written when it ends, with its logs soon after.

    A row without `captured_at` still waits for the logs and the Events, also after a restart of the watcher.
    """

    id = models.BigAutoField(primary_key=True)
    kaniko_job = models.OneToOneField(KanikoJob, on_delete=models.CASCADE, related_name="evidence")
    image_digest = models.CharField(max_length=71, blank=True, db_default="")
    exit_code = models.IntegerField(null=True, blank=True, help_text="Of the container that ended the build.")
    pods = models.JSONField(default=list, db_default=[], help_text="Each pod with the statuses of its containers.")
    events = models.JSONField(
        default=list, db_default=[], help_text="The Kubernetes Events about the Job and its pods."
    )
    noted_at = models.DateTimeField(db_default=Now())
    captured_at = models.DateTimeField(null=True, blank=True)
    missing = models.TextField(blank=True, db_default="", help_text="What could not be had, and why.")

    class Meta:
        verbose_name_plural = "job evidence"
        indexes = [
            models.Index(fields=["kaniko_job"], condition=Q(captured_at__isnull=True), name="evidence_to_be_captured"),
            models.Index(fields=["image_digest"], condition=~Q(image_digest=""), name="evidence_digest"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(image_digest="") | Q(image_digest__regex="^sha256:[0-9a-f]{64}$"),
                name="evidence_digest_is_one",
            )
        ]

    def __str__(self) -> str:
        return f"evidence of {self.kaniko_job_id}"


class ContainerLog(models.Model):
    """The end of one container's log, with known secrets struck out."""

    id = models.BigAutoField(primary_key=True)
    kaniko_job = models.ForeignKey(KanikoJob, on_delete=models.CASCADE, related_name="logs", db_index=False)
    pod = models.CharField(max_length=253)
    container = models.CharField(max_length=63)
    text = models.TextField()
    cut = models.BooleanField(default=False, db_default=False, help_text="Whether earlier lines were left out.")
    captured_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kaniko_job", "pod", "container"], name="containerlog_once"),
        ]

    def __str__(self) -> str:
        return f"{self.pod}/{self.container}"


class Drift(models.Model):
    """Where rows and cluster had come apart: found by the sweep, with what was done about it."""

    class Kind(models.TextChoices):
        JOB_VANISHED = "JobVanished", "the Job of an unfinished row is gone"
        NO_ROW = "NoRow", "a Job with our label has no row"
        STUCK_CREATING = "StuckCreating", "a row was left in creating, and its Job exists"
        CANCELLED_RUNS = "CancelledRuns", "a Job runs whose row is cancelled"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=32, choices=Kind)
    namespace = models.CharField(max_length=63)
    name = models.CharField(max_length=253, help_text="The Job's name in Kubernetes.")
    job_uid = models.CharField("Job UID", max_length=64, blank=True, db_default="")
    kaniko_job = models.ForeignKey(KanikoJob, null=True, blank=True, on_delete=models.CASCADE, related_name="drift")
    message = models.TextField(blank=True, db_default="")
    found_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name_plural = "drift"
        constraints = [
            # What is found again by the next sweep, or by the next watcher, is the same finding.
            models.UniqueConstraint(fields=["kind", "namespace", "name", "job_uid"], name="drift_found_once"),
            models.CheckConstraint(
                condition=Q(kind__in=["JobVanished", "NoRow", "StuckCreating", "CancelledRuns"]),
                name="drift_kind_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"
