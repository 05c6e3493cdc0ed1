"""The gate before the consumer: whether it may take messages now."""

from collections.abc import Callable

from kanikojobs import pausing
from kanikojobs.consumer_status import Counts
from kanikojobs.heartbeats import Pulse
from kanikojobs.models import Heartbeat, JobStartEvent


def gate_of(pulse: Pulse, *, dead_letters_only: bool = False) -> Callable[[Counts], bool]:
    """Asked once a second: open unless an operator has paused consuming. The question is a sign of life, too.

    One that takes dead letters only measures the depth of another queue than the one that is asked about.

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
                "queue_depth": None if dead_letters_only else counts.depth,
                "dead_letters_only": dead_letters_only,
            }
        )
        return not paused

    return is_open


def consumer_pulse() -> Pulse:
    return Pulse(Heartbeat.Role.CONSUMER)
