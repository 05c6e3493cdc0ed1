"""The numbers in one call: what `/async-jobs/stats` answers. Each costs the same at any length of history."""

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from kanikojobs import flows, overview, tallies
from kanikojobs.backlog import Backlog, backlog
from kanikojobs.flows import Comparison
from kanikojobs.overview import WINDOWS, Overview
from kanikojobs.retention import seen
from kanikojobs.tallies import Total


def first_version(*, waiting: Backlog | None = None, totals: Mapping[str, Total] | None = None) -> dict[str, Any]:
    """The flat keys that callers of the system's first version read.

    There `queue_size` was the in-memory queue of the job creator; here it is what waits for a worker. `total_queued`
    is how many events were ever queued for creation, `results_count` how many creation calls have an answer.
    """
    waiting = waiting or backlog()
    totals = tallies.totals(prefix="") if totals is None else totals
    recorded = [series for series in totals if series.startswith("intake/") and series.endswith("/recorded")]
    return {
        "worker_count": settings.KANIKOJOBS_WORKER_COUNT,
        "queue_size": waiting.queued + waiting.creating,
        "max_queue_size": settings.KANIKOJOBS_MAX_QUEUE_SIZE,
        "total_queued": tallies.count(totals, recorded),
        "results_count": tallies.count(totals, (*tallies.SUCCESSES, *tallies.FAILURES)),
        "is_shutdown": False,
    }


def everything() -> dict[str, Any]:
    """What `/async-jobs/stats` answers: the flat keys of the first version, and what the admin's home shows."""
    now = overview.overview(window=WINDOWS[0])
    creation = {series: total for series, total in now.totals.items() if series.startswith("creation/")}
    return {
        **first_version(waiting=now.backlog, totals=now.totals),
        "verdict": {"mood": now.mood, "sentence": now.sentence, "at": now.now},
        "parts": [
            {"name": part.name, "state": part.state, "seen_at": part.seen_at, "note": part.note} for part in now.parts
        ],
        "outage": _outage(now),
        "consuming": {"paused": now.pause.paused, "by": now.pause.by, "reason": now.pause.reason, "at": now.pause.at},
        "queue_depth": now.queue_depth,
        "kaniko_jobs": {
            "queued": now.backlog.queued,
            "creating": now.backlog.creating,
            "created": now.backlog.created,
            "running": now.backlog.running,
            "oldest_queued_at": now.backlog.oldest_queued_at,
            "active": now.backlog.active,
            "waiting": [
                {"state": state, "reason": reason, "count": count}
                for (state, reason), count in sorted(now.backlog.waiting.items())
            ],
            "busiest": [
                {"third_party_id": share.third_party_id, "queued": share.queued, "active": share.active}
                for share in now.busiest
            ],
            "running_longest": [
                {
                    "id": job.pk,
                    "name": job.name,
                    "third_party_id": job.third_party_id,
                    "parser_id": job.parser_id,
                    "running_at": job.running_at,
                }
                for job in now.running
            ],
        },
        "last_hour": _last_hour(now),
        "failures": [
            {
                "fingerprint": cause.fingerprint,
                "cause": cause.cause,
                "title": cause.title,
                "count": cause.count,
                "new": cause.is_new,
            }
            for cause in now.causes
        ],
        "intake": _intake(now.totals),
        "flows": _flows(flows.comparison()),
        "attempts": {series.split("/")[1]: total.count for series, total in sorted(creation.items())},
        "finished": _counts(now.totals, prefix="finished/"),
        "drift": _counts(now.totals, prefix="drift/"),
        "dead_letters": {
            "open": now.open_dead_letters,
            "recorded": _counts(now.totals, prefix="dead-letter/"),
        },
        "retention": _retention(now.totals),
        "settings": {
            "max_retries": settings.KANIKOJOBS_MAX_RETRIES,
            "retry_delay_ms": round(settings.KANIKOJOBS_RETRY_DELAY.total_seconds() * 1000),
            "direct_events": settings.KANIKOJOBS_DIRECT_EVENTS,
            "max_active_jobs": settings.KANIKOJOBS_MAX_ACTIVE_JOBS,
            "max_active_jobs_per_third_party": settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY,
        },
    }


def _outage(now: Overview) -> dict[str, Any] | None:
    if now.outage is None:
        return None
    return {
        "reason": now.outage.reason,
        "message": now.outage.message,
        "started_at": now.outage.started_at,
        "probes": now.outage.probes,
    }


def _retention(totals: Mapping[str, Total]) -> dict[str, Any]:
    last = seen.last_run()
    return {
        "finished_at": last.finished_at,
        "removed": last.removed,
        "removed_ever": _counts(totals, prefix="pruned/"),
        "ongoing_since": last.ongoing.started_at if last.ongoing else None,
    }


def _last_hour(now: Overview) -> dict[str, Any]:
    return {
        "recorded": sum(point.recorded for point in now.points),
        "created": now.created,
        "failed": now.failed,
        "failure_rate": None if now.failure_rate is None else round(now.failure_rate, 2),
        "creation_seconds": now.creation_seconds,
        "wait_p95_seconds": now.wait_p95,
        "minutes": [
            {
                "at": point.at,
                "recorded": point.recorded,
                "created": point.created,
                "failed": point.failed,
                "p50": point.p50,
                "p95": point.p95,
                "p99": point.p99,
            }
            for point in now.points
        ],
    }


def _intake(totals: Mapping[str, Total]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for series, total in sorted(totals.items()):
        if series.startswith("intake/"):
            _, origin, outcome = series.split("/")
            found.setdefault(origin, {})[outcome.replace("-", "_")] = total.count
    return found


def _flows(found: Comparison) -> dict[str, Any]:
    """The comparison of the last 24 hours, in short: `/async-jobs/flows` has all of it."""
    return {
        "phase": found.next_step.phase,
        "ready": found.next_step.ready,
        "next": found.next_step.sentence,
        "only_direct": found.only_direct,
        "both": sum(way.both for way in found.ways),
        "refused": found.refused,
    }


def _counts(totals: Mapping[str, Total], *, prefix: str) -> dict[str, int]:
    return {
        series.removeprefix(prefix): total.count
        for series, total in sorted(totals.items())
        if series.startswith(prefix)
    }
