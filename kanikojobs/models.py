"""The rows: what was asked for, what is built for it, each try to create it, and what could not be used.

The database guards the truth. Every rule that must hold is a constraint here, so that no code path, shell or other
version of this software can write a row that cannot be; `tests/test_constraints.py` tries each past the ORM.
Defaults live in the database too (`db_default`), because the hot paths write with SQL of their own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import BrinIndex, HashIndex
from django.core.exceptions import ValidationError
from django.db import connection, models
from django.db.models import F, Q
from django.db.models.functions import Now

from kanikojobs import lines
from kanikojobs.manifest.settings import profile_options
from kanikojobs.states import ACTIVE, FINISHED, HAS_A_UID, TRANSITIONS, UNFINISHED, State
from kanikojobs.storable import printable

HIGHEST_PRIORITY, LOWEST_PRIORITY = 1, 10


class JobStartEvent(models.Model):
    """A job start event as it arrived: append-only, but for the count of how often it was seen again.

    Its identity is CloudEvents' own, (`source`, `event_id`) (CloudEvents 1.0.2, section 3.1.1).
    """

    class Origin(models.TextChoices):
        QUEUE = "queue", "RabbitMQ"
        DIRECT = "direct", "HTTP"
        REPLAY = "replay", "replay of a dead letter"

    id = models.BigAutoField(primary_key=True)
    event_id = models.CharField("event ID", max_length=256, help_text="CloudEvents attribute `id`.")
    source = models.CharField(max_length=512, help_text="CloudEvents attribute `source`.")
    type = models.CharField(max_length=256, help_text="CloudEvents attribute `type`.")
    specversion = models.CharField(max_length=8)
    subject = models.CharField(max_length=512, blank=True)
    time = models.DateTimeField(null=True, blank=True, help_text="When the sender says that it happened.")
    datacontenttype = models.CharField(max_length=256, blank=True)
    dataschema = models.CharField(max_length=2048, blank=True)
    extensions = models.JSONField(default=dict, db_default={}, help_text="CloudEvents extension attributes.")
    data = models.JSONField(help_text="All that was sent as `data`, unknown fields too.")

    third_party_id = models.CharField("third party ID", max_length=128)
    parser_id = models.CharField("parser ID", max_length=128)
    correlation_id = models.CharField("correlation ID", max_length=256)
    job_name = models.CharField(max_length=256, help_text="As asked for; Kubernetes sees a name that fits.")
    priority = models.PositiveSmallIntegerField(help_text="1 is the most urgent, 10 the least.")
    build_type = models.CharField(max_length=64)
    runtime = models.CharField(max_length=64, blank=True)
    source_url = models.CharField("source URL", max_length=2048, blank=True)
    build_timeout = models.PositiveIntegerField(help_text="Seconds.")

    content_hash = models.BinaryField(max_length=32, help_text="SHA-256 of what was asked for.")
    origin = models.CharField(max_length=16, choices=Origin)
    traceparent = models.CharField(max_length=64, blank=True, db_default="")
    trace_id = models.CharField("trace ID", max_length=32, blank=True, db_default="")
    received_at = models.DateTimeField(db_default=Now())
    times_seen = models.PositiveIntegerField(
        default=1, db_default=1, help_text="How often it was handed over, the first time included."
    )
    last_seen_at = models.DateTimeField(db_default=Now())

    class Meta:
        verbose_name = "job start event"
        constraints = [
            # The id first, so that an event is also found by its id alone.
            models.UniqueConstraint(fields=["event_id", "source"], name="event_identity"),
            models.CheckConstraint(
                condition=~Q(source="") & ~Q(event_id="") & ~Q(type=""), name="event_identity_not_empty"
            ),
            models.CheckConstraint(
                condition=Q(priority__gte=HIGHEST_PRIORITY, priority__lte=LOWEST_PRIORITY),
                name="event_priority_1_to_10",
            ),
            models.CheckConstraint(condition=Q(build_timeout__gte=1), name="event_build_timeout_at_least_1s"),
            models.CheckConstraint(condition=Q(origin__in=["queue", "direct", "replay"]), name="event_origin_known"),
            models.CheckConstraint(condition=Q(times_seen__gte=1), name="event_times_seen_at_least_1"),
        ]
        indexes = [
            # With the id, so that the newest of a third party are at the index's end: without it the planner takes a
            # walk down the whole primary key for cheaper than sorting them.
            models.Index(fields=["third_party_id", "id"], name="event_of_third_party"),
            models.Index(fields=["parser_id", "id"], name="event_of_parser"),
            models.Index(fields=["correlation_id"], name="event_correlation"),
            models.Index(fields=["trace_id"], condition=~Q(trace_id=""), name="event_trace"),
            HashIndex(fields=["job_name"], name="event_job_name"),
            models.Index(fields=["origin", "id"], condition=~Q(origin="queue"), name="event_not_from_queue"),
            # In the order of arrival, so that a block range is a stretch of time.
            BrinIndex(fields=["received_at"], name="event_received"),
        ]

    def __str__(self) -> str:
        return self.event_id


@dataclass(frozen=True, slots=True)
class Move:
    """One step of a Kaniko Job to another state, with what is learned on the way.

    `claim` restricts it to a row that is still claimed under that token: a worker whose lease ran out moves nothing.
    `run_at` is when a row that goes back to `queued` is due again. `spend_retry` counts it against MAX_RETRIES.
    `may_exist` says of one that goes back that its Job may be in the cluster all the same.
    `at` is when it happened in Kubernetes, which counts where we learn of it late. `node` is where the pod runs.
    """

    id: int
    to: State
    reason: str = ""
    message: str = ""
    job_uid: UUID | None = None
    claim: UUID | None = None
    run_at: datetime | None = None
    spend_retry: bool = False
    may_exist: bool = False
    at: datetime | None = None
    node: str = ""


class KanikoJobQuerySet(models.QuerySet["KanikoJob"]):
    def unfinished(self) -> "KanikoJobQuerySet":
        return self.filter(state__in=UNFINISHED)

    def move(self, moves: Iterable[Move]) -> set[int]:
        """Move Kaniko Jobs by compare-and-swap, in one statement; return the ids of those that moved.

        A row that is missing from the answer was not in a state that allows the move (or not under the claim
        that was named): somebody else moved it first, and what they found stands.
        """
        # One order for everybody: two that move the same rows the other way round would deadlock.
        moves = sorted(moves, key=lambda move: move.id)
        if not moves:
            return set()
        allowed = [f"{old}>{new}" for old, targets in TRANSITIONS.items() for new in targets]
        with connection.cursor() as cursor:
            # The test of the old state is in the UPDATE's WHERE, not before it: two workers, a watcher and an
            # operator can all reach this row at once, and PostgreSQL rechecks WHERE after waiting for a lock.
            cursor.execute(
                """
                UPDATE kanikojobs_kanikojob job SET
                    state = move.new_state,
                    -- Why it is to be cancelled is not forgotten on the way there.
                    reason = CASE WHEN job.cancel_requested_at IS NOT NULL AND move.new_state <> ALL (%s)
                        THEN job.reason ELSE move.reason END,
                    message = CASE WHEN job.cancel_requested_at IS NOT NULL AND move.new_state <> ALL (%s)
                        THEN job.message ELSE move.message END,
                    job_uid = COALESCE(move.job_uid, job.job_uid),
                    retries_used = job.retries_used + move.spend_retry::int,
                    run_at = CASE WHEN move.new_state = 'queued' THEN move.run_at END,
                    may_exist = move.new_state = 'queued' AND (job.may_exist OR move.may_exist),
                    claim = CASE WHEN move.new_state = 'creating' THEN job.claim END,
                    leased_until = CASE WHEN move.new_state = 'creating' THEN job.leased_until END,
                    created_at = CASE
                        WHEN move.new_state IN ('created', 'running', 'succeeded')
                        THEN COALESCE(job.created_at, clock_timestamp()) ELSE job.created_at END,
                    node = COALESCE(NULLIF(move.node, ''), job.node),
                    running_at = CASE
                        WHEN move.new_state = 'running'
                        THEN COALESCE(job.running_at, happened.at) ELSE job.running_at END,
                    finished_at = CASE
                        WHEN move.new_state IN ('succeeded', 'failed', 'cancelled') THEN happened.at END
                FROM unnest(
                    %s::bigint[], %s::text[], %s::text[], %s::text[], %s::uuid[], %s::uuid[],
                    %s::timestamptz[], %s::boolean[], %s::boolean[], %s::timestamptz[], %s::text[]
                ) AS move (id, new_state, reason, message, job_uid, claim, run_at, spend_retry, may_exist, at, node)
                -- Kubernetes writes whole seconds, so its time counts only where we learn of it later than that.
                CROSS JOIN LATERAL (
                    SELECT CASE WHEN move.at < clock_timestamp() - interval '5 seconds'
                                THEN move.at ELSE clock_timestamp() END AS at
                ) happened
                WHERE job.id = move.id
                  AND job.state || '>' || move.new_state = ANY (%s)
                  AND (move.claim IS NULL OR job.claim = move.claim)
                RETURNING job.id, job.finished_at IS NOT NULL, job.place > 0
                """,
                [
                    list(FINISHED),
                    list(FINISHED),
                    [move.id for move in moves],
                    [move.to.value for move in moves],
                    # Much of it is somebody else's words, of which one NUL would fail the moves of all.
                    [printable(move.reason)[:64] for move in moves],
                    [printable(move.message) for move in moves],
                    [move.job_uid for move in moves],
                    [move.claim for move in moves],
                    [move.run_at for move in moves],
                    [move.spend_retry for move in moves],
                    [move.may_exist for move in moves],
                    [move.at for move in moves],
                    [move.node for move in moves],
                    allowed,
                ],
            )
            rows = cursor.fetchall()
        lines.move_up({id for id, finished, in_a_line in rows if finished and in_a_line})
        if settings.KANIKOJOBS_OUTCOME_EVENTS:
            OutcomeEvent.objects.bulk_create([OutcomeEvent(kaniko_job_id=id) for id, finished, _ in rows if finished])
        return {id for id, _, _ in rows}

    def note_waits(self, reasons: Mapping[int, tuple[str, str]]) -> None:
        """Say why Jobs that are in Kubernetes wait: a (reason, message) by id, both empty when they do no more."""
        ids = sorted(reasons)
        if not ids:
            return
        with connection.cursor() as cursor:
            cursor.execute(
                """
                UPDATE kanikojobs_kanikojob job SET reason = why.reason, message = why.message
                FROM unnest(%s::bigint[], %s::text[], %s::text[]) AS why (id, reason, message)
                WHERE job.id = why.id AND job.state IN ('created', 'running')
                """,
                [ids, [reasons[id][0] for id in ids], [reasons[id][1] for id in ids]],
            )


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
        ]

    def __str__(self) -> str:
        return f"{self.get_cause_display()}: {self.reason[:80]}"


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


class OutcomeEvent(models.Model):
    """The outbox: that a Kaniko Job has finished is to be told, and when RabbitMQ had it.

    Written in the transaction that finishes the Kaniko Job, so that no outcome is told that is not so, and none is
    forgotten. What is told is made of the rows when it is published.
    """

    id = models.BigAutoField(primary_key=True)
    kaniko_job = models.OneToOneField(KanikoJob, on_delete=models.CASCADE, related_name="outcome_event")
    made_at = models.DateTimeField(db_default=Now())
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["id"], condition=Q(published_at__isnull=True), name="outcomeevent_to_publish")]

    def __str__(self) -> str:
        return f"outcome of {self.kaniko_job_id}"


# A module of their own, of which Django learns here.
from kanikojobs.replay_models import (  # noqa: E402
    FailureGroup,  # noqa: F401
    FailureGroupHour,  # noqa: F401
    ReplayItem,  # noqa: F401
    ReplayRule,  # noqa: F401
    ReplayRun,  # noqa: F401
)
