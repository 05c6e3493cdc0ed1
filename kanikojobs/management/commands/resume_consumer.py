"""`manage.py resume_consumer`: take messages from RabbitMQ again after `pause_consumer`."""

from collections.abc import Callable

from kanikojobs import pausing
from kanikojobs.management.commands import pause_consumer


class Command(pause_consumer.Command):
    help = "Resumes consuming for every consumer, within about a second. Who did it and why is kept."
    switch: Callable[..., bool] = staticmethod(pausing.resume)
