"""What the demo sends, and what must come of it: 200 messages through RabbitMQ and 20 over HTTP.

Pure. Each kind says what one message of it comes to; the demo adds that up and holds the database and the
cluster against the sum.
"""

import itertools
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from cloudevents.core.bindings.rabbitmq import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.sample_events import sample_event

QUEUE_TOTAL, HTTP_TOTAL = 200, 20

Json = dict[str, Any]
Rule = TypeVar("Rule")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of message, and what each one of it comes to. None means that more than one number is right."""

    name: str
    recorded: int = 0
    duplicates: int = 0
    dead_letters: int = 0
    jobs_created: int = 0
    jobs_failed: int = 0
    retried: int | None = 0


VALID = Kind("valid", recorded=1, jobs_created=1)
BINARY = Kind("valid, binary mode", recorded=1, jobs_created=1)
AGAIN = Kind("sent again", duplicates=1)
CHANGED = Kind("id taken", dead_letters=1)
NOT_JSON = Kind("not JSON", dead_letters=1)
INCOMPLETE = Kind("fields missing", dead_letters=1)
FORBIDDEN_SOURCE = Kind("source not allowed", recorded=1, dead_letters=1, jobs_failed=1)
REFUSED = Kind("refused by the API", recorded=1, dead_letters=1, jobs_failed=1)
BUSY = Kind("API busy: 429, 500", recorded=1, jobs_created=1, retried=1)
# Who finds out first that the Job is there: the next try, or the watcher.
ANSWER_LOST = Kind("create unanswered", recorded=1, jobs_created=1, retried=None)
BUILD_FAILS = Kind("build fails", recorded=1, dead_letters=1, jobs_created=1, jobs_failed=1)
# Of one third party, and unfinished for as long as the demo is up.
STILL_BUILDING = Kind("still building", recorded=1, jobs_created=1)
NO_ROOM = Kind("no node has room", recorded=1, jobs_created=1)
PARSER_BUSY = Kind("its parser is busy", recorded=1)
NOISY = "8c5bd8f3f5b64e6c8f1d9d3a4b0e7c21"

# How many of each; what is missing to the totals is valid.
_BY_QUEUE = {
    BINARY: 20,
    BUILD_FAILS: 6,
    STILL_BUILDING: 3,
    NO_ROOM: 2,
    PARSER_BUSY: 3,
    AGAIN: 15,
    CHANGED: 5,
    NOT_JSON: 5,
    INCOMPLETE: 5,
    FORBIDDEN_SOURCE: 4,
    REFUSED: 8,
    BUSY: 8,
    ANSWER_LOST: 4,
}
_BY_HTTP = {AGAIN: 3, NOT_JSON: 2, INCOMPLETE: 1, BUSY: 2}
_SCRIPTED = (REFUSED, BUSY, ANSWER_LOST, BUILD_FAILS, STILL_BUILDING, NO_ROOM, PARSER_BUSY)

_FAULTS: dict[Kind, list[Json]] = {
    REFUSED: [
        {"do": "status", "status": 422, "reason": "Invalid", "message": "spec.template: scripted refusal"},
        {"do": "webhook", "message": "scripted refusal: the image must be signed"},
    ],
    BUSY: [
        {"do": "status", "status": 429, "retry_after": 1, "count": 1},
        {"do": "status", "status": 500, "count": 1},
    ],
    ANSWER_LOST: [{"do": "drop-after", "count": 1}],
}
# What becomes of the pods of a first Kaniko Job, in turn; of a later one's the simulator makes images.
_OUTCOMES: dict[Kind, tuple[str, ...]] = {
    BUILD_FAILS: ("build-error", "rate-limited", "oom", "push-denied", "build-error", "rate-limited"),
    STILL_BUILDING: ("hang",),
    NO_ROOM: ("unschedulable",),
}


@dataclass(frozen=True, slots=True)
class Message:
    """One message to send. `event_id` is empty where the body has none that can be read."""

    kind: Kind
    by_http: bool
    body: bytes
    content_type: str
    headers: dict[str, Any]
    event_id: str

    @property
    def http_status(self) -> int:
        """What the sink answers: only what cannot be taken is refused."""
        return 400 if self.kind in (CHANGED, NOT_JSON, INCOMPLETE) else 202


@dataclass(frozen=True, slots=True)
class Traffic:
    """All messages in the order of sending; the faults and the builds' outcomes that have to be scripted before."""

    messages: tuple[Message, ...]
    faults: tuple[Json, ...]
    outcomes: tuple[Json, ...]

    @property
    def sent(self) -> Counter[Kind]:
        return Counter(message.kind for message in self.messages)


