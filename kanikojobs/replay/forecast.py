"""What a replay would make of a dead letter: the one piece of code that a plan and a run both ask.

The letter of a failed creation or build is about an event that is recorded: it gets the event's next Kaniko Job. Any
other letter is read as intake reads it, and becomes a new event unless its identity is there already.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import connection

from kanikojobs import intake
from kanikojobs.cloudevent import StartEvent
from kanikojobs.errors import Fault, InvalidEvent, NotOurs
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent, ReplayItem
from kanikojobs.states import UNFINISHED, State

Outcome = ReplayItem.Outcome
Identity = tuple[str, str]

ABOUT_A_KANIKO_JOB = (DeadLetter.Cause.CREATION_FAILED, DeadLetter.Cause.BUILD_FAILED)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What counts of a dead letter for its replay. `mended` is a body that a person has put in its place."""

    letter_id: int
    cause: str
    fingerprint: str
    origin: str
    content_type: str
    headers: Mapping[str, Any]
    event_id: int | None
    mended: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event that is there, with its last Kaniko Job; number 0 if it has none."""

    id: int
    source: str
    event_id: str
    content_hash: bytes
    job_name: str
    third_party_id: str
    parser_id: str
    last_number: int
    last_state: str
    last_job_id: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay makes of one letter. Queued is either a `new` event or the next Kaniko Job of a `recorded` one."""

    candidate: Candidate
    outcome: ReplayItem.Outcome
    faults: tuple[Fault, ...] = ()
    new: StartEvent | None = None
    recorded: Recorded | None = None

    @property
    def detail(self) -> str:
        return "\n".join(map(str, self.faults))

    @property
    def parser(self) -> tuple[str, str]:
        """The third party and parser within which the order of first arrival is kept."""
        source = self.new or self.recorded
        return (source.third_party_id, source.parser_id) if source else ("", "")


@dataclass(slots=True)
class Ahead:
    """What goes ahead in the same replay: a second letter of the same event is no second build of it."""

    identities: dict[Identity, bytes] = field(default_factory=dict)
    events: set[int] = field(default_factory=set)


def candidates(letters: Sequence[int], *, mended: Mapping[int, bytes] | None = None) -> list[Candidate]:
    """The candidates of these letters, by id, in the given order; one that is gone is left out."""
    mended = mended or {}
    rows = {row.pk: row for row in DeadLetter.objects.filter(pk__in=letters).defer("body", "properties", "faults")}
    return [
        Candidate(
            letter_id=id,
            cause=rows[id].cause,
            fingerprint=rows[id].fingerprint,
            origin=rows[id].origin,
            content_type=rows[id].content_type,
            headers=rows[id].headers,
            event_id=rows[id].event_id,
            mended=mended.get(id),
        )
        for id in letters
        if id in rows
    ]


def foresee(
    candidates: Sequence[Candidate],
    *,
    ahead: Ahead,
    in_run: Callable[[Collection[int]], set[int]] = lambda events: set(),
) -> list[Verdict]:
    """Say of each candidate, in order, what comes of it, and add it to what goes ahead.

    `in_run` says which of some events the same run has queued before.
    """
    readings = _read([candidate for candidate in candidates if not _is_about_a_job(candidate)])
    identities = [
        (reading.source, reading.event_id) for reading in readings.values() if isinstance(reading, StartEvent)
    ]
    recorded = _recorded(
        ids=[candidate.event_id for candidate in candidates if candidate.event_id is not None], identities=identities
    )
    by_id = {event.id: event for event in recorded}
    by_identity = {(event.source, event.event_id): event for event in recorded}
    ahead.events |= in_run(list(by_id))

    verdicts: list[Verdict] = []
    for candidate in candidates:
        reading = readings.get(candidate.letter_id)
        if isinstance(reading, InvalidEvent):
            verdict = Verdict(candidate, Outcome.INVALID, reading.faults)
        elif isinstance(reading, NotOurs):
            verdict = Verdict(candidate, Outcome.NOT_OURS, (Fault("", str(reading)),))
        elif isinstance(reading, StartEvent):
            event = by_identity.get((reading.source, reading.event_id))
            verdict = (
                _of_new(candidate, reading, ahead)
                if event is None
                else _of_recorded(candidate, event, ahead, reading=reading)
            )
        elif candidate.event_id in by_id:
            verdict = _of_recorded(candidate, by_id[candidate.event_id], ahead)
        else:
            verdict = Verdict(candidate, Outcome.INVALID, (Fault("", "the event that it was about is gone"),))
        verdicts.append(verdict)
    return verdicts


