"""The gate before the consumer: whether it may take messages now."""

from collections.abc import Callable

from kanikojobs import pausing
from kanikojobs.consumer_status import Counts
from kanikojobs.heartbeats import Pulse
from kanikojobs.models import Heartbeat, JobStartEvent


def gate_of(pulse: Pulse) -> Callable[[Counts], bool]:
    """Asked once a second: open unless an operator has paused consuming. The question is a sign of life, too.

    Raises what the database raises: `OperationalError` while it is away, `ProgrammingError` without its tables. Found
    out here, before anything is taken, neither costs a message one of its deliveries.
    """

    def is_open(counts: Counts) -> bool:
        JobStartEvent.objects.only("pk").first()
        paused = pausing.current().paused
        pulse.beat(
            {
                "messages": counts.taken,
                "reconnects": counts.reconnects,
                "paused": paused,
                "rabbitmq": counts.connected,
                "queue_depth": counts.depth,
            }
        )
        return not paused

    return is_open


def consumer_pulse() -> Pulse:
    return Pulse(Heartbeat.Role.CONSUMER)
