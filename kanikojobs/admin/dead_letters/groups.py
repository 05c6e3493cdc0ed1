"""Failure groups: the way in for the on-call. What is new, what goes on, what came back; then one group by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime, parse_time
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import Truncator

from kanikojobs import audit, failure_groups, inspection
from kanikojobs.admin.acting import attempt, author_of, needs
from kanikojobs.admin.dead_letters.letters import plan_url
from kanikojobs.admin.rows import ReadOnlyAdmin
from kanikojobs.models import DeadLetter, FailureGroup, FailureGroupHour, OperatorAction, ReplayRun
from kanikojobs.replay import disposal
from kanikojobs.replay.selection import Selection
from kanikojobs.transience import TransientClass

TREND_HOURS = 24


class NewSinceFilter(admin.SimpleListFilter):
    """Groups that were first seen since a time: one of the list, or any in the box, such as 14:00."""

    title = "new since"
    parameter_name = "new_since"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("15m", "15 minutes"), ("1h", "1 hour"), ("24h", "24 hours"), ("7d", "7 days")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[FailureGroup]) -> QuerySet[FailureGroup]:
        since = since_of(self.value() or "")
        return queryset.filter(first_seen_at__gte=since) if since else queryset


LENGTHS = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
}


def since_of(text: str) -> datetime | None:
    """The time that is meant: a length back from now, a time of today (of yesterday, if it is still to come), or a
    whole one."""
    moment = timezone.now()
    if text in LENGTHS:
        return moment - LENGTHS[text]
    try:
        if clock := parse_time(text):
            today = datetime.combine(moment.date(), clock, tzinfo=UTC)
            return today if today <= moment else today - timedelta(days=1)
        if whole := parse_datetime(text):
            return whole if timezone.is_aware(whole) else timezone.make_aware(whole)
    except ValueError:
        pass
    return None


class TransientFilter(admin.SimpleListFilter):
    title = "passing trouble"
    parameter_name = "transient_class"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return list(TransientClass.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[FailureGroup]) -> QuerySet[FailureGroup]:
        return queryset.filter(transient_class=self.value()) if self.value() in TransientClass.values else queryset


@admin.register(FailureGroup)
class FailureGroupAdmin(ReadOnlyAdmin):
    list_display = (
        "what",
        "open_",
        "deaths",
        "mark",
        "trend",
        "last",
        "first",
        "affected",
        "died_of",
        "assignee",
    )
    list_filter = (NewSinceFilter, "state", "cause", TransientFilter)
    list_select_related = ("assignee",)
    ordering = ("-last_seen_at",)
    show_facets = admin.ShowFacets.NEVER
    search_fields = ("fingerprint__startswith", "signature__icontains")
    search_help_text = "Words of the failure, or the start of a fingerprint."
    change_list_template = "admin/kanikojobs/failuregroup/change_list.html"

    def get_queryset(self, request: HttpRequest) -> QuerySet[FailureGroup]:
        self._trends: dict[int, list[int]] = {}
        return super().get_queryset(request)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        request.trends = trends([group.pk for group in changelist.result_list])  # type: ignore[attr-defined]
        for group in changelist.result_list:
            group.trend_bars = request.trends.get(group.pk, [])  # type: ignore[attr-defined]
        return changelist

    @admin.display(description="what fails", ordering="signature")
    def what(self, group: FailureGroup) -> str:
        return Truncator(group.signature.partition("\n")[0]).chars(160) if group.signature else "–"

    @admin.display(description="state", ordering="state")
    def mark(self, group: FailureGroup) -> SafeString:
        kind = {"new": "new", "regressed": "bad", "settled": "good"}.get(group.state, "unknown")
        return format_html('<span class="mark {}">{}</span>', kind, group.state)

    @admin.display(description="open", ordering="open_letters")
    def open_(self, group: FailureGroup) -> int:
        return group.open_letters

    @admin.display(description="last failed", ordering="last_seen_at")
    def last(self, group: FailureGroup) -> str:
        return f"{group.last_seen_at:%d %b %H:%M}"

    @admin.display(description="first failed", ordering="first_seen_at")
    def first(self, group: FailureGroup) -> str:
        return f"{group.first_seen_at:%d %b %H:%M}"

    @admin.display(description="cause", ordering="cause")
    def died_of(self, group: FailureGroup) -> str:
        return dict(DeadLetter.Cause.choices).get(group.cause, group.cause)

    @admin.display(description="parties")
    def affected(self, group: FailureGroup) -> str:
        return f"{len(group.third_parties)}{'+' if group.more_third_parties else ''}"

    @admin.display(description=f"last {TREND_HOURS} h")
    def trend(self, group: FailureGroup) -> SafeString:
        return sparkline(getattr(group, "trend_bars", []))

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:id>/note/", view(self.take_note), name="kanikojobs_failuregroup_note"),
            path("<int:id>/discard/", view(self.discard), name="kanikojobs_failuregroup_discard"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        group = self.get_object(request, object_id)
        if group is None or not self.has_view_permission(request, group):
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "POST":
            raise PermissionDenied
        may_view_letters = request.user.has_perm("kanikojobs.view_deadletter")
        letters = DeadLetter.objects.filter(fingerprint=group.fingerprint).defer("body", "headers", "properties")
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": group,
            "title": "Failure group",
            "died_of": self.died_of(group),
            "sample": inspection.masked_text(group.sample),
            "bars": bars(group),
            "letters": list(letters.order_by("-last_died_at")[:20]) if may_view_letters else [],
            "plan_url": plan_url(groups=group.fingerprint),
            "runs": list(
                ReplayRun.objects.filter(selection__contains={"groups": [group.fingerprint]}).order_by("-id")[:10]
            ),
            "acts": list(
                OperatorAction.objects.filter(target_type="failuregroup", target_id=str(group.pk)).order_by("id")[:50]
            ),
            "users": User.objects.filter(is_active=True, is_staff=True).order_by("username")[:200],
            "may_note": request.user.has_perm("kanikojobs.change_failuregroup"),
            "may_discard": request.user.has_perm("kanikojobs.discard_deadletter"),
            "most_characters": audit.MOST_REASON_CHARACTERS,
        }
        return TemplateResponse(request, "admin/kanikojobs/failuregroup/group.html", context | (extra_context or {}))

    def _group(self, id: int) -> FailureGroup:
        group = FailureGroup.objects.filter(pk=id).first()
        if group is None:
            raise Http404
        return group

    @needs("change_failuregroup")
    def take_note(self, request: HttpRequest, id: int) -> HttpResponse:
        group = self._group(id)
        assignee = User.objects.filter(username=request.POST.get("assignee", ""), is_active=True).first()

        def act() -> str:
            failure_groups.take_note(
                group,
                note=request.POST.get("note", "").replace("\0", "")[:4000],
                assignee=assignee,
                author=author_of(request),
                reason=request.POST.get("reason", "").strip() or "Took note.",
            )
            return "Noted."

        attempt(request, act, problems=())
        return HttpResponseRedirect(reverse("admin:kanikojobs_failuregroup_change", args=[id]))

    @needs("discard_deadletter")
    def discard(self, request: HttpRequest, id: int) -> HttpResponse:
        """Discard all open dead letters of the group."""
        selection = Selection(groups=(self._group(id).fingerprint,))

        def act() -> str:
            done = disposal.discard(
                selection=selection, author=author_of(request), reason=request.POST.get("reason", "")
            )
            return f"{done.done} discarded."

        attempt(request, act, problems=())
        return HttpResponseRedirect(reverse("admin:kanikojobs_failuregroup_change", args=[id]))


def trends(groups: list[int]) -> dict[int, list[int]]:
    """Deaths per hour of the last day, the oldest first, for each of these groups that had one."""
    end = timezone.now().replace(minute=0, second=0, microsecond=0)
    start = end - timedelta(hours=TREND_HOURS - 1)
    found: dict[int, list[int]] = {}
    rows = FailureGroupHour.objects.filter(group__in=groups, hour__gte=start).values_list("group", "hour", "deaths")
    for group, hour, deaths in rows:
        position = int((hour - start).total_seconds() // 3600)
        if 0 <= position < TREND_HOURS:
            found.setdefault(group, [0] * TREND_HOURS)[position] += deaths
    return found


def sparkline(values: list[int]) -> SafeString:
    """Bars as SVG. Attributes and no styles: the Content-Security-Policy forbids those inline."""
    if not any(values):
        return format_html('<span class="quiet">{}</span>', "–")
    most = max(values)
    path_ = "".join(
        f"M{index * 4} 24v-{max(1, round(22 * value / most))}h3v{max(1, round(22 * value / most))}z"
        for index, value in enumerate(values)
        if value
    )
    return format_html(
        '<svg class="spark" viewBox="0 0 {} 24" width="72" height="24" role="img" aria-label="{}"><path d="{}"/></svg>',
        4 * len(values),
        f"per hour: {', '.join(map(str, values))}",
        path_,
    )


def bars(group: FailureGroup) -> list[dict[str, Any]]:
    """The last three days by the hour, for the group's own page."""
    end = timezone.now().replace(minute=0, second=0, microsecond=0)
    hours = dict(
        group.hours.filter(hour__gt=end - timedelta(hours=72)).annotate(at=F("hour")).values_list("at", "deaths")
    )
    most = max(hours.values(), default=0) or 1
    times = [end - timedelta(hours=back) for back in range(71, -1, -1)]
    return [
        {
            "x": index * 10,
            "height": round(100 * hours.get(at, 0) / most, 1),
            "y": round(100 - 100 * hours.get(at, 0) / most, 1),
            "at": at,
            "deaths": hours.get(at, 0),
        }
        for index, at in enumerate(times)
    ]
