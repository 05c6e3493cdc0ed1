"""The outcome of a Kaniko Job as a CloudEvent, for those who want to know how a build ended.

Off by default (KANIKOJOBS_OUTCOME_EVENTS). `kanikojobs.outbox` publishes them.
"""

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings

from kanikojobs.advice import advice
from kanikojobs.amqp import Publication
from kanikojobs.errors import PermanentError
from kanikojobs.manifest import image_destination
from kanikojobs.manifest.settings import build_options
from kanikojobs.models import KanikoJob
from kanikojobs.retry import build_of

TYPE = "network.notifi.lambda.job"


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


def publication(event: Mapping[str, Any]) -> Publication:
    """An outcome as a message, in the type's name."""
    headers = {"traceparent": event["traceparent"]} if "traceparent" in event else {}
    body = json.dumps(event, ensure_ascii=False).encode()
    return Publication(
        settings.KANIKOJOBS_EXCHANGE, str(event["type"]), body, "application/cloudevents+json; charset=utf-8", headers
    )
