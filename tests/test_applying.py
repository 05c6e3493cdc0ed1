"""What was seen of Jobs becomes states of rows, in whatever order the two streams, Jobs and pods, have brought it."""

from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from django.conf import settings

from kanikojobs import applying
from kanikojobs.leader import Leadership
from kanikojobs.models import KanikoJob
from kanikojobs.observed import Container, Job, Pod
from kanikojobs.states import State
from kanikojobs.tracking import Tracked
from tests.factories import a_kaniko_job

pytestmark = pytest.mark.django_db(transaction=True)

BACK_OFF = Container(name="kaniko", init=False, state="waiting", reason="ImagePullBackOff", message="Back-off pulling")


@pytest.fixture
def leadership(transactional_db: None) -> Iterator[Leadership]:
    """Taken as the watcher takes it, which opens a connection of its own where there is a doubt."""
    held = Leadership()
    assert held.acquire()
    yield held
    held.release()


@pytest.mark.parametrize(
    "ending",
    [
        {"terminating": True},
        {"phase": "Failed", "containers": ()},
        {"terminating": True, "containers": (replace(BACK_OFF, state="terminated", reason="ContainerStatusUnknown"),)},
    ],
    ids=["being removed", "failed", "removed, its containers unknown"],
)
def test_a_pod_that_ends_before_its_job_does_not_take_back_what_it_waited_for(
    leadership: Leadership, ending: dict[str, object]
) -> None:
    row = a_kaniko_job(state=State.CREATED, namespace=settings.KANIKOJOBS_NAMESPACE)
    job = Job(name=row.name, uid=str(row.job_uid))
    pod = Pod(name=f"{row.name}-x", uid=str(uuid4()), job_name=row.name, phase="Pending", containers=(BACK_OFF,))
    told: list[tuple[str, str]] = []

    for seen_job, seen_pod in [
        (job, pod),
        (job, replace(pod, **ending)),  # type: ignore[arg-type]
        (replace(job, end="Failed", reason="DeadlineExceeded"), replace(pod, **(ending | {"phase": "Failed"}))),  # type: ignore[arg-type]
    ]:
        tracked = Tracked(job=seen_job, pods={pod.uid: seen_pod})
        applying.apply({row.name: tracked}, leadership=leadership)
        now = KanikoJob.objects.get(pk=row.pk)
        told.append((now.state, now.reason))

    assert told == [
        (State.CREATED, "ImagePullBackOff"),
        (State.CREATED, "ImagePullBackOff"),
        (State.FAILED, "ImagePullBackOff"),
    ]
