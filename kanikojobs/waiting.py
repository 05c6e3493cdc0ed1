"""Why a queued Kaniko Job waits: in words for a row, and counted for all of them."""

from collections import defaultdict

from django.conf import settings
from django.db import connection
from django.utils import timezone

from kanikojobs import claims, outages
from kanikojobs.models import BuildProfile, KanikoJob
from kanikojobs.states import State

OUTAGE, RETRY, LINE = "outage", "retry", "line"
CAP, THIRD_PARTY_CAP, TURN = "cap", "third-party-cap", "turn"


def why_waiting(job: KanikoJob) -> str:
    """A sentence for a person, or "" for one that is not queued."""
    if job.state != State.QUEUED:
        return ""
    if outage := outages.current():
        return (
            f"Kubernetes cannot be used since {outage.started_at:%Y-%m-%d %H:%M} UTC ({outage.reason}): "
            "nothing is created until it can, and no retry is spent."
        )
    if job.run_at and job.run_at > timezone.now():
        return f"The next try is due at {job.run_at:%Y-%m-%d %H:%M:%S} UTC, after {job.reason}."
    if job.waits_for:
        return f"{job.waits_for.name}, of the same third party and parser, has to finish first."
    if not job.may_exist:
        cap, third_party_cap = settings.KANIKOJOBS_MAX_ACTIVE_JOBS, _caps()[job.third_party_id]
        active = claims.active()
        if cap and active.total() >= cap:
            return f"Of all Jobs, {active.total()} are active, as many as KANIKOJOBS_MAX_ACTIVE_JOBS={cap} allows."
        if third_party_cap and active[job.third_party_id] >= third_party_cap:
            return (
                f"Of its third party's Jobs, {active[job.third_party_id]} are active, as many as its cap of "
                f"{third_party_cap} allows."
            )
    return "It waits for a worker: what is more urgent goes first, and third parties of equal priority take turns."


def _caps() -> dict[str, int]:
    """The cap of each third party; 0 is none."""
    caps: dict[str, int] = defaultdict(lambda: settings.KANIKOJOBS_MAX_ACTIVE_JOBS_PER_THIRD_PARTY)
    for profile in BuildProfile.objects.filter(max_active_jobs__isnull=False):
        caps[profile.third_party_id] = profile.max_active_jobs or 0
    return caps


def counts() -> dict[str, int]:
    """How many queued Kaniko Jobs wait for what, by the constants of this module; read from the queued ones alone."""
    cap, caps, active = settings.KANIKOJOBS_MAX_ACTIVE_JOBS, _caps(), claims.active()
    with connection.cursor() as cursor:
        cursor.execute(
            """
            SELECT CASE
                       WHEN %(outage)s THEN 'outage'
                       WHEN run_at > statement_timestamp() THEN 'retry'
                       WHEN waits_for_id IS NOT NULL THEN 'line'
                       WHEN may_exist THEN 'turn'
                       WHEN %(capped)s THEN 'cap'
                       WHEN third_party_id = ANY (%(capped_third_parties)s) THEN 'third-party-cap'
                       ELSE 'turn'
                   END AS why, count(*)
            FROM kanikojobs_kanikojob WHERE state = 'queued' GROUP BY why
            """,
            {
                "outage": outages.current() is not None,
                "capped": bool(cap) and active.total() >= cap,
                "capped_third_parties": [
                    third_party
                    for third_party, count in active.items()
                    if caps[third_party] and count >= caps[third_party]
                ],
            },
        )
        return {OUTAGE: 0, RETRY: 0, LINE: 0, CAP: 0, THIRD_PARTY_CAP: 0, TURN: 0} | dict(cursor.fetchall())
