"""What operators did, as a list, and above it the form that pauses and resumes consuming."""

from typing import Any

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from kanikojobs import audit, pausing
from kanikojobs.admin.rows import ReadOnlyAdmin
from kanikojobs.models import OperatorAction


@admin.register(OperatorAction)
class OperatorActionAdmin(ReadOnlyAdmin):
    list_display = ("at", "by", "kind", "target", "reason", "via")
    list_filter = ("kind", "via", "at")
    search_fields = ("by__exact", "target_id__exact")
    search_help_text = "A whole user name or target id."
    change_list_template = "admin/kanikojobs/operatoraction/change_list.html"

    @admin.display(description="target")
    def target(self, act: OperatorAction) -> str:
        """The row that it was done to, with a link to its page; nothing for what concerns the system."""
        if not act.target_id:
            return ""
        try:
            words = apps.get_model("kanikojobs", act.target_type)._meta.verbose_name
            address = reverse(f"admin:kanikojobs_{act.target_type}_change", args=[act.target_id])
        except (LookupError, NoReverseMatch):
            return f"{act.target_type} {act.target_id}"
        return format_html('<a href="{}">{} {}</a>', address, words, act.target_id)

    def get_urls(self) -> list[URLPattern]:
        switch = path(
            "consumer/", self.admin_site.admin_view(self.switch_consumer), name="kanikojobs_operatoraction_consumer"
        )
        return [switch, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = (extra_context or {}) | {
            "pause": pausing.current(),
            "may_pause": request.user.has_perm("kanikojobs.pause_consumer"),
            "most_characters": audit.MOST_REASON_CHARACTERS,
        }
        return super().changelist_view(request, context)

    @method_decorator(require_POST)
    def switch_consumer(self, request: HttpRequest) -> HttpResponse:
        """Pause or resume, as the form says."""
        if not request.user.has_perm("kanikojobs.pause_consumer"):
            raise PermissionDenied
        pausing_it = request.POST.get("switch") == "pause"
        switch = pausing.pause if pausing_it else pausing.resume
        try:
            author = audit.by_user(request.user, via=OperatorAction.Via.ADMIN)
            changed = switch(author=author, reason=request.POST.get("reason", ""))
        except audit.ReasonMissing as missing:
            messages.error(request, str(missing))
        else:
            now = "paused" if pausing_it else "running"
            messages.success(request, f"Consuming is {now}." if changed else f"Consuming was {now} already.")
        return HttpResponseRedirect(reverse("admin:kanikojobs_operatoraction_changelist"))
