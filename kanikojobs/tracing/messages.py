"""The spans of messages: those that come, a batch at a time, and those that we publish."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import structlog
from django.conf import settings

from kanikojobs.cloudevent import StartEvent
from kanikojobs.errors import InvalidEvent, NotOurs
from kanikojobs.tracing.telling import Span, cloudevent, if_wanted, new_trace, tell

log = structlog.get_logger(__name__)


Reading = StartEvent | InvalidEvent | NotOurs


def begun(readings: Sequence[Reading]) -> Sequence[Reading]:
    """The same readings, where events that came without a trace have one of their own, if traces are on."""
    if not settings.KANIKOJOBS_TRACES:
        return readings
    try:
        return [
            reading if isinstance(reading, Exception) or reading.traceparent else _with_a_trace(reading)
            for reading in readings
        ]
    except Exception:
        log.exception("spans-lost", of="begun")
        return readings


def _with_a_trace(event: StartEvent) -> StartEvent:
    traceparent = new_trace()
    return event._replace(traceparent=traceparent, trace_id=traceparent[3:35])


@if_wanted
def processed(events: Iterable[StartEvent], *, messages: int, origin: str, began_at: float) -> None:
    """A batch of so many messages has just been committed, with these events among them."""
    destination = settings.KANIKOJOBS_QUEUE if origin == "queue" else str(origin)
    attributes: dict[str, str | int] = {
        "messaging.destination.name": destination,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "kanikojobs.origin": str(origin),
    }
    if origin == "queue":
        attributes["messaging.system"] = "rabbitmq"
    # The conventions want it for batches only.
    if messages > 1:
        attributes["messaging.batch.message_count"] = messages
    tell(
        Span(
            name=f"process {destination}",
            kind="consumer",
            began_at=began_at,
            ended_at=time.time(),
            attributes=attributes,
            links=[event.traceparent for event in events if event.traceparent],
        )
    )


@if_wanted
def published(event: Mapping[str, Any], *, began_at: float) -> None:
    """A CloudEvent of ours has just been published, by its type as routing key, in the trace that it carries."""
    if "traceparent" not in event:
        return
    destination = f"{settings.KANIKOJOBS_EXCHANGE}:{event['type']}"
    attributes: dict[str, str | int] = {
        "messaging.system": "rabbitmq",
        "messaging.destination.name": destination,
        "messaging.rabbitmq.destination.routing_key": event["type"],
        "messaging.operation.name": "publish",
        "messaging.operation.type": "send",
        "cloudevents.event_type": event["type"],
        **cloudevent(event["id"], source=event["source"]),
    }
    # Of the kind "client", because the message carries the first sender's context on, and not this span's.
    tell(
        Span(
            name=f"publish {destination}",
            kind="client",
            began_at=began_at,
            ended_at=time.time(),
            attributes=attributes,
            parent=event["traceparent"],
        )
    )
