"""What a span is to this application, and the one way to tell it: if that is wanted, and at nobody's cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Literal, ParamSpec

import structlog
from django.conf import settings

log = structlog.get_logger(__name__)

P = ParamSpec("P")
Attributes = Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that was done, between two Unix times in seconds.

    `parent` and the `links` are `traceparent`s. `error` is a class of errors, in CamelCase as our reasons are.
    """

    name: str
    kind: Literal["client", "consumer", "internal"]
    began_at: float
    ended_at: float
    attributes: Attributes
    parent: str = ""
    links: Sequence[tuple[str, Attributes]] = field(default=())
    error: str = ""


def if_wanted(say: Callable[P, None]) -> Callable[P, None]:
    """Only where traces are on, and never to the harm of what is told of: that has happened already."""

    @wraps(say)
    def told(*args: P.args, **kwargs: P.kwargs) -> None:
        if not settings.KANIKOJOBS_TRACES:
            return
        try:
            say(*args, **kwargs)
        except Exception:
            log.exception("spans-lost", of=say.__name__)

    return told


def tell(span: Span) -> str:
    """Hand a span to OpenTelemetry, which is imported by nobody else and only now; return its `traceparent`."""
    from kanikojobs.tracing import exporting

    return exporting.export(span)


def cloudevent(event_id: str, *, source: str) -> dict[str, str | int]:
    return {"cloudevents.event_id": event_id, "cloudevents.event_source": source}
