"""What a span is to this application, and the one way to tell it: if that is wanted, and at nobody's cost."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

    `parent` and the `links` are `traceparent`s, and so is `itself`, for a span that was promised before (`new_trace`).
    `error` is a class of errors, in CamelCase as our reasons are.
    """

    name: str
    kind: Literal["client", "consumer", "internal"]
    began_at: float
    ended_at: float
    attributes: Attributes
    parent: str = ""
    itself: str = ""
    links: Sequence[str] = ()
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


def tell(span: Span) -> None:
    """Hand a span to OpenTelemetry, which is imported by nobody else and only now."""
    from kanikojobs.tracing import exporting

    exporting.export(span)


ROOT = "build"
"""The span of all that was done for an event that came without a trace."""


def new_trace() -> str:
    """The `traceparent` for an event that came without one. Its span, the root, is told when the build has ended."""
    from kanikojobs.tracing import exporting

    return exporting.new_trace(ROOT)


def is_own(traceparent: str) -> bool:
    """Whether `new_trace` made it: nobody else repeats half of the trace's id as the span's."""
    return traceparent[19:35] == traceparent[36:52]


def cloudevent(event_id: str, *, source: str) -> dict[str, str | int]:
    return {"cloudevents.event_id": event_id, "cloudevents.event_source": source}
