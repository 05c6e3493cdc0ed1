"""The outbox of outcome events."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class OutcomeEvent(models.Model):
    """The outbox: that a Kaniko Job has finished is to be told, and when RabbitMQ had it.

    Written in the transaction that finishes the Kaniko Job, so that no outcome is told that is not so, and none is
    forgotten. What is told is made of the rows when it is published.
    """

    id = models.BigAutoField(primary_key=True)
    kaniko_job = models.OneToOneField("KanikoJob", on_delete=models.CASCADE, related_name="outcome_event")
    made_at = models.DateTimeField(db_default=Now())
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["id"], condition=Q(published_at__isnull=True), name="outcomeevent_to_publish")]

    def __str__(self) -> str:
        return f"outcome of {self.kaniko_job_id}"
