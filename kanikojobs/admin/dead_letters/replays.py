"""Replays: the plan with its button, the run with its progress, and what came of each dead letter."""

from datetime import timedelta
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone

from kanikojobs import audit, inspection
from kanikojobs.admin.acting import attempt, author_of, needs
from kanikojobs.admin.dead_letters.letters import link_to, run_url
from kanikojobs.admin.rows import ReadOnlyAdmin
from kanikojobs.models import FailureGroup, OperatorAction, ReplayItem, ReplayRun
from kanikojobs.replay import runs
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import NothingToReplay, Pace, PaceError
from kanikojobs.replay.selection import Selection, SelectionError, parse
from kanikojobs.replay.tables import DESCRIPTIONS

# A page waits for no more than these; a larger plan is counted in full on demand.
MOST_PLANNED = 1000
LISTS = ("ids", "groups", "causes")


class StartForm(forms.Form):
    """How fast, how careful, and why."""

    rate = forms.FloatField(
        required=False, min_value=0.001, initial=20, label="Per second", help_text="Empty: as fast as it goes."
    )
    probe = forms.IntegerField(
        required=False,
        min_value=0,
        initial=5,
        label="Probe",
        help_text="So many go first; the rest when they are well.",
    )
    max_failure_rate = forms.FloatField(
        required=False,
        min_value=0,
        max_value=100,
        initial=10,
        label="Stop above, %",
        help_text="When more fail again it pauses by itself.",
    )
    limit = forms.IntegerField(
        required=False, min_value=1, label="At most", help_text="The first so many, in the order of arrival."
    )
    reason = forms.CharField(max_length=audit.MOST_REASON_CHARACTERS, label="Why", initial="Mended; replayed.")

    def pace(self) -> Pace:
        """Raises `PaceError`."""
        given = self.cleaned_data
        return Pace(rate=given["rate"], probe=given["probe"] or 0, max_failure_rate=given["max_failure_rate"])


@admin.register(ReplayRun)
class ReplayRunAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "state",
        "what",
        "total",
        "handled",
        "queued",
        "failed",
        "author_name",
        "reason",
        "started_at",
    )
    list_filter = ("state", "started_at")
    search_fields = ("author_name__exact",)
    search_help_text = "A whole user name."

    @admin.display(description="what")
    def what(self, run: ReplayRun) -> str:
        return described(run)

    @admin.display(description="failed again")
    def failed(self, run: ReplayRun) -> int:
        return run.failures

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("plan/", view(self.plan), name="kanikojobs_replayrun_plan"),
            path("start/", view(self.start), name="kanikojobs_replayrun_start"),
            path("<int:id>/pause/", view(self.pause), name="kanikojobs_replayrun_pause"),
            path("<int:id>/resume/", view(self.resume), name="kanikojobs_replayrun_resume"),
            path("<int:id>/cancel/", view(self.cancel), name="kanikojobs_replayrun_cancel"),
            *super().get_urls(),
        ]

    def plan(self, request: HttpRequest) -> HttpResponse:
        """What a replay would do, and the form that starts it."""
        if not request.user.has_perm("kanikojobs.view_deadletter"):
            raise PermissionDenied
        try:
            selection = selection_of(request)
        except SelectionError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:kanikojobs_deadletter_changelist"))
        return self._plan_page(request, selection, StartForm())

    def _plan_page(self, request: HttpRequest, selection: Selection, form: StartForm) -> HttpResponse:
        planned = plan(selection=selection, most=None if request.GET.get("whole") else MOST_PLANNED)
        secrets = request.user.has_perm("kanikojobs.view_secrets_deadletter")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": "Plan of a replay",
            "plan": planned,
            "selection": selection,
            "outcomes": [
                {"name": outcome, "words": words, "count": planned.of(outcome)}
                for outcome, words in DESCRIPTIONS.items()
                if planned.of(outcome)
            ],
            "problems": [
                {
                    "words": DESCRIPTIONS[problem.outcome],
                    "message": problem.message if secrets else inspection.masked_text(problem.message),
                    "count": problem.count,
                    "example": problem.example,
                }
                for problem in planned.problems
            ],
            "groups": FailureGroup.objects.filter(fingerprint__in=selection.groups)[:5],
            "at_the_initial_rate": timedelta(seconds=round(planned.seconds(rate=20))),
            "query": request.GET.urlencode(),
            "whole_query": whole_query(request),
            "form": form,
            "may_replay": request.user.has_perm("kanikojobs.replay_deadletter"),
        }
        return TemplateResponse(request, "admin/kanikojobs/replayrun/plan.html", context)

    @needs("replay_deadletter")
    def start(self, request: HttpRequest) -> HttpResponse:
        """Start what the plan showed: the conditions are in the query, the cut-off in the form."""
        form = StartForm(request.POST)
        try:
            selection = selection_of(request)
            cut_off = parse({"died_until": request.POST.get("cut_off")}).died_until
        except SelectionError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse("admin:kanikojobs_deadletter_changelist"))
        if cut_off is None or not form.is_valid():
            return self._plan_page(request, selection, form)
        try:
            run = runs.start(
                selection=selection,
                cut_off=cut_off,
                pace=form.pace(),
                author=author_of(request),
                reason=form.cleaned_data["reason"],
                limit=form.cleaned_data["limit"],
            )
        except (NothingToReplay, PaceError, audit.ReasonMissing) as problem:
            messages.error(request, str(problem))
            return self._plan_page(request, selection, form)
        return HttpResponseRedirect(run_url(run.pk))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        run = self.get_object(request, object_id)
        if run is None or not self.has_view_permission(request, run):
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "POST":
            raise PermissionDenied
        outcome = request.GET.get("outcome", "")
        items = run.items.select_related("kaniko_job").defer("body").order_by("position")
        if outcome in ReplayItem.Outcome.values:
            items = items.filter(outcome=outcome)
        elif outcome == "failed-again":
            items = items.filter(result=outcome)
        part = request.GET.get("part") == "run"
        context = {
            **({} if part else self.admin_site.each_context(request)),
            "opts": self.opts,
            "original": run,
            "run": run,
            "title": f"Replay {run.pk}",
            "what": described(run),
            "waiting": run.total - run.handled - run.withdrawn,
            "rest": rest_of(run),
            "now": timezone.now(),
            "outcomes": [
                {"name": name, "words": words, "count": count}
                for name, words in DESCRIPTIONS.items()
                if (count := getattr(run, name.value.replace("-", "_")))
            ],
            "items": items[:100],
            "outcome": outcome,
            "acts": list(
                OperatorAction.objects.filter(target_type="replayrun", target_id=str(run.pk)).order_by("id")[:50]
            ),
            "may_replay": request.user.has_perm("kanikojobs.replay_deadletter"),
            "most_characters": audit.MOST_REASON_CHARACTERS,
        }
        template = "progress.html" if part else "run.html"
        return TemplateResponse(request, f"admin/kanikojobs/replayrun/{template}", context | (extra_context or {}))

    @needs("replay_deadletter")
    def pause(self, request: HttpRequest, id: int) -> HttpResponse:
        return self._switch(request, id, runs.pause, done="Paused.", late="It is not going.")

    @needs("replay_deadletter")
    def resume(self, request: HttpRequest, id: int) -> HttpResponse:
        return self._switch(request, id, runs.resume, done="Resumed.", late="It is not paused.")

    @needs("replay_deadletter")
    def cancel(self, request: HttpRequest, id: int) -> HttpResponse:
        return self._switch(request, id, runs.cancel, done="Cancelled.", late="It is over.")

    def _switch(self, request: HttpRequest, id: int, switch: Any, *, done: str, late: str) -> HttpResponse:
        if not ReplayRun.objects.filter(pk=id).exists():
            raise Http404
        attempt(
            request,
            lambda: (
                done
                if switch(run_id=id, author=author_of(request), reason=request.POST.get("reason", ""))
                else f"Nothing changed. {late}"
            ),
            problems=(),
        )
        return HttpResponseRedirect(run_url(id))


