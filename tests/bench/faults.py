"""Nothing lost and nothing twice, at length: 20,000 events, ten SIGKILLs, RabbitMQ restarted once, Postgres twice.

No measurement but a reckoning, so it runs once and fails loudly. The suite's `test_faults_intake.py` is its short form.
"""

import subprocess
import sys
from collections.abc import Callable
from functools import partial

from deploy.local.postgres import Postgres
from deploy.local.rabbitmq import RabbitMQ
from deploy.local.stack import CHECKOUT
from tests import intake_faults
from tests.bench.harness import Bench, Case, Contender, Sample

QUEUE = "bench-faults"
QUEUES = [QUEUE, f"{QUEUE}.dlq"]
ENVIRONMENT = {"KANIKOJOBS_QUEUE": QUEUE, "KANIKOJOBS_DLQ": f"{QUEUE}.dlq", "KANIKOJOBS_DLX": f"{QUEUE}.dlx"}
EVENTS, KILLS, SECONDS = 20_000, 10, 60.0


def cases(bench: Bench) -> list[Case]:
    bench.migrate()
    return [
        Case(
            name="intake: killed ten times",
            units={"confirmed": "events", "lost": "events", "twice": "events", "left in the queue": "messages"},
            ours=Contender("consume_queue", partial(reckoning, bench)),
            runs=1,
        )
    ]


def reckoning(bench: Bench) -> Sample:
    """Do the faults, and raise if anything does not add up."""
    environment = bench.environment() | ENVIRONMENT
    subprocess.run([sys.executable, "manage.py", "declare_topology"], cwd=CHECKOUT, env=environment, check=True)
    bench.empty_tables()
    found = intake_faults.run(
        rabbitmq_url=bench.stack.rabbitmq.url,
        database_url=bench.stack.postgres.url,
        queues=QUEUES,
        start_consumer=lambda: bench.stack.start_process(
            name="faults-consumer", command=[sys.executable, "manage.py", "consume_queue"], env=environment
        ),
        faults=restarts(bench),
        kills=KILLS,
        events=bench.amount(EVENTS),
        seconds=SECONDS * min(1.0, bench.size),
    )
    if faults := found.faults():
        raise RuntimeError("; ".join(faults))
    return {
        "confirmed": len(found.confirmed),
        "lost": len(found.confirmed - set(found.stored)),
        "twice": len(found.stored) - len(set(found.stored)),
        "left in the queue": found.left,
    }


def restarts(bench: Bench) -> list[Callable[[], object]]:
    """RabbitMQ once and Postgres twice, if they are ours to restart."""
    postgres, rabbitmq = bench.stack.postgres, bench.stack.rabbitmq
    if not isinstance(postgres, Postgres) or not isinstance(rabbitmq, RabbitMQ):
        raise RuntimeError("The faults need servers of their own: unset DATABASE_URL and RABBITMQ_URL.")
    return [rabbitmq.restart, postgres.restart, postgres.restart]
