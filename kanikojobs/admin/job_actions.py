"""Retry and cancel in the admin: for one Kaniko Job on its page, for several from the list; POST, with a reason."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.views.decorators.http import require_POST

from kanikojobs import audit, job_logs, retry
from kanikojobs.admin.rows import ReadOnlyAdmin, tone
from kanikojobs.advice import advice
from kanikojobs.models import Drift, JobEvidence, KanikoJob, OperatorAction
from kanikojobs.retry import Act, OverridesInvalid
from kanikojobs.states import FINISHED

MOST_AT_ONCE = 1000
# The fields of the form that retries with other parameters; the rest is for REST and the command.
EDITABLE = ("memory", "cpu", "build_timeout", "priority")


class ReasonForm(ActionForm):
    """What stands beside the list of actions."""

    reason = forms.CharField(required=False, max_length=audit.MOST_REASON_CHARACTERS, label="Why:")


class JobActions(ReadOnlyAdmin):
    """What a Kaniko Job's pages offer to those who may."""

    actions: Any = ("retry_selected", "cancel_selected")
    action_form = ReasonForm
    change_form_template = "admin/kaniko_job.html"

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("kanikojobs.retry_kanikojob")

    def has_cancel_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("kanikojobs.cancel_kanikojob")

    @admin.action(description="Retry selected Kaniko Jobs", permissions=["retry"])
    def retry_selected(self, request: HttpRequest, jobs: QuerySet[KanikoJob]) -> None:
        self._act_on(request, jobs, act=retry.retry, done="retried")

    @admin.action(description="Cancel selected Kaniko Jobs", permissions=["cancel"])
    def cancel_selected(self, request: HttpRequest, jobs: QuerySet[KanikoJob]) -> None:
        self._act_on(request, jobs, act=retry.cancel, done="cancelled, or about to be")

    def _act_on(self, request: HttpRequest, jobs: QuerySet[KanikoJob], *, act: Callable[..., Act], done: str) -> None:
        author = audit.by_user(request.user, via=OperatorAction.Via.ADMIN)
        ids = list(jobs.order_by("id").values_list("pk", flat=True)[: MOST_AT_ONCE + 1])
        if len(ids) > MOST_AT_ONCE:
            messages.error(request, f"Not more than {MOST_AT_ONCE} at once.")
            return
        refused: list[Act] = []
        try:
            for id in ids:
                result = act(id, author=author, reason=request.POST.get("reason", ""))
                if not result.done:
                    refused.append(result)
        except (audit.ReasonMissing, OverridesInvalid) as problem:
            messages.error(request, str(problem))
            return
        if len(refused) < len(ids):
            messages.success(request, f"{len(ids) - len(refused)} {done}.")
        for result in refused[:10]:
            messages.warning(request, f"{result.kaniko_job.name}: {result.message}")
        if len(refused) > 10:
            messages.warning(request, f"{len(refused) - 10} more were refused.")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:id>/retry/", view(self.retry_one), name="kanikojobs_kanikojob_retry"),
            path("<int:id>/cancel/", view(self.cancel_one), name="kanikojobs_kanikojob_cancel"),
            *super().get_urls(),
        ]

    @method_decorator(require_POST)
    def retry_one(self, request: HttpRequest, id: int) -> HttpResponse:
        if not self.has_retry_permission(request):
            raise PermissionDenied
        overrides: dict[str, Any] = {name: text for name in EDITABLE if (text := request.POST.get(name, "").strip())}
        for name in ("build_timeout", "priority"):
            if overrides.get(name, "").isdecimal():
                overrides[name] = int(overrides[name])
        return self._act(request, id, act=retry.retry, overrides=overrides)

    @method_decorator(require_POST)
    def cancel_one(self, request: HttpRequest, id: int) -> HttpResponse:
        if not self.has_cancel_permission(request):
            raise PermissionDenied
        return self._act(request, id, act=retry.cancel)

    def _act(self, request: HttpRequest, id: int, *, act: Callable[..., Act], **what: Any) -> HttpResponse:
        author = audit.by_user(request.user, via=OperatorAction.Via.ADMIN)
        shown = id
        try:
            result = act(id, author=author, reason=request.POST.get("reason", ""), **what)
        except KanikoJob.DoesNotExist:
            raise Http404 from None
        except (audit.ReasonMissing, OverridesInvalid) as problem:
            messages.error(request, str(problem))
        else:
            (messages.success if result.done else messages.warning)(request, result.message)
            shown = result.kaniko_job.pk
        return HttpResponseRedirect(reverse("admin:kanikojobs_kanikojob_change", args=[shown]))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        job = self.get_object(request, object_id)
        story = _story(job) if job is not None and self.has_view_permission(request, job) else {}
        return super().change_view(request, object_id, form_url, {**story, **(extra_context or {})})


def _story(job: KanikoJob) -> dict[str, Any]:
    """What the page of a Kaniko Job shows beside its fields."""
    finished = job.state in FINISHED
    return {
        "finished": finished,
        "tone": tone(job.state),
        "advice": advice(job.reason),
        "evidence": JobEvidence.objects.filter(kaniko_job=job).first(),
        "logs": list(job.logs.order_by("id")),
        "live": not finished and job.state in ("created", "running"),
        "main_container": job_logs.MAIN_CONTAINER,
        "drift": list(Drift.objects.filter(kaniko_job=job).order_by("found_at")),
        "acts": list(OperatorAction.objects.filter(target_type="kanikojob", target_id=str(job.pk)).order_by("id")[:50]),
        "most_characters": audit.MOST_REASON_CHARACTERS,
    }
