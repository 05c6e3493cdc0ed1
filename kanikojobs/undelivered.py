"""What Knative brings in vain is kept as a dead letter, with its words.

A broker has answered its producer 202 long before it delivers, so nobody will send the event again. It comes here in
two ways: the dead-letter sink of the Trigger gets what could not be delivered, and the sink keeps what a broker brings
while direct events are switched off. The second is not Knative's to keep: the dispatcher of its RabbitMQ broker counts
every status that it does not retry, 400 and 410 too, as delivered (eventing-rabbitmq, pkg/dispatcher).
"""

import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest

from kanikojobs import dead_letters, intake, tallies
from kanikojobs.cloudevent import StartEvent
from kanikojobs.cloudevent.glimpse import whose
from kanikojobs.errors import InvalidEvent, NotOurs
from kanikojobs.letters import Cause, Letter, message_hash
from kanikojobs.messages import Message
from kanikojobs.models import DeadLetter, JobStartEvent

DIRECT = JobStartEvent.Origin.DIRECT
# The extension attributes that Knative adds to a dead letter: to whom it was to go, the HTTP status and the body of the
# last answer (Knative documentation, "Handling delivery failure"). Not every broker adds them all.
_ERROR = "knativeerror"
DESTINATION, CODE, DATA = "knativeerrordest", "knativeerrorcode", "knativeerrordata"
_MOST_CHARACTERS = 1000


def is_from_a_broker(request: HttpRequest) -> bool:
    """Whether one of Knative's brokers sends this: they ask for a reply, or add extension attributes of their own."""
    by_name = any(name.lower().startswith("ce-knative") for name in request.headers)
    return by_name or "reply" in request.headers.get("Prefer", "")


def keep(message: Message, *, refused: bool = False) -> bool:
    """Record what could not be delivered, or was `refused`, as a dead letter; False if that is not needed.

    It is not if the event is recorded, if an open dead letter holds the same message (an invalid one, say), or if it is
    another's event. Raises `django.db.OperationalError` or `InterfaceError` when the database is away; then nothing is
    kept.
    """
    words = {name.lower()[3:]: str(text) for name, text in message.headers.items() if _is_error(name)}
    # As it was sent: when it is replayed, what was wrong then is no attribute of the event.
    headers = {name: text for name, text in message.headers.items() if not _is_error(name)}
    sent = replace(message, headers=headers, properties=dict(message.properties) | words)
    (reading,) = intake.read([sent], origin=DIRECT)
    if isinstance(reading, NotOurs):
        return False
    if isinstance(reading, StartEvent):
        # In structured mode the attributes are in the body, which stays as it is.
        words |= {name: str(value) for name, value in reading.extensions.items() if name.startswith(_ERROR)}
    letter = _letter(sent, reading, reason=_refusal() if refused else _reason(words))
    with transaction.atomic():
        if _is_here(letter, reading):
            return False
        dead_letters.record([letter])
        tallies.add(tallies.counts({f"dead-letter/{letter.cause}": 1}))
    return True


def _is_error(header: str) -> bool:
    return header.lower().startswith(f"ce-{_ERROR}")


def _letter(message: Message, reading: StartEvent | InvalidEvent, *, reason: str) -> Letter:
    third_party_id, parser_id = whose(message.body)
    return Letter(
        cause=Cause.UNDELIVERED,
        origin=DIRECT,
        reason=reason,
        body=message.body,
        faults=reading.faults if isinstance(reading, InvalidEvent) else (),
        content_type=message.content_type or "",
        headers=message.headers,
        properties=message.properties,
        ce_source=reading.source,
        ce_id=reading.event_id,
        third_party_id=third_party_id,
        parser_id=parser_id,
    )


def _is_here(letter: Letter, reading: StartEvent | InvalidEvent) -> bool:
    """Whether nothing would be lost without the letter. One that comes at the same moment costs a letter too many."""
    if (
        isinstance(reading, StartEvent)
        and JobStartEvent.objects.filter(
            source=reading.source, event_id=reading.event_id, content_hash=reading.content_hash
        ).exists()
    ):
        return True
    same = DeadLetter.objects.filter(message_hash=message_hash(letter), state=DeadLetter.State.OPEN)
    return same.filter(kaniko_job__isnull=True, origin=DIRECT).exclude(cause=Cause.UNDELIVERED).exists()


def _refusal() -> str:
    return (
        "Knative's broker brought it while direct events were switched off. Replay it, and let its sender publish to "
        f"the RabbitMQ queue {settings.KANIKOJOBS_QUEUE}."
    )


def _reason(words: Mapping[str, str]) -> str:
    if not words:
        return "Knative could not deliver it, and does not say why."
    destination, code = words.get(DESTINATION, "an address that it does not name"), words.get(CODE, "")
    answered = f"HTTP {code}" if code.isdecimal() else "no answer"
    said = _text(words.get(DATA, ""))
    return f"Knative could not deliver it to {destination}: {answered}{': ' if said else '.'}{said}"


def _text(data: str) -> str:
    """The body of the last answer. Some brokers write it in Base64, because a header holds no line feed."""
    with suppress(binascii.Error, ValueError):
        decoded = " ".join(base64.b64decode(data, validate=True).decode().split())
        if decoded.isprintable():
            data = decoded
    return data[:_MOST_CHARACTERS]
