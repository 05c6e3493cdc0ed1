"""Pausing the consumer: by whom, why, from where, and that nothing is taken meanwhile."""

import json
import threading
from collections.abc import Callable

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.core.management import CommandError, call_command
from django.test import Client

from kanikojobs import pausing
from kanikojobs.audit import Author, ReasonMissing
from kanikojobs.gate import consumer_pulse, gate_of
from kanikojobs.metrics import OURS
from kanikojobs.models import JobStartEvent, OperatorAction
from tests.consuming import consuming, eventually, publish_samples, running

pytestmark = pytest.mark.django_db(transaction=True)

VIA_API = OperatorAction.Via.API
OLGA, OTTO = Author("olga", VIA_API), Author("otto", VIA_API)


@pytest.fixture
def operator() -> User:
    user = User.objects.create_user("olga", password="secret", is_staff=True)
    user.user_permissions.set(
        Permission.objects.filter(codename__in=["pause_consumer", "view_operatoraction", "view_kanikojob"])
    )
    return user


@pytest.fixture
def onlooker() -> User:
    user = User.objects.create_user("otto", password="secret", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_operatoraction", "view_kanikojob"]))
    return user


def test_it_is_not_paused_before_anybody_said_so() -> None:
    assert pausing.current() == pausing.Pause(paused=False)


def test_it_says_who_paused_and_why() -> None:
    changed = pausing.pause(author=OLGA, reason="a flood of bad events")

    pause = pausing.current()
    assert changed
    assert (pause.paused, pause.by, pause.reason) == (True, "olga", "a flood of bad events")


def test_pausing_twice_is_one_action_and_the_first_reason_stands() -> None:
    pausing.pause(author=OLGA, reason="first")

    changed = pausing.pause(author=OTTO, reason="second")

    assert not changed
    assert pausing.current().by == "olga"
    assert OperatorAction.objects.count() == 1


def test_resuming_what_was_never_paused_changes_nothing() -> None:
    assert not pausing.resume(author=OLGA, reason="to be sure")
    assert not OperatorAction.objects.exists()


def test_two_who_pause_at_once_leave_one_action() -> None:
    from django.db import connections

    barrier = threading.Barrier(4)

    def pause(number: int) -> None:
        barrier.wait()
        pausing.pause(author=Author(f"operator {number}", VIA_API), reason="at once")
        connections.close_all()

    threads = [threading.Thread(target=pause, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert OperatorAction.objects.count() == 1


@pytest.mark.parametrize("reason", ["", "  \n", "x" * 501, "nul\0"], ids=["empty", "blank", "too long", "NUL"])
def test_a_reason_is_demanded(reason: str) -> None:
    with pytest.raises(ReasonMissing):
        pausing.pause(author=OLGA, reason=reason)

    assert not pausing.current().paused


def test_actions_on_rows_do_not_hide_the_pause() -> None:
    pausing.pause(author=OLGA, reason="a flood")
    OperatorAction.objects.create(kind=OperatorAction.Kind.RETRY_JOB, by="otto", reason="again", via=VIA_API)

    assert pausing.current().paused


def test_the_commands_pause_and_resume(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("pause_consumer", reason="a migration")
    paused = pausing.current()
    call_command("resume_consumer", reason="done")
    call_command("resume_consumer", reason="done")

    assert (paused.paused, paused.reason) == (True, "a migration")
    assert not pausing.current().paused
    assert capsys.readouterr().out.splitlines() == [
        "Consuming is paused.",
        "Consuming is running.",
        "Consuming was running already.",
    ]


def test_the_command_says_what_is_wrong_with_a_reason() -> None:
    with pytest.raises(CommandError, match="Say why"):
        call_command("pause_consumer", reason=" ")


def test_the_api_pauses_in_the_users_name(operator: User) -> None:
    client = Client()
    client.force_login(operator)

    answer = client.post("/async-jobs/consumer/pause", {"reason": "a flood"}, content_type="application/json")

    assert answer.status_code == 200
    assert answer.json() | {"at": ""} == {"paused": True, "by": "olga", "reason": "a flood", "at": ""}
    assert OperatorAction.objects.get().user == operator
    assert client.get("/async-jobs/consumer").json()["paused"] is True


def test_the_api_resumes(operator: User) -> None:
    pausing.pause(author=OTTO, reason="a flood")
    client = Client()
    client.force_login(operator)

    answer = client.post("/async-jobs/consumer/resume", {"reason": "over"}, content_type="application/json")

    assert answer.json()["paused"] is False
    assert OperatorAction.objects.latest("id").by == "olga"


def test_the_api_asks_for_a_reason(operator: User) -> None:
    client = Client()
    client.force_login(operator)

    answer = client.post("/async-jobs/consumer/pause", {}, content_type="application/json")

    assert answer.status_code == 400
    assert "reason" in answer.json()


def test_who_may_only_look_cannot_pause_by_the_api(onlooker: User) -> None:
    client = Client()
    client.force_login(onlooker)

    answer = client.post("/async-jobs/consumer/pause", {"reason": "mine"}, content_type="application/json")

    assert answer.status_code == 403
    assert not OperatorAction.objects.exists()


def test_the_api_refuses_a_session_without_its_csrf_token(operator: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)

    answer = client.post("/async-jobs/consumer/pause", {"reason": "forged"}, content_type="application/json")

    assert answer.status_code == 403
    assert not OperatorAction.objects.exists()


def test_the_admins_form_pauses_and_shows_it(operator: User) -> None:
    client = Client()
    client.force_login(operator)

    answer = client.post(
        "/admin/kanikojobs/operatoraction/consumer/", {"switch": "pause", "reason": "<b>flood</b>"}, follow=True
    )

    page = answer.content.decode()
    assert OperatorAction.objects.get().via == OperatorAction.Via.ADMIN
    assert "Consuming is paused." in page
    assert "&lt;b&gt;flood&lt;/b&gt;" in page
    assert 'value="resume"' in page


def test_the_admins_form_tells_a_missing_reason(operator: User) -> None:
    client = Client()
    client.force_login(operator)

    answer = client.post("/admin/kanikojobs/operatoraction/consumer/", {"switch": "pause"}, follow=True)

    assert "Say why" in answer.content.decode()
    assert not OperatorAction.objects.exists()


def test_who_may_only_look_sees_no_form_and_is_refused(onlooker: User) -> None:
    client = Client()
    client.force_login(onlooker)

    page = client.get("/admin/kanikojobs/operatoraction/").content.decode()
    answer = client.post("/admin/kanikojobs/operatoraction/consumer/", {"switch": "pause", "reason": "mine"})

    assert "Consuming is not paused." in page
    assert 'name="switch"' not in page
    assert answer.status_code == 403
    assert not OperatorAction.objects.exists()


def test_the_admins_form_is_not_taken_by_get_or_without_a_csrf_token(operator: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)

    read = client.get("/admin/kanikojobs/operatoraction/consumer/")
    forged = client.post("/admin/kanikojobs/operatoraction/consumer/", {"switch": "pause", "reason": "forged"})

    assert (read.status_code, forged.status_code) == (405, 403)
    assert not OperatorAction.objects.exists()


@pytest.mark.parametrize("paused", [True, False])
def test_the_gauge_tells(paused: bool) -> None:
    if paused:
        pausing.pause(author=OLGA, reason="a flood")

    assert OURS.get_sample_value("kanikojobs_consuming_paused") == float(paused)


@pytest.mark.usefixtures("queues")
def test_nothing_is_taken_while_paused_and_all_afterwards() -> None:
    pausing.pause(author=OLGA, reason="a flood")
    publish_samples(range(20))

    with running(consuming(gate=gate_of(consumer_pulse()))) as consumer:
        eventually(lambda: consumer.counts.paused)
        while_paused = JobStartEvent.objects.count()
        pausing.resume(author=OLGA, reason="over")
        eventually(lambda: JobStartEvent.objects.count() == 20)

    assert while_paused == 0
    assert consumer.counts.recorded == 20


@pytest.mark.usefixtures("queues")
def test_what_is_held_goes_back_to_the_queue(depth: Callable[[str], int]) -> None:
    with running(consuming(gate=gate_of(consumer_pulse()))) as consumer:
        eventually(lambda: consumer.counts.database_up)
        pausing.pause(author=OLGA, reason="a flood")
        eventually(lambda: consumer.counts.paused)
        publish_samples(range(20))
        eventually(lambda: depth(settings.KANIKOJOBS_QUEUE) == 20)

    assert not JobStartEvent.objects.exists()


@pytest.mark.usefixtures("queues")
def test_draining_once_says_that_consuming_is_paused() -> None:
    pausing.pause(author=OLGA, reason="a flood")
    publish_samples(range(3))

    with pytest.raises(CommandError, match="resume_consumer"):
        call_command("consume_queue", once=True)

    assert not JobStartEvent.objects.exists()


def test_the_body_of_a_pause_is_json(operator: User) -> None:
    client = Client()
    client.force_login(operator)

    answer = client.post("/async-jobs/consumer/pause", json.dumps(["no object"]), content_type="application/json")

    assert answer.status_code == 400
