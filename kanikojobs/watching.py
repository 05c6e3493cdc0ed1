"""The watcher: what Kubernetes says of Jobs and pods becomes states of rows, with the reasons and the evidence.

Of several one leads (`kanikojobs.leader`) and the others stand by. The work of whoever leads is a `kanikojobs.term`.
A leader that loses its connection forgets everything and stands in line again; whoever leads next begins with a fresh
list.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field

import structlog
from django.db import InterfaceError, OperationalError, connection

from kanikojobs.heartbeats import Pulse
from kanikojobs.leader import Leadership, LostLeadership
from kanikojobs.models import Heartbeat
from kanikojobs.states import State
from kanikojobs.term import Term

log = structlog.get_logger(__name__)

STANDBY = 1.0  # seconds between two tries to become the leader


@dataclass(slots=True)
class Watching:
    """Leads or stands by until `stop` is set. `resync` is the time in seconds between two fresh lists."""

    resync: float = 300.0
    stop: threading.Event = field(default_factory=threading.Event)
    moved: Counter[State] = field(default_factory=Counter)
    leads: bool = False

    def run(self) -> None:
        """Watch until stopped."""
        leadership = Leadership()
        pulse = Pulse(Heartbeat.Role.WATCHER)
        said = False
        while not self.stop.is_set():
            try:
                if leadership.acquire():
                    log.info("watcher-leads")
                    said = False
                    self.leads = True
                    self._lead(leadership, pulse)
                else:
                    if not said:
                        log.info("watcher-stands-by")
                        said = True
                    pulse.beat({"leads": False})
            except (OperationalError, InterfaceError, LostLeadership) as error:
                log.warning("watcher-without-database", error=f"{type(error).__name__}: {error}".splitlines()[0])
                connection.close()
            finally:
                self.leads = False
                leadership.release()
            self.stop.wait(STANDBY)
        try:
            pulse.rest()
        except (OperationalError, InterfaceError):
            connection.close()

    def _lead(self, leadership: Leadership, pulse: Pulse) -> None:
        term = Term(leadership=leadership, resync=self.resync, moved=self.moved)
        try:
            while not self.stop.is_set():
                term.step()
                pulse.beat({"leads": True, "tracked": len(term.tracker.jobs), "lists": term.jobs.lists})
        finally:
            term.close()