def _is_about_a_job(candidate: Candidate) -> bool:
    return candidate.cause in ABOUT_A_KANIKO_JOB and candidate.event_id is not None and candidate.mended is None


def _read(candidates: Sequence[Candidate]) -> dict[int, intake.Reading]:
    """Each letter's body, or what a person made of it, read as intake reads what comes by that way."""
    stored = [candidate.letter_id for candidate in candidates if candidate.mended is None]
    bodies = {id: bytes(body) for id, body in DeadLetter.objects.filter(pk__in=stored).values_list("id", "body")}
    readings: dict[int, intake.Reading] = {}
    for origin in JobStartEvent.Origin:
        batch = [
            (candidate, candidate.mended if candidate.mended is not None else bodies[candidate.letter_id])
            for candidate in candidates
            if candidate.origin == origin and (candidate.mended is not None or candidate.letter_id in bodies)
        ]
        messages = [Message(body, candidate.content_type or None, candidate.headers, {}) for candidate, body in batch]
        for (candidate, _), reading in zip(batch, intake.read(messages, origin=origin), strict=True):
            readings[candidate.letter_id] = reading
    return readings


CONFLICT = Fault(
    "id",
    "an event with this source and id but with other content is recorded. Give it an id of its own "
    "(CloudEvents 1.0.2, section 3.1.1)",
)


def _of_new(candidate: Candidate, reading: StartEvent, ahead: Ahead) -> Verdict:
    identity = (reading.source, reading.event_id)
    before = ahead.identities.get(identity)
    if before is None:
        ahead.identities[identity] = reading.content_hash
        return Verdict(candidate, Outcome.QUEUED, new=reading)
    if before == reading.content_hash:
        return Verdict(candidate, Outcome.DUPLICATE, new=reading)
    return Verdict(candidate, Outcome.CONFLICT, (CONFLICT,))


def _of_recorded(candidate: Candidate, event: Recorded, ahead: Ahead, *, reading: StartEvent | None = None) -> Verdict:
    if reading is not None and reading.content_hash != event.content_hash:
        return Verdict(candidate, Outcome.CONFLICT, (CONFLICT,), recorded=event)
    if event.id in ahead.events:
        return Verdict(candidate, Outcome.DUPLICATE, recorded=event)
    if event.last_state in UNFINISHED:
        return Verdict(candidate, Outcome.ACTIVE, recorded=event)
    if event.last_state == State.SUCCEEDED:
        return Verdict(candidate, Outcome.ALREADY_BUILT, recorded=event)
    ahead.events.add(event.id)
    return Verdict(candidate, Outcome.QUEUED, recorded=event)


def _recorded(*, ids: Sequence[int], identities: Sequence[Identity]) -> list[Recorded]:
    """The events with these ids or identities, each with its last Kaniko Job."""
    with connection.cursor() as cursor:
        cursor.execute(
            """
            WITH wanted AS (
                SELECT id FROM unnest(%s::bigint[]) AS id
                UNION
                SELECT event.id FROM unnest(%s::text[], %s::text[]) AS given (source, event_id)
                JOIN kanikojobs_jobstartevent event USING (source, event_id)
            )
            SELECT event.id, event.source, event.event_id, event.content_hash, event.job_name, event.third_party_id,
                   event.parser_id, COALESCE(job.number, 0), COALESCE(job.state, ''), job.id
            FROM wanted JOIN kanikojobs_jobstartevent event USING (id)
            LEFT JOIN LATERAL (
                SELECT id, number, state FROM kanikojobs_kanikojob
                WHERE event_id = event.id ORDER BY number DESC LIMIT 1
            ) job ON true
            """,
            [list(ids), [source for source, _ in identities], [event_id for _, event_id in identities]],
        )
        return [
            Recorded(id, source, event_id, bytes(content_hash), *rest)
            for id, source, event_id, content_hash, *rest in cursor.fetchall()
        ]
