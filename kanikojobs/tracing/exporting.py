"""OpenTelemetry, of which this is the only importer: spans go out in the background, by OTLP over HTTP.

It is imported with the first span, so that nothing of it is loaded while traces are off; its packages are optional
(`deploy/requirements-traces.txt`). Where spans go, and which are kept, is said by OpenTelemetry's own variables, such
as OTEL_EXPORTER_OTLP_ENDPOINT and OTEL_TRACES_SAMPLER.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import RandomIdGenerator, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from kanikojobs.heartbeats import instance_name
from kanikojobs.tracing.telling import Span

# As many as a batch can have messages (KANIKOJOBS_BATCH). OpenTelemetry's own default, 128, would drop the rest.
MOST_LINKS = 10_000
# How long the end of a process waits for its last spans, in seconds: a collector that is away must not hold it up.
LONGEST_FAREWELL = 3.0
NANOSECONDS = 1_000_000_000


class _Ids(RandomIdGenerator):
    """Random ids; or those that were given out before their span could be told."""

    def __init__(self) -> None:
        self._given = threading.local()

    @contextmanager
    def given(self, traceparent: str) -> Iterator[None]:
        """Make the next span of this thread the one that a `traceparent` has named already, if it names one."""
        self._given.context = _span_context(traceparent) if traceparent else None
        try:
            yield
        finally:
            self._given.context = None

    def generate_trace_id(self) -> int:
        context = getattr(self._given, "context", None)
        return context.trace_id if context else super().generate_trace_id()

    def generate_span_id(self) -> int:
        context = getattr(self._given, "context", None)
        return context.span_id if context else super().generate_span_id()


_ids = _Ids()
# By process, because neither the thread that sends nor its connection outlives a fork.
_tracers: dict[int, Tracer] = {}


def new_trace(root: str) -> str:
    """The `traceparent` of a trace whose root, of this name, will be told at its end (`telling.is_own` knows it)."""
    trace_id = _ids.generate_trace_id()
    kept = _tracer().sampler.should_sample(None, trace_id, root).decision.is_sampled()
    return f"00-{trace_id:032x}-{trace_id % 2**64:016x}-{kept:02x}"


def export(span: Span) -> None:
    """Hand over a span to be sent."""
    with _ids.given(span.itself):
        told = _tracer().start_span(
            span.name,
            context=_context(span.parent),
            kind=SpanKind[span.kind.upper()],
            attributes=span.attributes,
            links=[Link(_span_context(link)) for link in span.links],
            start_time=round(span.began_at * NANOSECONDS),
        )
    if span.error:
        told.set_attribute("error.type", span.error)
        told.set_status(Status(StatusCode.ERROR))
    told.end(round(span.ended_at * NANOSECONDS))


def _context(traceparent: str) -> Context:
    """The context of a span's parent; without one an empty one, whatever the thread is at."""
    if not traceparent:
        return Context()
    return set_span_in_context(NonRecordingSpan(_span_context(traceparent)), Context())


def _span_context(traceparent: str) -> SpanContext:
    """What a `traceparent` stands for, which was found to be valid when its event was read."""
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def _tracer() -> Tracer:
    if tracer := _tracers.get(os.getpid()):
        return tracer
    return send_by(BatchSpanProcessor(OTLPSpanExporter()))


def send_by(processor: SpanProcessor) -> Tracer:
    """Have the spans of this process sent by a processor, from now on."""
    limits = SpanLimits(max_links=None if "OTEL_SPAN_LINK_COUNT_LIMIT" in os.environ else MOST_LINKS)
    ours = Resource({"service.name": "kanikojobs", "service.instance.id": instance_name()})
    # What the environment says of the service wins.
    resource = Resource.create().merge(ours).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, span_limits=limits, id_generator=_ids, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    _close_at_exit(provider)
    tracer = provider.get_tracer("kanikojobs")
    if not isinstance(tracer, Tracer):
        raise RuntimeError("OpenTelemetry's SDK is disabled")  # as the settings would have known
    _tracers[os.getpid()] = tracer
    return tracer


def _close_at_exit(provider: TracerProvider) -> None:
    """Send what is left when the process ends, Django-Q2's workers included, which `atexit` knows nothing of.

    By a thread that is there already: Python starts none that late, and the wait for it has an end.
    """
    leaving = threading.Event()

    def close() -> None:
        leaving.wait()
        provider.shutdown()

    closer = threading.Thread(target=close, name="spans-farewell", daemon=True)
    closer.start()

    def farewell() -> None:
        leaving.set()
        closer.join(LONGEST_FAREWELL)

    Finalize(None, farewell, exitpriority=0)
