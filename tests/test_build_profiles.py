"""Profiles in the admin: by those who may, checked as the settings are, and with a history of who changed what."""

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from kanikojobs.models import BuildProfile

pytestmark = pytest.mark.django_db

GIVEN = {
    "third_party_id": "special",
    "destination": "registry.example.com/special/{parser_id}:{number}",
    "resources": "memory_limit=8Gi",
    "allowed_hosts": "git.example.com",
    "max_active_jobs": "3",
}
ADD = "admin:kanikojobs_buildprofile_add"


def person(client: Client, *may: str) -> User:
    user = User.objects.create_user("somebody", is_staff=True)
    for action in may:
        user.user_permissions.add(Permission.objects.get(codename=f"{action}_buildprofile"))
    client.force_login(user)
    return user


def test_a_profile_is_added_and_changed_and_each_is_on_record(client: Client) -> None:
    user = person(client, "view", "add", "change")

    client.post(reverse(ADD), GIVEN)
    profile = BuildProfile.objects.get()
    change = reverse("admin:kanikojobs_buildprofile_change", args=[profile.pk])
    client.post(change, GIVEN | {"max_active_jobs": "5"})

    profile.refresh_from_db()
    history = LogEntry.objects.order_by("id")
    assert profile.max_active_jobs == 5
    assert [(entry.user_id, entry.action_flag) for entry in history] == [(user.pk, 1), (user.pk, 2)]
    assert "Max active jobs" in history[1].get_change_message()
    assert (
        "somebody" in client.get(reverse("admin:kanikojobs_buildprofile_history", args=[profile.pk])).content.decode()
    )


def test_what_the_settings_would_refuse_is_refused_at_its_field(client: Client) -> None:
    person(client, "view", "add")

    answer = client.post(reverse(ADD), GIVEN | {"resources": "memory_limit=plenty"})

    assert answer.context["adminform"].form.errors == {
        "resources": ["memory_limit: not a quantity such as 500m, 2 or 4Gi"]
    }
    assert not BuildProfile.objects.exists()


@pytest.mark.parametrize("may", [(), ("view",), ("change",)])
def test_without_the_right_nothing_is_added(client: Client, may: tuple[str, ...]) -> None:
    person(client, *may)

    answer = client.post(reverse(ADD), GIVEN)

    assert answer.status_code == 403
    assert not BuildProfile.objects.exists()
