"""What could not be used, with all the evidence."""

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now

from kanikojobs.models.events import JobStartEvent
from kanikojobs.models.jobs import KanikoJob


class DeadLetter(models.Model):
    """What could not be used, with all the evidence: the body to the byte, the headers, why, and how often.

    The same message that dies again for the same cause while the letter is open is the same letter, seen once more:
    a redelivery after a lost acknowledgement adds no row.
    """

    class Cause(models.TextChoices):
        INVALID = "invalid", "invalid event"
        EXPIRED = "expired", "expired in the queue"
        MAXLEN = "maxlen", "dropped from a full queue"
        DELIVERY_LIMIT = "delivery-limit", "delivered too often"
        REJECTED = "rejected", "rejected by a consumer"
        CREATION_FAILED = "creation-failed", "its Job could not be created"
        BUILD_FAILED = "build-failed", "its build failed"
        IDENTITY_CONFLICT = "identity-conflict", "same identity, other content"
        UNDELIVERED = "undelivered", "Knative could not deliver it"

    class State(models.TextChoices):
        OPEN = "open", "open"
        REPLAYED = "replayed", "replayed"
        DISCARDED = "discarded", "discarded"

    id = models.BigAutoField(primary_key=True)
    cause = models.CharField(max_length=32, choices=Cause)
    state = models.CharField(max_length=16, choices=State, default=State.OPEN, db_default=State.OPEN)
    origin = models.CharField(max_length=16, choices=JobStartEvent.Origin)
    reason = models.TextField(help_text="What is wrong, and where.")
    faults = models.JSONField(default=list, db_default=[], help_text="Each fault with its JSON path.")
    fingerprint = models.CharField(max_length=64, help_text="Equal for deaths of one cause.")

    body = models.BinaryField(help_text="As received.")
    content_type = models.CharField(max_length=256, blank=True, db_default="")
    headers = models.JSONField(default=dict, db_default={})
    properties = models.JSONField(default=dict, db_default={}, help_text="AMQP properties, or the HTTP request.")
    message_hash = models.BinaryField(
        max_length=32, help_text="SHA-256 of the body, the content type and the event's attributes in the headers."
    )

    ce_source = models.CharField(
        "source", max_length=512, blank=True, db_default="", help_text="As far as it could be read."
    )
    ce_id = models.CharField(
        "event ID", max_length=256, blank=True, db_default="", help_text="As far as it could be read."
    )
    third_party_id = models.CharField(
        "third party ID", max_length=128, blank=True, db_default="", help_text="As far as it could be read."
    )
    parser_id = models.CharField(
        "parser ID", max_length=128, blank=True, db_default="", help_text="As far as it could be read."
    )
    arrived_at = models.DateTimeField(db_default=Now(), help_text="When what it asks for was first handed over.")
    event = models.ForeignKey(
        JobStartEvent, null=True, blank=True, on_delete=models.SET_NULL, related_name="dead_letters"
    )
    kaniko_job = models.OneToOneField(
        KanikoJob, null=True, blank=True, on_delete=models.SET_NULL, related_name="dead_letter"
    )
    replayed_as = models.ForeignKey(
        JobStartEvent, null=True, blank=True, on_delete=models.SET_NULL, related_name="replayed_from"
    )
    replayed_as_job = models.ForeignKey(
        KanikoJob,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="replayed_from",
        db_index=False,
        help_text="The Kaniko Job that the replay queued or found, or that a retry by hand queued.",
    )
    times_seen = models.PositiveIntegerField(default=1, db_default=1)
    first_died_at = models.DateTimeField(db_default=Now())
    last_died_at = models.DateTimeField(db_default=Now())
    settled_at = models.DateTimeField(null=True, blank=True, help_text="When it was replayed or discarded.")

    class Meta:
        permissions = [
            ("replay_deadletter", "Can replay dead letters, and pause, resume and cancel replays"),
            ("edit_deadletter", "Can mend the body of a dead letter for its replay"),
            ("discard_deadletter", "Can discard and restore dead letters"),
            ("view_secrets_deadletter", "Can see secrets in dead letters"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["message_hash", "cause", "origin"],
                condition=Q(state="open", kaniko_job__isnull=True),
                name="deadletter_open_once",
            ),
            models.CheckConstraint(
                condition=Q(
                    cause__in=[
                        "invalid",
                        "expired",
                        "maxlen",
                        "delivery-limit",
                        "rejected",
                        "creation-failed",
                        "build-failed",
                        "identity-conflict",
                        "undelivered",
                    ]
                ),
                name="deadletter_cause_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["open", "replayed", "discarded"]), name="deadletter_state_known"
            ),
            models.CheckConstraint(condition=Q(times_seen__gte=1), name="deadletter_times_seen_at_least_1"),
            models.CheckConstraint(
                condition=Q(last_died_at__gte=F("first_died_at")), name="deadletter_dies_forward_in_time"
            ),
        ]
        indexes = [
            models.Index(fields=["state", "last_died_at"], name="deadletter_by_state"),
            models.Index(fields=["fingerprint", "last_died_at"], name="deadletter_by_fingerprint"),
            models.Index(fields=["ce_id"], condition=~Q(ce_id=""), name="deadletter_event_id"),
            # What is replayed is chosen from the open ones, in the order of first arrival.
            models.Index(fields=["arrived_at", "id"], condition=Q(state="open"), name="deadletter_open"),
            models.Index(
                fields=["fingerprint", "arrived_at", "id"], condition=Q(state="open"), name="deadletter_open_of_group"
            ),
            models.Index(
                fields=["third_party_id", "parser_id", "arrived_at"],
                condition=~Q(third_party_id=""),
                name="deadletter_of_third_party",
            ),
            models.Index(fields=["parser_id"], condition=~Q(parser_id=""), name="deadletter_of_parser"),
            models.Index(
                fields=["replayed_as_job"],
                condition=Q(replayed_as_job__isnull=False),
                name="deadletter_replayed_as_job",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_cause_display()}: {self.reason[:80]}"
