"""Traces, for those who collect them (KANIKOJOBS_TRACES, off by default): which spans are told of an event's way.

A batch of messages is one span, linked to the sender of each event. What is done for one event is in the event's own
trace, as children of the `traceparent` that it came with: each call to create its Job, the Job's wait for a running
pod, its run, and the news of its outcome. Spans are told afterwards, from what is known anyway, with their real times;
so the hot paths do nothing while this is off and little while it is on. Names and attributes are OpenTelemetry's
semantic conventions (messaging, RabbitMQ, CloudEvents, Kubernetes) where there is one.
"""

from kanikojobs.tracing.jobs import attempted, finished
from kanikojobs.tracing.messages import begun, processed, published

__all__ = ["attempted", "begun", "finished", "processed", "published"]
