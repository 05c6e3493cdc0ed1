"""Reading a build's log: live from its pod, afterwards from the row, always redacted."""

from collections.abc import Iterator
from threading import Thread
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client

from deploy.local.simulator import Simulator
from kanikojobs import job_logs
from kanikojobs.models import KanikoJob
from kanikojobs.redaction import LineRedactor
from tests.factories import a_kaniko_job
from tests.watched_jobs import created_jobs, wait_captured, wait_finished, wait_until, watching

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def viewer(client: Client) -> Client:
    user = User.objects.create_user("viewer")
    user.user_permissions.add(Permission.objects.get(codename="view_kanikojob"))
    client.force_login(user)
    return client


def lines_of(answer: Any) -> Iterator[str]:
    yield from b"".join(answer.streaming_content).decode().splitlines()


def a_running_job(simulator: Simulator) -> KanikoJob:
    simulator.outcomes(default="hang")
    (job,) = created_jobs(1)
    wait_until(lambda: any(place.container == "kaniko" for place in job_logs.places(job)))
    return job


def test_a_log_is_followed_while_it_is_written_and_ends_with_the_container(
    simulator: Simulator, viewer: Client
) -> None:
    job = a_running_job(simulator)
    heard: list[str] = []

    def listen() -> None:
        try:
            for chunk in viewer.get(f"/async-jobs/jobs/{job.pk}/logs?follow=1"):
                heard.append(chunk.decode())
        finally:
            connections.close_all()

    listener = Thread(target=listen)
    listener.start()
    wait_until(lambda: any("Retrieving image manifest" in text for text in heard))
    simulator.write_log(job.name, "\x1b[33mand now the password=hunter2 of it\x1b[0m")
    wait_until(lambda: any("and now" in text for text in heard))
    simulator.end_pod(job.name, outcome="build-error")
    listener.join(60)

    assert not listener.is_alive()
    assert "hunter2" not in "".join(heard)
    assert "and now the password=[redacted: secret] of it\n" in heard


def test_without_following_it_is_what_there_is_now(simulator: Simulator, viewer: Client) -> None:
    job = a_running_job(simulator)
    simulator.write_log(job.name, "\x1b[1;31mtoken=abcdef123456\x1b[0m")

    answer = viewer.get(f"/async-jobs/jobs/{job.pk}/logs")

    assert answer.status_code == 200
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["X-Kaniko-Container"] == "kaniko"
    assert "token=[redacted: secret]\n" in answer.content.decode()


def test_afterwards_it_comes_from_the_row(simulator: Simulator, viewer: Client) -> None:
    jobs = created_jobs(1)
    with watching():
        wait_finished(jobs)
        wait_captured(jobs)
    simulator.reset()

    whole = viewer.get(f"/async-jobs/jobs/{jobs[0].pk}/logs?follow=1").content.decode()
    source = viewer.get(f"/async-jobs/jobs/{jobs[0].pk}/logs?container=source").content.decode()

    # kaniko writes in colours; what is kept and told by is its words.
    assert "\nINFO[0014] Pushed registry:5000/" in whole
    assert "\x1b" not in whole
    assert source == "source: prepared the build context\n"


def test_who_follows_a_log_that_is_still_to_come_is_asked_to_come_again(simulator: Simulator, viewer: Client) -> None:
    job = a_kaniko_job(namespace="kaniko-builds")

    answer = viewer.get(f"/async-jobs/jobs/{job.pk}/logs?follow=1")

    assert (answer.status_code, answer["Retry-After"], answer.content) == (204, "5", b"")


@pytest.mark.parametrize("path", ["", "?container=nobody"])
def test_where_there_is_no_log_it_is_not_found(simulator: Simulator, viewer: Client, path: str) -> None:
    job = a_kaniko_job(namespace="kaniko-builds")

    answers = [viewer.get(f"/async-jobs/jobs/{id}/logs{path}") for id in (job.pk, 999_999)]

    assert [answer.status_code for answer in answers] == [404, 404]


def test_who_may_not_view_reads_no_log(client: Client) -> None:
    job = a_kaniko_job()
    client.force_login(User.objects.create_user("nobody"))

    assert client.get(f"/async-jobs/jobs/{job.pk}/logs").status_code == 403


def test_no_more_are_followed_than_leave_threads_for_others(
    simulator: Simulator, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_running_job(simulator)
    held = 0
    while job_logs._followers.acquire(blocking=False):
        held += 1

    answer = viewer.get(f"/async-jobs/jobs/{job.pk}/logs?follow=1")

    for _ in range(held):
        job_logs._followers.release()
    assert held == job_logs.MOST_FOLLOWERS
    assert answer.status_code == 503
    assert answer["Retry-After"] == "10"


@pytest.mark.parametrize("asks_for_a_line", [True, False])
def test_who_hangs_up_gives_the_place_back(simulator: Simulator, asks_for_a_line: bool) -> None:
    job = a_running_job(simulator)
    place = job_logs.chosen(job, container="")
    assert place is not None

    for _ in range(2 * job_logs.MOST_FOLLOWERS):
        lines = job_logs.Following(place)
        if asks_for_a_line:
            assert next(lines)
        lines.close()
        lines.close()


def test_a_response_that_nobody_reads_gives_the_place_back(simulator: Simulator, viewer: Client) -> None:
    job = a_running_job(simulator)

    for _ in range(2 * job_logs.MOST_FOLLOWERS):
        answer = viewer.get(f"/async-jobs/jobs/{job.pk}/logs?follow=1")
        assert answer.status_code == 200
        answer.close()


def test_only_the_head_is_no_reason_to_follow(simulator: Simulator, viewer: Client) -> None:
    job = a_running_job(simulator)

    answer = viewer.head(f"/async-jobs/jobs/{job.pk}/logs?follow=1")

    assert (answer.status_code, answer.streaming, answer.content) == (200, False, b"")


def test_who_followed_as_long_as_can_be_is_told_so(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_logs, "LONGEST_SILENCE", 0.3)
    job = a_running_job(simulator)
    place = job_logs.chosen(job, container="")
    assert place is not None
    following = job_logs.Following(place)

    *_, last = following

    following.close()
    assert last == "(no more is followed here; ask again to go on)\n"


def test_a_private_key_is_struck_out_line_by_line() -> None:
    redactor = LineRedactor()
    lines = ["before", "-----BEGIN PRIVATE KEY-----", "MIIEpAIBAAKC", "-----END PRIVATE KEY-----", "after"]

    told = [redactor.redact(line) for line in lines]

    assert told == ["before", "[redacted: private key]", "", "", "after"]


def test_the_words_of_a_private_key_alone_hide_nothing_else() -> None:
    redactor = LineRedactor()

    told = [redactor.redact(line) for line in ["-----BEGIN PRIVATE KEY-----", "was only said", "after"]]

    assert told == ["[redacted: private key]", "was only said", "after"]


def test_hostile_text_stays_text(simulator: Simulator, viewer: Client) -> None:
    job = a_running_job(simulator)
    simulator.write_log(job.name, "<script>alert(1)</script>")

    answer = viewer.get(f"/async-jobs/jobs/{job.pk}/logs")

    assert answer["Content-Type"].startswith("text/plain")
    assert answer["X-Content-Type-Options"] == "nosniff"
