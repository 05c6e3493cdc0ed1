"""Signs of life: each long-running process writes one every few seconds, from the loop that does its work.

From the loop and not from a thread beside it, because a process that hangs must fall silent.
"""

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from kanikojobs import tallies
from kanikojobs.models import Heartbeat

EVERY = 5.0  # seconds between two signs of life
SILENT_AFTER = timedelta(seconds=30)
FORGOTTEN_AFTER = timedelta(days=1)
SWEEP_EVERY = 3600.0  # seconds between two sweeps of old tallies: whoever lives sees to it


def instance_name() -> str:
    """Which process, on which host: as `ps` and `kubectl logs` know it."""
    return f"{socket.gethostname()}/{os.getpid()}"[:128]


@dataclass(slots=True)
class Pulse:
    """Call `beat` from a loop as often as you like: it writes at most every `EVERY` seconds."""

    role: Heartbeat.Role
    beaten_at: float = 0.0
    swept_at: float = 0.0

    def beat(self, details: Mapping[str, Any] | None = None) -> bool:
        """Give a sign of life if it is time; return whether it was. Raises what the database raises.

        The file that KANIKOJOBS_LIVENESS_FILE names is touched too, for a probe that judges its age.
        """
        if time.monotonic() - self.beaten_at < EVERY:
            return False
        if settings.KANIKOJOBS_LIVENESS_FILE:
            # Before the database is asked: while that is away this process is alive all the same.
            Path(settings.KANIKOJOBS_LIVENESS_FILE).touch()
        with connection.cursor() as cursor:
            cursor.execute(
                """
                INSERT INTO kanikojobs_heartbeat AS heartbeat (role, instance, details) VALUES (%s, %s, %s)
                ON CONFLICT (role, instance) DO UPDATE SET
                    seen_at = clock_timestamp(), details = excluded.details
                """,
                [str(self.role), instance_name(), json.dumps(details or {})],
            )
            cursor.execute(
                "DELETE FROM kanikojobs_heartbeat WHERE seen_at < clock_timestamp() - %s::interval",
                [f"{FORGOTTEN_AFTER.total_seconds()} seconds"],
            )
        self.beaten_at = time.monotonic()
        if self.beaten_at - self.swept_at > SWEEP_EVERY:
            tallies.forget_minutes()
            self.swept_at = self.beaten_at
        return True

    def rest(self) -> None:
        """Say good-bye: a process that was stopped is not one that fell silent."""
        Heartbeat.objects.filter(role=self.role, instance=instance_name()).delete()


@dataclass(frozen=True, slots=True)
class Sign:
    """The signs of life of one role: its processes that are alive, the latest first, and how old the latest is."""

    beats: Sequence[Heartbeat]
    seen_at: datetime
    age: timedelta

    @property
    def alive(self) -> int:
        return len(self.beats)


def signs() -> dict[Heartbeat.Role, Sign]:
    """The signs of life of every role that ever gave one, and has not been forgotten."""
    now = datetime.now(UTC)
    beats: dict[Heartbeat.Role, list[Heartbeat]] = {}
    for beat in Heartbeat.objects.order_by("-seen_at"):
        beats.setdefault(Heartbeat.Role(beat.role), []).append(beat)
    return {
        role: Sign(
            beats=[beat for beat in found if beat.seen_at > now - SILENT_AFTER],
            seen_at=found[0].seen_at,
            age=max(timedelta(), now - found[0].seen_at),
        )
        for role, found in beats.items()
    }


def alive(role: Heartbeat.Role) -> list[Heartbeat]:
    """The processes of a role that gave a sign of life lately, the latest first."""
    since = datetime.now(UTC) - SILENT_AFTER
    return list(Heartbeat.objects.filter(role=role, seen_at__gte=since).order_by("-seen_at"))
