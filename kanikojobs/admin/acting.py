"""What pages with actions share: POST only, the action's permission, a reason, and a message of what came of it."""

from collections.abc import Callable
from functools import wraps
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST

from kanikojobs import audit
from kanikojobs.audit import Author
from kanikojobs.models import OperatorAction


class ReasonForm(ActionForm):
    """What stands beside the list of actions."""

    reason = forms.CharField(required=False, max_length=audit.MOST_REASON_CHARACTERS, label="Why:")


def author_of(request: HttpRequest) -> Author:
    return audit.by_user(request.user, via=OperatorAction.Via.ADMIN)


def needs(permission: str) -> Callable[[Callable[..., HttpResponse]], Callable[..., HttpResponse]]:
    """For a method of a `ModelAdmin` that acts: POST, and this permission of the application's."""

    def decorate(view: Callable[..., HttpResponse]) -> Callable[..., HttpResponse]:
        @wraps(view)
        def guarded(self: Any, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
            if not request.user.has_perm(f"kanikojobs.{permission}"):
                raise PermissionDenied
            post: Callable[[HttpRequest], HttpResponse] = require_POST(
                lambda request: view(self, request, *args, **kwargs)
            )
            return post(request)

        return guarded

    return decorate


def attempt(request: HttpRequest, act: Callable[[], str], *, problems: tuple[type[Exception], ...]) -> bool:
    """Do it and tell what came of it; a problem is told instead. Return whether it was done."""
    try:
        told = act()
    except (*problems, audit.ReasonMissing) as problem:  # type: ignore[misc]
        messages.error(request, str(problem))
        return False
    messages.success(request, told)
    return True
