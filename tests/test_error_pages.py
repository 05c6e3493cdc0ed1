"""Pages of errors say in words what is wrong and lead back, and need nothing that may be broken."""

from collections.abc import Callable
from http import HTTPStatus

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import SuspiciousOperation
from django.http import HttpResponse
from django.test import Client, RequestFactory
from django.views import defaults


def answered(view: Callable[..., HttpResponse], *arguments: Exception) -> HttpResponse:
    return view(RequestFactory().get("/admin/"), *arguments)


@pytest.mark.parametrize(
    ("view", "arguments", "heading"),
    [
        (defaults.bad_request, (SuspiciousOperation(),), "Not understood"),
        (defaults.permission_denied, (PermissionError(),), "Not allowed"),
        (defaults.page_not_found, (LookupError(),), "Not found"),
        (defaults.server_error, (), "Something broke"),
    ],
)
def test_an_error_has_a_page_without_the_database(
    view: Callable[..., HttpResponse], arguments: tuple[Exception, ...], heading: str
) -> None:
    text = answered(view, *arguments).content.decode()

    assert f"<h1>{heading}</h1>" in text
    assert '<a href="/admin/">Back to the control room</a>' in text
    assert "style=" not in text


@pytest.mark.django_db
def test_a_form_that_is_too_old_says_to_load_the_page_again() -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("somebody"))

    answer = client.post("/admin/logout/")

    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert "Go back, load the page again" in answer.content.decode()


@pytest.mark.django_db
def test_who_may_not_is_told_whom_to_ask() -> None:
    client = Client()
    client.force_login(User.objects.create_user("somebody", is_staff=True))

    answer = client.get("/admin/kanikojobs/deadletter/")

    assert answer.status_code == HTTPStatus.FORBIDDEN
    assert "Ask whoever keeps the accounts" in answer.content.decode()
