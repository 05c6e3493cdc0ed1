"""What Django-Q2's workers call: primary keys in, one domain call."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from django_q.tasks import async_task

from kanikojobs import creation
from kanikojobs.models import PruneRun
from kanikojobs.replay import rules, running
from kanikojobs.replay.running import DueStep
from kanikojobs.retention import pruning


def create_jobs(token: str, kaniko_jobs: Sequence[int], on_trial: bool = False) -> str:
    """Create the Jobs of claimed Kaniko Jobs; the text is what Django-Q2 shows as the task's result."""
    return str(creation.create(token=UUID(token), kaniko_jobs=kaniko_jobs, on_trial=on_trial))


def replay_step(run_id: int, token: str, due_at: str) -> str:
    """Take a claimed step of a replay, and those that are due right after it for a second or two."""
    due = DueStep(run_id, datetime.fromisoformat(token), datetime.fromisoformat(due_at))
    run = running.advance(due, seconds=2)
    return f"replay {run_id}: {run.state if run else 'left to others'}"


def apply_rule(rule_id: int) -> str:
    """Start what is due by a standing rule."""
    run = rules.apply(rule_id)
    return f"rule {rule_id}: {f'replay {run.pk}' if run else 'nothing due'}"


def prune(run_id: int | None = None) -> str:
    """Prune for some seconds: go on with that run, or, when it is time, with whichever nobody is at.

    What is left is another task, so that no worker is away from its Kaniko Jobs for long.
    """
    run = pruning.begin() if run_id is None else PruneRun.objects.get(pk=run_id)
    if not run.ongoing or (run_id is None and pruning.is_at_work(run)):
        return f"pruning {run.pk} is left to others"
    if pruning.prune(share=pruning.SHARE, seconds=pruning.TASK_SECONDS):
        return f"pruning {run.pk} is finished"
    async_task("kanikojobs.tasks.prune", run.pk, q_options={"task_name": f"pruning {run.pk}", "save": False})
    return f"pruning {run.pk} goes on"
