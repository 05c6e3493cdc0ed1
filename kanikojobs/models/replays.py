"""Runs that replay dead letters, and the standing rules that start them.

Here, too, every rule that must hold is a constraint: above all that a dead letter waits in one run at a time, whoever
starts how many.
"""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class ReplayRule(models.Model):
    """A standing order of a person: replay what died of passing trouble, later, slowly, and not for ever.

    Off by default. Each time it finds something it starts a run, on record like any other.
    """

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=128)
    enabled = models.BooleanField(default=False, db_default=False)
    transient_class = models.CharField(max_length=32, help_text="Of the groups that it replays.")
    delay = models.PositiveIntegerField(default=300, help_text="Seconds to wait after a death.")
    rate = models.FloatField(default=1.0, help_text="Dead letters per second.")
    max_failure_rate = models.FloatField(default=50.0, help_text="Percent that may fail again before it stops.")
    most_times = models.PositiveSmallIntegerField(
        default=3, help_text="Kaniko Jobs per event, the first included, after which a person has to look; at least 2."
    )
    made_by = models.CharField(max_length=150)
    reason = models.CharField(max_length=500)
    made_at = models.DateTimeField(db_default=Now())
    next_look_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name"], name="replayrule_name_once"),
            models.CheckConstraint(
                condition=Q(rate__gt=0, most_times__gte=2, max_failure_rate__gte=0, max_failure_rate__lte=100),
                name="replayrule_is_bounded",
            ),
            models.CheckConstraint(condition=~Q(made_by="") & ~Q(reason=""), name="replayrule_says_who_and_why"),
        ]

    def __str__(self) -> str:
        return self.name


class ReplayRun(models.Model):
    """One replay of many dead letters: what was chosen, how fast, by whom and why, and how far it is.

        running ──▶ probing ──▶ running ──▶ settling ──▶ finished
           │           │            │           │
           └───────────┴── paused ──┴───────────┘  and from each of them: cancelled

    running     items are taken, in order, at the rate
    probing     the first ones are out, and nothing more is taken until it is known what became of them
    settling    all are out; it is not yet known of each what became of it
    paused      by a person, or by itself because too many failed again
    """

    class State(models.TextChoices):
        RUNNING = "running", "running"
        PROBING = "probing", "waiting for its probe"
        SETTLING = "settling", "waiting for the last results"
        PAUSED = "paused", "paused"
        FINISHED = "finished", "finished"
        CANCELLED = "cancelled", "cancelled"

    LIVE = (State.RUNNING, State.PROBING, State.SETTLING)
    UNFINISHED = (*LIVE, State.PAUSED)

    id = models.BigAutoField(primary_key=True)
    state = models.CharField(max_length=16, choices=State, default=State.RUNNING, db_default=State.RUNNING)
    selection = models.JSONField(help_text="The filter that chose the dead letters.")
    cut_off = models.DateTimeField(help_text="Nothing that died after this is in it.")
    rate = models.FloatField(null=True, blank=True, help_text="Dead letters per second; empty for as fast as it goes.")
    batch = models.PositiveIntegerField(default=100, db_default=100, help_text="Dead letters per transaction at most.")
    probe = models.PositiveIntegerField(default=0, db_default=0, help_text="How many go first, to see.")
    max_failure_rate = models.FloatField(
        null=True, blank=True, help_text="Percent that may fail again before it pauses by itself."
    )
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="replay_runs"
    )
    author_name = models.CharField(max_length=150)
    rule = models.ForeignKey(ReplayRule, null=True, blank=True, on_delete=models.SET_NULL, related_name="runs")
    reason = models.CharField(max_length=500)
    note = models.CharField(max_length=500, blank=True, db_default="", help_text="Why it is paused.")
    started_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)
    next_step_at = models.DateTimeField(db_default=Now(), help_text="When it is due again.")
    settle_until = models.DateTimeField(null=True, blank=True, help_text="When it waits for results no longer.")
    looked_up_to = models.BigIntegerField(
        default=0, db_default=0, help_text="The last item that was looked at for its result; 0 before the first."
    )

    total = models.PositiveIntegerField(default=0, db_default=0)
    handled = models.PositiveIntegerField(default=0, db_default=0)
    queued = models.PositiveIntegerField(default=0, db_default=0)
    duplicate = models.PositiveIntegerField(default=0, db_default=0)
    already_built = models.PositiveIntegerField(default=0, db_default=0)
    active = models.PositiveIntegerField(default=0, db_default=0)
    invalid = models.PositiveIntegerField(default=0, db_default=0)
    not_ours = models.PositiveIntegerField(default=0, db_default=0)
    conflict = models.PositiveIntegerField(default=0, db_default=0)
    gone = models.PositiveIntegerField(default=0, db_default=0)
    withdrawn = models.PositiveIntegerField(default=0, db_default=0)
    passed = models.PositiveIntegerField(default=0, db_default=0, help_text="Of the queued: past where they died.")
    failed_again = models.PositiveIntegerField(default=0, db_default=0, help_text="Of the queued.")
    # What had failed and been judged when a person last resumed it: they knew, so it does not count again.
    forgiven_failures = models.PositiveIntegerField(default=0, db_default=0)
    forgiven_judged = models.PositiveIntegerField(default=0, db_default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["running", "probing", "settling", "paused", "finished", "cancelled"]),
                name="replayrun_state_known",
            ),
            models.CheckConstraint(
                condition=Q(state__in=["finished", "cancelled"], finished_at__isnull=False)
                | (~Q(state__in=["finished", "cancelled"]) & Q(finished_at__isnull=True)),
                name="replayrun_finished_has_its_time",
            ),
            models.CheckConstraint(condition=~Q(author_name="") & ~Q(reason=""), name="replayrun_says_who_and_why"),
            models.CheckConstraint(condition=Q(rate__isnull=True) | Q(rate__gt=0), name="replayrun_rate_above_0"),
            models.CheckConstraint(condition=Q(batch__gte=1), name="replayrun_batch_at_least_1"),
        ]
        indexes = [
            # How the queue finds what is due: as small as what is going on.
            models.Index(
                fields=["next_step_at"],
                condition=Q(state__in=["running", "probing", "settling"]),
                name="replayrun_due",
            ),
        ]

    def __str__(self) -> str:
        return f"replay {self.pk} by {self.author_name}"

    @property
    def is_live(self) -> bool:
        return self.state in self.LIVE

    @property
    def is_unfinished(self) -> bool:
        return self.state in self.UNFINISHED

    @property
    def failures(self) -> int:
        """What failed again, at the door or as a Kaniko Job."""
        return self.invalid + self.not_ours + self.conflict + self.failed_again

    @property
    def judged(self) -> int:
        """Of how many it is known whether they failed again."""
        return self.failures + self.passed

    @property
    def percent_handled(self) -> int:
        return 100 if not self.total else 100 * self.handled // self.total


