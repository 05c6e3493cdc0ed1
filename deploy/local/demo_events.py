"""What the demo sends, and what must come of it: 200 messages through RabbitMQ and 20 over HTTP.

Pure. Each kind says what one message of it comes to; the demo adds that up and holds the database and the
cluster against the sum.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cloudevents.core.bindings.rabbitmq import to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from tests.sample_events import sample_event

QUEUE_TOTAL, HTTP_TOTAL = 200, 20

Json = dict[str, Any]


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

# How many of each; what is missing to the totals is valid.
_BY_QUEUE = {
    BINARY: 20,
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
_SCRIPTED = (REFUSED, BUSY, ANSWER_LOST)

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
    """All messages in the order of sending, and the faults that have to be scripted before."""

    messages: tuple[Message, ...]
    faults: tuple[Json, ...]

    @property
    def sent(self) -> Counter[Kind]:
        return Counter(message.kind for message in self.messages)


def traffic(*, seed: str, scripted: bool) -> Traffic:
    """The demo's messages.

    Another seed gives other events; without `scripted` no kind needs the simulator's faults.
    """
    numbers = iter(range(1_000_000))

    def fresh() -> Json:
        return sample_event(next(numbers), seed=seed)

    queue_counts = {kind: count for kind, count in _BY_QUEUE.items() if scripted or kind not in _SCRIPTED}
    http_counts = {kind: count for kind, count in _BY_HTTP.items() if scripted or kind not in _SCRIPTED}
    valid = [fresh() for _ in range(QUEUE_TOTAL - sum(queue_counts.values()))]
    # Each of these is sent once more, some over HTTP; those that are sent with other content are others.
    again = iter(valid)
    messages = [_structured(VALID, event) for event in valid]
    messages += _several(queue_counts, originals=again, fresh=fresh, by_http=False)
    messages += [_structured(VALID, fresh(), by_http=True) for _ in range(HTTP_TOTAL - sum(http_counts.values()))]
    messages += _several(http_counts, originals=again, fresh=fresh, by_http=True)
    return Traffic(messages=tuple(messages), faults=tuple(_faults(messages)))


def _several(
    counts: dict[Kind, int], *, originals: Iterator[Json], fresh: Callable[[], Json], by_http: bool
) -> list[Message]:
    messages = []
    for kind, count in counts.items():
        for number in range(count):
            event = next(originals) if kind in (AGAIN, CHANGED) else fresh()
            messages.append(_message(kind, event, number=number, by_http=by_http))
    return messages


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
    seen: Counter[Kind] = Counter()
    for message in messages:
        rules = _FAULTS.get(message.kind)
        if rules:
            yield {**rules[seen[message.kind] % len(rules)], "verb": "create", "event_id": message.event_id}
            seen[message.kind] += 1
