"""Finding an event by whatever id somebody has in hand: its own, a correlation's, a pod's name, a digest, a trace's.

Ids are compared whole, each by its index, so that a search costs the same at any length of history. What people paste
is forgiven: `job.batch/name`, the name of a pod, `image@sha256:…`, a traceparent, quotes and spaces around it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django.db import connection

from kanikojobs.models import DeadLetter, JobStartEvent, KanikoJob

MOST_CHARACTERS = 512
MOST_HITS = 50

_DIGEST = re.compile(r"(?:.*@)?(?:sha256:)?([0-9a-f]{64})", re.IGNORECASE)
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}", re.IGNORECASE)
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
# What the Job controller adds to a Job's name for a pod's (k8s.io/apimachinery, pkg/util/rand: no vowels).
_POD_SUFFIX = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}$")

# Each finds the ids of events, the newest first, and says by what.
_LOOKUPS = {
    "event ID": "SELECT id FROM kanikojobs_jobstartevent WHERE event_id = %(text)s",
    "correlation ID": "SELECT id FROM kanikojobs_jobstartevent WHERE correlation_id = %(text)s",
    "third party ID": "SELECT id FROM kanikojobs_jobstartevent WHERE third_party_id = %(text)s",
    "parser ID": "SELECT id FROM kanikojobs_jobstartevent WHERE parser_id = %(text)s",
    "job name": "SELECT id FROM kanikojobs_jobstartevent WHERE job_name = %(text)s",
    "trace ID": "SELECT id FROM kanikojobs_jobstartevent WHERE trace_id = %(trace_id)s AND trace_id <> ''",
    "Kubernetes name": "SELECT event_id AS id FROM kanikojobs_kanikojob WHERE name = ANY (%(names)s)",
    "Job UID": "SELECT event_id AS id FROM kanikojobs_kanikojob WHERE job_uid = %(uid)s",
    "image digest": """
        SELECT job.event_id AS id FROM kanikojobs_jobevidence evidence
        JOIN kanikojobs_kanikojob job ON job.id = evidence.kaniko_job_id
        WHERE evidence.image_digest = %(digest)s AND evidence.image_digest <> ''
    """,
}


@dataclass(frozen=True, slots=True)
class Hit:
    """An event, or a dead letter that became none, with by what it was found. `kind` is event or dead-letter."""

    kind: str
    id: int
    title: str
    found_as: tuple[str, ...]
    third_party_id: str
    parser_id: str
    at: datetime
    states: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """The hits, the newest first, and whether there are more than are told."""

    text: str
    hits: Sequence[Hit] = field(default_factory=list)
    more: bool = False


def find(text: str, *, events: bool = True, dead_letters: bool = True, most: int = MOST_HITS) -> Found:
    """Everything that has this id, as far as the caller may see events and dead letters."""
    text = tidied(text)
    if not text:
        return Found(text)
    hits = [*(_events(text, most=most + 1) if events else ()), *(_letters(text, most=most + 1) if dead_letters else ())]
    hits.sort(key=lambda hit: hit.at, reverse=True)
    return Found(text, hits[:most], more=len(hits) > most)


def tidied(text: str) -> str:
    """What was pasted, without what surrounds an id. Empty if it can be none."""
    text = text.strip().strip("\"'`,;").strip()
    text = re.sub(r"^(jobs?(\.batch)?|pods?)/", "", text)
    return "" if "\0" in text or len(text) > MOST_CHARACTERS else text


def event_ids(text: str, *, most: int = 1000) -> dict[int, tuple[str, ...]]:
    """The primary keys of the events that have this id, and by what each was found."""
    text = tidied(text)
    if not text:
        return {}
    digest, traceparent = _DIGEST.fullmatch(text), _TRACEPARENT.fullmatch(text)
    trace = traceparent[1] if traceparent else text if _TRACE_ID.fullmatch(text) else ""
    query = " UNION ALL ".join(
        # Of the literals above.
        f"(SELECT '{found_as}' AS found_as, found.id FROM ({lookup} ORDER BY id DESC LIMIT %(most)s) found)"  # noqa: S608
        for found_as, lookup in _LOOKUPS.items()
    )
    with connection.cursor() as cursor:
        cursor.execute(
            query,
            {
                "text": text,
                "trace_id": trace.lower(),
                "names": [text, _POD_SUFFIX.sub("", text)],
                "uid": _uid(text),
                "digest": f"sha256:{digest[1].lower()}" if digest else "",
                "most": most,
            },
        )
        found: dict[int, tuple[str, ...]] = {}
        for found_as, id in cursor.fetchall():
            found[id] = tuple(dict.fromkeys((*found.get(id, ()), found_as)))
    return dict(sorted(found.items(), reverse=True)[:most])


def _uid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _events(text: str, *, most: int) -> list[Hit]:
    found = event_ids(text, most=most)
    states: dict[int, list[str]] = {}
    for event, state in KanikoJob.objects.filter(event__in=found).order_by("number").values_list("event_id", "state"):
        states.setdefault(event, []).append(state)
    rows = JobStartEvent.objects.filter(pk__in=found).only("event_id", "third_party_id", "parser_id", "received_at")
    return [
        Hit(
            kind="event",
            id=event.pk,
            title=event.event_id,
            found_as=found[event.pk],
            third_party_id=event.third_party_id,
            parser_id=event.parser_id,
            at=event.received_at,
            states=tuple(states.get(event.pk, ())),
        )
        for event in rows
    ]


def _letters(text: str, *, most: int) -> list[Hit]:
    """Dead letters that never became an event: the others are on their event's page."""
    rows = (
        DeadLetter.objects.filter(ce_id=text, event__isnull=True)
        .exclude(ce_id="")
        .only("ce_id", "third_party_id", "parser_id", "first_died_at", "cause", "state")
        .order_by("-id")[:most]
    )
    return [
        Hit(
            kind="dead-letter",
            id=letter.pk,
            title=f"{letter.ce_id}: {letter.get_cause_display()}",
            found_as=("event ID",),
            third_party_id=letter.third_party_id,
            parser_id=letter.parser_id,
            at=letter.first_died_at,
            states=(letter.state,),
        )
        for letter in rows
    ]