class ReplayItem(models.Model):
    """One dead letter in one run, and what came of it: the lineage from the letter to what the replay made."""

    class Outcome(models.TextChoices):
        PENDING = "pending", "waits"
        QUEUED = "queued", "queued"
        DUPLICATE = "duplicate", "same event as another one in this run"
        ALREADY_BUILT = "already-built", "built already"
        ACTIVE = "active", "has an active Job"
        INVALID = "invalid", "still invalid"
        NOT_OURS = "not-ours", "not for this system"
        CONFLICT = "conflict", "identity taken by other content"
        GONE = "gone", "settled by somebody else meanwhile"
        WITHDRAWN = "withdrawn", "run cancelled before its turn"

    class Result(models.TextChoices):
        UNKNOWN = "", "not known yet"
        PASSED = "passed", "got past where it died"
        FAILED_AGAIN = "failed-again", "failed again"
        CANCELLED = "cancelled", "cancelled"

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(ReplayRun, on_delete=models.CASCADE, related_name="items", db_index=False)
    letter = models.ForeignKey(
        "kanikojobs.DeadLetter", on_delete=models.CASCADE, related_name="replay_items", db_index=True
    )
    position = models.PositiveIntegerField(help_text="In the order of first arrival, from 1.")
    body = models.BinaryField(null=True, blank=True, help_text="As a person mended it; the letter keeps the original.")
    outcome = models.CharField(max_length=16, choices=Outcome, default=Outcome.PENDING, db_default=Outcome.PENDING)
    result = models.CharField(max_length=16, choices=Result, blank=True, default="", db_default="")
    detail = models.TextField(blank=True, db_default="")
    event = models.ForeignKey(
        "kanikojobs.JobStartEvent", null=True, blank=True, on_delete=models.SET_NULL, related_name="replay_items"
    )
    kaniko_job = models.ForeignKey(
        "kanikojobs.KanikoJob", null=True, blank=True, on_delete=models.SET_NULL, related_name="replay_items"
    )
    at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "position"], name="replayitem_position_once"),
            models.UniqueConstraint(
                fields=["letter"], condition=Q(outcome="pending"), name="replayitem_letter_waits_in_one_run"
            ),
            models.CheckConstraint(
                condition=Q(outcome="pending", at__isnull=True) | (~Q(outcome="pending") & Q(at__isnull=False)),
                name="replayitem_handled_has_its_time",
            ),
            models.CheckConstraint(
                condition=Q(
                    outcome__in=[
                        "pending",
                        "queued",
                        "duplicate",
                        "already-built",
                        "active",
                        "invalid",
                        "not-ours",
                        "conflict",
                        "gone",
                        "withdrawn",
                    ]
                ),
                name="replayitem_outcome_known",
            ),
            models.CheckConstraint(
                condition=Q(result__in=["", "passed", "failed-again", "cancelled"]), name="replayitem_result_known"
            ),
        ]
        indexes = [
            models.Index(fields=["run", "position"], condition=Q(outcome="pending"), name="replayitem_pending"),
            models.Index(fields=["run", "id"], condition=Q(outcome="queued", result=""), name="replayitem_unsettled"),
        ]

    def __str__(self) -> str:
        return f"{self.position}: {self.outcome}"
