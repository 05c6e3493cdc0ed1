"""What Django-Q2's workers call: primary keys in, one domain call."""

from collections.abc import Sequence
from uuid import UUID

from kanikojobs import creation


def create_jobs(token: str, kaniko_jobs: Sequence[int], on_trial: bool = False) -> str:
    """Create the Jobs of claimed Kaniko Jobs; the text is what Django-Q2 shows as the task's result."""
    return str(creation.create(token=UUID(token), kaniko_jobs=kaniko_jobs, on_trial=on_trial))
