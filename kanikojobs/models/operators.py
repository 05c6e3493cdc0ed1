"""What people have decided and done."""

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from kanikojobs.manifest.settings import profile_options


class BuildProfile(models.Model):
    """What an operator has decided for the builds of one third party, in place of the settings of the same names.

    Written as in the environment; an empty field leaves it to the setting.
    """

    id = models.BigAutoField(primary_key=True)
    third_party_id = models.CharField("third party ID", max_length=128, unique=True)
    destination = models.CharField(
        max_length=512,
        blank=True,
        default="",
        db_default="",
        help_text="As KANIKOJOBS_DESTINATION: a template for the image.",
    )
    resources = models.CharField(
        max_length=512,
        blank=True,
        default="",
        db_default="",
        help_text="As KANIKOJOBS_BUILD_RESOURCES, for example memory_limit=8Gi,cpu_limit=4.",
    )
    allowed_hosts = models.CharField(
        max_length=2048,
        blank=True,
        default="",
        db_default="",
        help_text="As KANIKOJOBS_ALLOWED_HOSTS, for example github.com/notifi,git.example.com:8443.",
    )
    max_active_jobs = models.PositiveIntegerField(
        null=True, blank=True, help_text="As KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY: 0 is no cap."
    )

    class Meta:
        constraints = [
            models.CheckConstraint(condition=~Q(third_party_id=""), name="buildprofile_names_its_third_party")
        ]

    def __str__(self) -> str:
        return self.third_party_id

    def clean(self) -> None:
        """Raises `ValidationError` by field, with the settings' own words."""
        try:
            profile_options(destination=self.destination, resources=self.resources, allowed_hosts=self.allowed_hosts)
        except ValueError as error:
            field, _, problem = str(error).partition(": ")
            if quantity := field.removeprefix("build_resources.") if "." in field else "":
                field, problem = "resources", f"{quantity}: {problem}"
            raise ValidationError({field: problem}) from None


class OperatorAction(models.Model):
    """What a person, or a rule that a person made, did, and why: append-only, in the transaction of what was done.

    Whether consuming is paused is what the last such action says: the audit and the state cannot differ. An action on
    one row names it as its target.
    """

    class Kind(models.TextChoices):
        PAUSE_CONSUMER = "pause-consumer", "paused consuming"
        RESUME_CONSUMER = "resume-consumer", "resumed consuming"
        RETRY_JOB = "retry-job", "retried a Kaniko Job"
        CANCEL_JOB = "cancel-job", "cancelled a Kaniko Job"
        REPLAY = "replay", "started a replay"
        EDIT_AND_REPLAY = "edit-and-replay", "mended and replayed a dead letter"
        PAUSE_REPLAY = "pause-replay", "paused a replay"
        RESUME_REPLAY = "resume-replay", "resumed a replay"
        CANCEL_REPLAY = "cancel-replay", "cancelled a replay"
        DISCARD = "discard", "discarded dead letters"
        RESTORE = "restore", "restored dead letters"
        NOTE_GROUP = "note-group", "took note of a failure group"
        CHANGE_RULE = "change-rule", "changed a replay rule"

    class Via(models.TextChoices):
        ADMIN = "admin", "admin"
        API = "api", "API"
        COMMAND = "command", "command line"
        RULE = "rule", "standing rule"

    id = models.BigAutoField(primary_key=True)
    kind = models.CharField(max_length=32, choices=Kind)
    by = models.CharField(max_length=150, help_text="User name; on the command line the system's.")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="operator_actions"
    )
    via = models.CharField(max_length=16, choices=Via)
    reason = models.CharField(max_length=500)
    at = models.DateTimeField(db_default=Now())
    target_type = models.CharField(
        max_length=64, blank=True, db_default="", help_text="The model's name in lower case; empty for the system."
    )
    target_id = models.CharField("target ID", max_length=64, blank=True, db_default="")
    outcome = models.CharField(max_length=64, default="done", db_default="done")
    detail = models.JSONField(default=dict, db_default={})

    class Meta:
        permissions = [("pause_consumer", "Can pause and resume consuming")]
        constraints = [
            models.CheckConstraint(
                condition=Q(
                    kind__in=[
                        "pause-consumer",
                        "resume-consumer",
                        "retry-job",
                        "cancel-job",
                        "replay",
                        "edit-and-replay",
                        "pause-replay",
                        "resume-replay",
                        "cancel-replay",
                        "discard",
                        "restore",
                        "note-group",
                        "change-rule",
                    ]
                ),
                name="operatoraction_kind_known",
            ),
            models.CheckConstraint(
                condition=Q(via__in=["admin", "api", "command", "rule"]), name="operatoraction_via_known"
            ),
            models.CheckConstraint(condition=~Q(by="") & ~Q(reason=""), name="operatoraction_says_who_and_why"),
        ]
        indexes = [
            models.Index(fields=["target_type", "target_id", "id"], name="operatoraction_by_target"),
            # Each consumer looks at the last one once a second.
            models.Index(
                fields=["-id"],
                condition=Q(kind__in=["pause-consumer", "resume-consumer"]),
                name="operatoraction_pauses",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.by} {self.get_kind_display()}"
