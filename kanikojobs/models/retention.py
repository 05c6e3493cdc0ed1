"""The row of one run of pruning: how far it is, and what it has removed.

Each batch writes it in the transaction of its deletes, so it is right at any moment in which the process may end.
"""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class PruneRun(models.Model):
    """One run over all kinds of rows. It is at rows of `kind` behind the id `after`."""

    id = models.BigAutoField(primary_key=True)
    ongoing = models.BooleanField(default=True, db_default=True)
    kind = models.CharField(max_length=32, blank=True, db_default="", help_text="Where it is; empty at the beginning.")
    after = models.BigIntegerField(default=0, db_default=0, help_text="The last id that it has looked at.")
    removed = models.JSONField(default=dict, db_default={}, help_text="How many rows of each kind.")
    started_at = models.DateTimeField(db_default=Now())
    last_batch_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["ongoing"], condition=Q(ongoing=True), name="prunerun_one_at_a_time"),
            models.CheckConstraint(
                condition=Q(ongoing=True, finished_at__isnull=True) | Q(ongoing=False, finished_at__isnull=False),
                name="prunerun_finished_has_its_time",
            ),
        ]

    def __str__(self) -> str:
        return f"pruning since {self.started_at:%Y-%m-%d %H:%M}"