@admin.register(ReplayItem)
class ReplayItemAdmin(ReadOnlyAdmin):
    list_display = ("id", "run_link", "letter_id", "position", "outcome", "result", "short_detail", "kaniko_job", "at")
    list_filter = ("outcome", "result")
    show_facets = admin.ShowFacets.NEVER
    list_select_related = ("run", "kaniko_job")
    payloads = ("body",)
    exclude = ("body",)
    search_fields = ("run__id__exact", "letter__id__exact")
    search_help_text = "The number of a replay or of a dead letter."

    @admin.display(description="replay")
    def run_link(self, item: ReplayItem) -> str:
        return link_to(run_url(item.run_id), f"replay {item.run_id}")

    @admin.display(description="why")
    def short_detail(self, item: ReplayItem) -> str:
        return inspection.masked_text(item.detail).partition("\n")[0][:160]

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReplayItem]:
        return super().get_queryset(request).defer("body")


def selection_of(request: HttpRequest) -> Selection:
    """The conditions in a query. Raises `SelectionError`."""
    given = {name: str(value) for name, value in request.GET.items() if name not in ("all", "whole")}
    return parse({name: value.split(",") if name in LISTS else value for name, value in given.items()})


def whole_query(request: HttpRequest) -> str:
    query = request.GET.copy()
    query["whole"] = "1"
    return query.urlencode()


def described(run: ReplayRun) -> str:
    try:
        return str(parse(run.selection))
    except SelectionError:
        return "a filter that this version does not know"


def rest_of(run: ReplayRun) -> timedelta | None:
    """How long handing over the rest takes, by how it went so far."""
    if not run.is_live or not run.handled or run.handled >= run.total:
        return None
    if run.rate:
        return timedelta(seconds=round((run.total - run.handled) / run.rate))
    so_far = (timezone.now() - run.started_at).total_seconds()
    return timedelta(seconds=round(so_far * (run.total - run.handled) / run.handled))
