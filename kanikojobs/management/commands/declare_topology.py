"""`manage.py declare_topology`: make the queues, the dead-letter exchange and the bindings be there."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from kanikojobs import amqp
from kanikojobs.topology import topology


class Command(BaseCommand):
    help = (
        "Declares the queue, the dead-letter queue, the dead-letter exchange and the bindings. Names every "
        "difference to what is there, and exits with 1 then, because RabbitMQ cannot change a queue in place."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        wanted = topology()
        try:
            with amqp.connect(rabbitmq_url(), name="kanikojobs declare_topology") as connection:
                amqp.declare(connection, wanted)
        except amqp.TopologyConflict as conflict:
            raise CommandError(conflict_advice(conflict)) from None
        except amqp.CONNECTION_ERRORS as error:
            raise CommandError(amqp.refusal(error) or f"RabbitMQ cannot be reached: {amqp.brief(error)}") from None
        for queue in wanted.queues:
            self.stdout.write(f"queue {queue.name}")
            for exchange, routing_key in queue.bindings:
                self.stdout.write(f"  bound to exchange {exchange} by {routing_key}")


def rabbitmq_url() -> str:
    """RABBITMQ_URL. Raises `CommandError` if it is not set or no URL of a broker."""
    url: str = settings.RABBITMQ_URL
    if not amqp.is_url(url):
        missing = "is not set" if not url else "is no URL of a broker"
        raise CommandError(f"RABBITMQ_URL {missing}. Write amqp://user:password@host:5672/.")
    return url


def conflict_advice(conflict: amqp.TopologyConflict) -> str:
    """What differs, and the ways out."""
    lines = "\n".join(f"  {difference}" for difference in conflict.differences)
    return (
        f"RabbitMQ has other arguments, which it cannot change in place:\n{lines}\n"
        "Either set the environment to what is there (KANIKOJOBS_MESSAGE_TTL_MS, KANIKOJOBS_MAX_LENGTH and so on); a "
        "policy can then lower its limits without declaring it anew (rabbitmqctl set_policy). "
        "Or drain the queue, delete it (rabbitmqctl delete_queue) and declare it again."
    )
