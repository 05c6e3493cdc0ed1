"""Telling the outcome of Kaniko Jobs: a CloudEvent for each that finished, published to RabbitMQ from the outbox.

At least once: a row is marked when RabbitMQ has confirmed the message, so one that was confirmed unheard is published
again, under the same CloudEvents id. Off by default (KANIKOJOBS_OUTCOME_EVENTS).
"""

import json
import threading
from contextlib import suppress
from typing import Any

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, connection, transaction
from django.db.models.functions import Now

from kanikojobs import amqp, tallies
from kanikojobs.advice import advice
from kanikojobs.amqp import Publication
from kanikojobs.errors import PermanentError
from kanikojobs.manifest import image_destination
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import KanikoJob, OutcomeEvent
from kanikojobs.retry import build_of

log = structlog.get_logger(__name__)

TYPE = "network.notifi.lambda.job"
BATCH = 100
POLL = 0.5  # seconds between two looks into an empty outbox
LONGEST_BACKOFF = 10.0


def cloud_event(job: KanikoJob) -> dict[str, Any]:
    """The outcome of a finished Kaniko Job in CloudEvents' structured form. The same row gives the same id."""
    event = job.event
    evidence = getattr(job, "evidence", None)
    attributes = {
        "specversion": "1.0",
        "id": f"{job.namespace}/{job.name}/{job.state}",
        "source": f"kanikojobs/{job.namespace}",
        "type": f"{TYPE}.{job.state}",
        "subject": event.event_id,
        "time": job.finished_at.isoformat() if job.finished_at else "",
        "datacontenttype": "application/json",
        "traceparent": event.traceparent,
        "correlationid": event.correlation_id,
    }
    data = {
        "event_id": event.event_id,
        "event_source": event.source,
        "third_party_id": job.third_party_id,
        "parser_id": job.parser_id,
        "correlation_id": event.correlation_id,
        "job_name": event.job_name,
        "number": job.number,
        "state": job.state,
        "reason": job.reason,
        "message": job.message,
        "advice": advice(job.reason),
        "image": _image(job),
        "image_digest": evidence.image_digest if evidence else "",
        "exit_code": evidence.exit_code if evidence else None,
        "kubernetes_name": job.name,
        "namespace": job.namespace,
        "job_uid": str(job.job_uid or ""),
        **{name: _time(getattr(job, name)) for name in ("queued_at", "created_at", "running_at", "finished_at")},
    }
    return {name: value for name, value in attributes.items() if value} | {"data": data}


def _image(job: KanikoJob) -> str:
    """Where the image was pushed to, by today's settings; empty where these have no place for it."""
    try:
        build = build_of(job.event, number=job.number).edited(job.overrides)
        return image_destination(build=build, options=build_options())
    except (PermanentError, ValueError):
        return ""


def _time(moment: Any) -> str | None:
    return moment.isoformat() if moment else None


def publish_some(link: amqp.BlockingConnection, *, most: int = BATCH) -> int:
    """Publish the outcomes that wait, the oldest first; return how many.

    Raises one of `amqp.CONNECTION_ERRORS`; what RabbitMQ had confirmed before is marked all the same.
    """
    done: list[int] = []
    unroutable = 0
    with transaction.atomic():
        waiting = list(
            OutcomeEvent.objects.filter(published_at=None)
            .select_for_update(skip_locked=True, of=("self",))
            .select_related("kaniko_job__event", "kaniko_job__evidence")
            .order_by("id")[:most]
        )
        problem: Exception | None = None
        for row in waiting:
            try:
                amqp.publish(link, [_publication(row.kaniko_job)])
            except amqp.UNROUTABLE:
                # Nobody has bound a queue for it: nobody wants to know.
                unroutable += 1
            except amqp.CONNECTION_ERRORS as error:
                problem = error
                break
            done.append(row.pk)
        OutcomeEvent.objects.filter(pk__in=done).update(published_at=Now())
        tallies.add(
            tallies.counts({"outcome-event/published": len(done) - unroutable, "outcome-event/unroutable": unroutable})
        )
    if problem is not None:
        raise problem
    return len(done)


def _publication(job: KanikoJob) -> Publication:
    event = cloud_event(job)
    headers = {"traceparent": event["traceparent"]} if "traceparent" in event else {}
    body = json.dumps(event, ensure_ascii=False).encode()
    return Publication(
        settings.KANIKOJOBS_EXCHANGE, str(event["type"]), body, "application/cloudevents+json; charset=utf-8", headers
    )


class Publisher:
    """A thread that empties the outbox until it is closed. Several may run; each row is one's at a time."""

    def __init__(self) -> None:
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def join(self, within: float) -> None:
        self._thread.join(within)

    def _run(self) -> None:
        failures = 0
        try:
            while not self._closed.is_set():
                try:
                    link = amqp.connect(settings.RABBITMQ_URL, name="kanikojobs outcomes")
                    try:
                        self._publish(link)
                        failures = 0
                    finally:
                        with suppress(*amqp.CONNECTION_ERRORS):
                            link.close()
                except amqp.CONNECTION_ERRORS as error:
                    failures += 1
                    wait = min(LONGEST_BACKOFF, 0.2 * 2**failures)
                    log.warning("rabbitmq-away", error=amqp.brief(error), retry_in=wait)
                    self._closed.wait(wait)
                except (OperationalError, InterfaceError) as error:
                    log.warning("database-away", error=str(error).splitlines()[0])
                    connection.close()
                    self._closed.wait(1.0)
        finally:
            connection.close()

    def _publish(self, link: amqp.BlockingConnection) -> None:
        while not self._closed.is_set():
            if not publish_some(link):
                # Answers heartbeats, which nobody else does on this connection.
                link.process_data_events(time_limit=0)
                self._closed.wait(POLL)
