"""Who may read what over REST: the same permissions as in the admin, and nothing for anybody else."""

from typing import TYPE_CHECKING, Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

if TYPE_CHECKING:
    # DRF imports this module, named in its settings, while it is about to define APIView.
    from rest_framework.views import APIView


class MayView(BasePermission):
    """Needs the `view` permission of the view's model, or of Kaniko Jobs where a view has no model of its own.

    Only for reading: a view with actions names its own permission classes.
    """

    message = "Ask for the permission to view this, or send a token that has it."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        if request.method not in ("GET", "HEAD", "OPTIONS"):
            return False
        queryset: Any = getattr(view, "queryset", None)
        model = queryset.model._meta.model_name if queryset is not None else "kanikojob"
        return bool(request.user and request.user.is_active and request.user.has_perm(f"kanikojobs.view_{model}"))


class StatsForAll(BasePermission):
    """The flat numbers of `/async-jobs/stats` are for everybody, as they were in the system's first version."""

    def has_permission(self, request: Request, view: "APIView") -> bool:
        return request.method in ("GET", "HEAD", "OPTIONS")


class MayAct(BasePermission):
    """Reading needs the `view` permission; each action the one that its view names in `action_permissions`."""

    message = "Ask for the permission to do this, or send a token that has it."

    def has_permission(self, request: Request, view: "APIView") -> bool:
        needed = getattr(view, "action_permissions", {}).get(getattr(view, "action", None))
        if needed is None:
            return MayView().has_permission(request, view)
        return bool(request.user and request.user.is_active and request.user.has_perm(f"kanikojobs.{needed}"))
