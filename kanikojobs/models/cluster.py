"""The state that all workers share: whether the cluster can be reached, and whose turn it is."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Outage(models.Model):
    """A time in which the Kubernetes API server could not be reached, or shed load for everybody.

    While one is ongoing nothing is claimed, by any cluster; one probe at a time finds out when it is over.
    """

    id = models.BigAutoField(primary_key=True)
    ongoing = models.BooleanField(default=True, db_default=True)
    reason = models.CharField(max_length=64)
    message = models.TextField(blank=True, db_default="")
    started_at = models.DateTimeField(db_default=Now())
    ended_at = models.DateTimeField(null=True, blank=True)
    next_probe_at = models.DateTimeField(db_default=Now())
    probes = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["ongoing"], condition=Q(ongoing=True), name="outage_one_at_a_time"),
            models.CheckConstraint(
                condition=Q(ongoing=True, ended_at__isnull=True) | Q(ongoing=False, ended_at__isnull=False),
                name="outage_ended_has_its_time",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason} since {self.started_at:%Y-%m-%d %H:%M}"


class Turn(models.Model):
    """Whose turn it was last among the third parties that wait with one priority: the next claim goes on from there."""

    priority = models.PositiveSmallIntegerField(primary_key=True)
    third_party_id = models.CharField("third party ID", max_length=128)

    def __str__(self) -> str:
        return f"{self.priority}: {self.third_party_id}"