def traffic(*, seed: str, scripted: bool) -> Traffic:
    """The demo's messages.

    Another seed gives other events; without `scripted` no kind needs the simulator's faults.
    """
    numbers = iter(range(1_000_000))

    def fresh(third_party: str | None = None) -> Json:
        return sample_event(next(numbers), seed=seed, third_party=third_party)

    queue_counts = {kind: count for kind, count in _BY_QUEUE.items() if scripted or kind not in _SCRIPTED}
    http_counts = {kind: count for kind, count in _BY_HTTP.items() if scripted or kind not in _SCRIPTED}
    valid = [fresh() for _ in range(QUEUE_TOTAL - sum(queue_counts.values()))]
    failing = [_traced(fresh()) for _ in range(queue_counts.get(BUILD_FAILS, 0))]
    building = [fresh(NOISY) for _ in range(queue_counts.get(STILL_BUILDING, 0))]
    # Each of these is sent once more, some over HTTP; those that are sent with other content are others.
    again = iter([*failing, *valid])
    given = {
        AGAIN: again,
        CHANGED: again,
        BUILD_FAILS: iter(failing),
        STILL_BUILDING: iter(building),
        PARSER_BUSY: (_of_the_same_parser(fresh(NOISY), event) for event in building),
        NO_ROOM: iter(lambda: fresh(NOISY), None),
    }
    messages = [_structured(VALID, event) for event in valid]
    messages += _several(queue_counts, given=given, fresh=fresh, by_http=False)
    messages += [_structured(VALID, fresh(), by_http=True) for _ in range(HTTP_TOTAL - sum(http_counts.values()))]
    messages += _several(http_counts, given=given, fresh=fresh, by_http=True)
    return Traffic(messages=tuple(messages), faults=tuple(_faults(messages)), outcomes=tuple(_outcomes(messages)))


def _several(
    counts: dict[Kind, int], *, given: Mapping[Kind, Iterator[Json]], fresh: Callable[[], Json], by_http: bool
) -> list[Message]:
    messages = []
    for kind, count in counts.items():
        for number in range(count):
            event = next(given[kind]) if kind in given else fresh()
            messages.append(_message(kind, event, number=number, by_http=by_http))
    return messages


def _traced(event: Json) -> Json:
    trace = uuid.uuid5(uuid.NAMESPACE_OID, event["id"]).hex
    return event | {"traceparent": f"00-{trace}-{trace[:16]}-01"}


def _of_the_same_parser(event: Json, other: Json) -> Json:
    same = {name: other["data"][name] for name in ("parser_id", "job_name")}
    return event | {"subject": other["subject"], "data": event["data"] | same}


def _message(kind: Kind, event: Json, *, number: int, by_http: bool) -> Message:
    if kind is BINARY:
        return _binary(kind, event)
    event = deepcopy(event)
    if kind is CHANGED:
        event["data"]["parameters"]["build_timeout"] += 60 + number
    elif kind is INCOMPLETE:
        del event["data"][("third_party_id", "parser_id")[number % 2]]
    elif kind is FORBIDDEN_SOURCE:
        event["data"]["parameters"]["source_url"] = f"https://169.254.169.254/latest/{number}"
    message = _structured(kind, event, by_http=by_http)
    if kind is NOT_JSON:
        body = message.body[: len(message.body) // 2]
        return Message(kind, by_http, body, message.content_type, message.headers, event_id="")
    return message


def _cloudevent(event: Json) -> CloudEvent:
    attributes = {name: value for name, value in event.items() if name != "data"}
    return CloudEvent(attributes | {"time": datetime.fromisoformat(event["time"])}, event["data"])


def _structured(kind: Kind, event: Json, *, by_http: bool = False) -> Message:
    message = to_structured_event(_cloudevent(event))
    return Message(kind, by_http, message.body, str(message.content_type), message.headers, event["id"])


def _binary(kind: Kind, event: Json) -> Message:
    message = to_binary_event(_cloudevent(event))
    return Message(kind, False, message.body, str(message.content_type), message.headers, event["id"])


def _faults(messages: list[Message]) -> Iterator[Json]:
    for message, rule in _in_turn(messages, _FAULTS):
        yield {**rule, "verb": "create", "event_id": message.event_id}


def _outcomes(messages: list[Message]) -> Iterator[Json]:
    first = {"kanikojobs.notifi.network/number": "1"}
    for message, outcome in _in_turn(messages, _OUTCOMES):
        yield {"outcome": outcome, "event_id": message.event_id, "labels": first}


def _in_turn(messages: Iterable[Message], rules: Mapping[Kind, Sequence[Rule]]) -> Iterator[tuple[Message, Rule]]:
    """Each message of a kind that has rules, with the next of these."""
    turns = {kind: itertools.cycle(of_kind) for kind, of_kind in rules.items()}
    for message in messages:
        if message.kind in turns:
            yield message, next(turns[message.kind])
