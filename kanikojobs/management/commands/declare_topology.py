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
        if not settings.RABBITMQ_URL:
            raise CommandError("RABBITMQ_URL is not set. Write amqp://user:password@host:5672/.")
        wanted = topology()
        try:
            connection = amqp.connect(settings.RABBITMQ_URL, name="kanikojobs declare_topology")
        except amqp.CONNECTION_ERRORS as error:
            raise CommandError(f"RabbitMQ cannot be reached: {type(error).__name__} {error}".rstrip()) from None
        try:
            amqp.declare(connection, wanted)
        except amqp.TopologyConflict as conflict:
            raise CommandError(conflict_advice(conflict)) from None
        finally:
            connection.close()
        for queue in wanted.queues:
            self.stdout.write(f"queue {queue.name}")
            for exchange, routing_key in queue.bindings:
                self.stdout.write(f"  bound to exchange {exchange} by {routing_key}")


def conflict_advice(conflict: amqp.TopologyConflict) -> str:
    """What differs, and the ways out."""
    lines = "\n".join(f"  {difference}" for difference in conflict.differences)
    return (
        f"RabbitMQ has other arguments, which it cannot change in place:\n{lines}\n"
        "Either set the environment to what is there, or overrule it with a policy "
        "(rabbitmqctl set_policy; TTL, length, overflow and dead-lettering can be overruled, the type cannot), "
        "or drain the queue, delete it and declare it anew."
    )
