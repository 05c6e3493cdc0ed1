"""`manage.py qcluster`: Django-Q2's cluster of workers, with two things mended.

What a cluster that is asked to stop holds in memory is given back at once instead of finished first, and a worker that
is killed while it waits for a task does not take the queue of all the others with it.
"""

import os
from types import FrameType
from typing import Any

import django_q.cluster
from django_q.management.commands.qcluster import Command as DjangoQCommand

from kanikojobs import stopping
from kanikojobs.queue import TaskQueue


class Cluster(django_q.cluster.Cluster):
    def sig_handler(self, signum: int, frame: FrameType | None) -> None:
        stopping.ask()
        super().sig_handler(signum, frame)


class Command(DjangoQCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        if options["cluster_name"]:
            os.environ["Q_CLUSTER_NAME"] = options["cluster_name"]
        # Django-Q2 has no setting for it.
        django_q.cluster.Queue = TaskQueue
        cluster = Cluster()
        cluster.start()
        if options["run_once"]:
            cluster.stop()
