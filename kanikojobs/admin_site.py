"""The admin site: its home answers the on-call's first questions, and nothing of Django-Q2 appears in it."""

from typing import Any

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse

from kanikojobs import charts, finding, flows, overview
from kanikojobs.finding import Found, Hit


class KanikoJobsAdminSite(AdminSite):
    site_header = "kanikojobs"
    site_title = "kanikojobs"
    index_title = "Control room"
    site_url = None

    def register(self, model_or_iterable: Any, *args: Any, **options: Any) -> None:
        models: list[type[Model]] = (
            [model_or_iterable] if isinstance(model_or_iterable, type) else list(model_or_iterable)
        )
        ours = [model for model in models if model._meta.app_label != "django_q"]
        if ours:
            super().register(ours, *args, **options)

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        """Our own rows first, then people and their tokens."""
        return sorted(super().get_app_list(request, app_label), key=lambda app: app["app_label"] != "kanikojobs")

    def get_urls(self) -> list[Any]:
        return [
            path("find/", self.admin_view(self.find), name="find"),
            path("flows/", self.admin_view(self.flows), name="flows"),
            *super().get_urls(),
        ]

    def find(self, request: HttpRequest) -> HttpResponse:
        """Whatever has the id that was asked for; straight to its page if that is one."""
        may_events, may_letters = (
            request.user.has_perm(f"kanikojobs.view_{model}") for model in ("jobstartevent", "deadletter")
        )
        found = finding.find(request.GET.get("q", ""), events=may_events, dead_letters=may_letters)
        if len(found.hits) == 1:
            return HttpResponseRedirect(page_of(found.hits[0]))
        context = {**self.each_context(request), "title": "Search", "found": found, "hits": with_pages(found)}
        return TemplateResponse(request, "admin/find.html", context)

    def flows(self, request: HttpRequest) -> HttpResponse:
        """The two flows side by side, on the way from direct events to the queue."""
        if not request.user.has_perm("kanikojobs.view_jobstartevent"):
            raise PermissionDenied
        window = next((window for window in overview.WINDOWS if window.key == request.GET.get("window")), flows.DAY)
        context = {
            **self.each_context(request),
            "title": "Direct and queue",
            "flows": flows.comparison(window=window),
            "windows": overview.WINDOWS,
            "most": flows.MOST_COUNTED,
        }
        return TemplateResponse(request, "admin/flows.html", context)

    def index(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> TemplateResponse:
        """The home. With `?part=overview` only what changes, for the page that keeps itself up to date."""
        context = extra_context or {}
        if request.user.has_perm("kanikojobs.view_kanikojob"):
            context |= home_context(request.GET.get("window", ""))
            if request.GET.get("part") == "overview":
                return TemplateResponse(request, "admin/overview.html", context)
        return super().index(request, context)


def page_of(hit: Hit) -> str:
    model = "jobstartevent" if hit.kind == "event" else "deadletter"
    return reverse(f"admin:kanikojobs_{model}_change", args=[hit.id])


def with_pages(found: Found) -> list[tuple[Hit, str]]:
    return [(hit, page_of(hit)) for hit in found.hits]


def home_context(key: str) -> dict[str, Any]:
    """What the home's template shows, of the window that is asked for."""
    window = next((window for window in overview.WINDOWS if window.key == key), overview.WINDOWS[0])
    now = overview.overview(window=window)
    return {
        "overview": now,
        "windows": overview.WINDOWS,
        "waiting": [
            {"state": state, "reason": reason, "count": count}
            for (state, reason), count in sorted(now.backlog.waiting.items())
        ],
        "throughput": charts.stacked(
            now.points,
            series={"created": lambda point: point.created, "failed": lambda point: point.failed},
            title=lambda point: f"{point.at:%d %b %H:%M}: {point.created} created, {point.failed} failed",
        ),
        "durations": charts.lines(
            now.points,
            series={
                "p50": lambda point: point.p50,
                "p95": lambda point: point.p95,
                "p99": lambda point: point.p99,
            },
            title=lambda point: (
                f"{point.at:%d %b %H:%M}: "
                + (
                    f"p50 {point.p50:.3f} s, p95 {point.p95:.3f} s, p99 {point.p99:.3f} s"
                    if point.p50 is not None and point.p95 is not None and point.p99 is not None
                    else "no calls"
                )
            ),
        ),
    }
