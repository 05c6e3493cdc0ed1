"""The lists and pages of events, Kaniko Jobs and attempts."""

import json
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from kanikojobs import finding
from kanikojobs.admin.job_actions import JobActions
from kanikojobs.admin.rows import PriorityFilter, ReadOnlyAdmin, ReasonFilter, mark, tone
from kanikojobs.advice import advice
from kanikojobs.models import Drift, JobAttempt, JobStartEvent, KanikoJob, Outage, PruneRun
from kanikojobs.templatetags import humane
from kanikojobs.timeline import timeline

# Ids are looked up whole, each by its index. A part of an id would read the whole table.
SEARCH_HELP = "A whole id: event, correlation, third party, parser, Kubernetes name, Job UID, image digest or trace."


@admin.register(JobStartEvent)
class JobStartEventAdmin(ReadOnlyAdmin):
    list_display = (
        "event_id",
        "third_party_id",
        "parser_id",
        "priority",
        "origin",
        "times_seen",
        "received_at",
    )
    list_filter = ("origin", PriorityFilter, "received_at")
    payloads = ("data", "extensions", "content_hash")
    search_fields = ("event_id",)
    search_help_text = SEARCH_HELP
    readonly_fields = ("sent_data", "sent_extensions", "kaniko_jobs")
    fieldsets = (
        (
            "What was asked for",
            {
                "fields": (
                    "third_party_id",
                    "parser_id",
                    "correlation_id",
                    "job_name",
                    "source_url",
                    "priority",
                    "build_type",
                    "runtime",
                    "build_timeout",
                    "kaniko_jobs",
                ),
                "classes": ["facts"],
            },
        ),
        ("What was sent", {"fields": ("sent_data", "sent_extensions"), "classes": ["facts"]}),
        (
            "How it came",
            {
                "fields": (
                    "event_id",
                    "source",
                    "type",
                    "subject",
                    "time",
                    "specversion",
                    "datacontenttype",
                    "dataschema",
                    "origin",
                    "received_at",
                    "times_seen",
                    "last_seen_at",
                    "trace_id",
                    "traceparent",
                ),
                "classes": ["facts"],
            },
        ),
    )
    change_form_template = "admin/event.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        event = self.get_object(request, object_id)
        context: dict[str, Any] = {}
        if event is not None and self.has_view_permission(request, event):
            context["timeline"] = [
                (entry, reverse(f"admin:kanikojobs_{entry.page}_change", args=[entry.page_id]) if entry.page else "")
                for entry in timeline(event)
            ]
            if latest := event.kaniko_jobs.order_by("number").last():
                context |= {"latest": latest, "tone": tone(latest.state), "advice": advice(latest.reason)}
            if event.trace_id and settings.KANIKOJOBS_TRACE_URL:
                context["trace_url"] = settings.KANIKOJOBS_TRACE_URL.replace("{trace_id}", quote(event.trace_id))
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[JobStartEvent], search_term: str
    ) -> tuple[QuerySet[JobStartEvent], bool]:
        return (
            queryset.filter(Q(third_party_id=search_term) | Q(pk__in=list(finding.event_ids(search_term))))
            if search_term
            else queryset
        ), False

    @admin.display(description="data")
    def sent_data(self, event: JobStartEvent) -> SafeString:
        return _as_json(event.data)

    @admin.display(description="extensions")
    def sent_extensions(self, event: JobStartEvent) -> SafeString:
        return _as_json(event.extensions)

    @admin.display(description="Kaniko Jobs")
    def kaniko_jobs(self, event: JobStartEvent) -> SafeString:
        return format_html_join(
            ", ",
            '<a href="{}">{}</a> ({})',
            (
                (
                    reverse("admin:kanikojobs_kanikojob_change", args=[job.pk]),
                    job.name,
                    job.get_state_display(),
                )
                for job in event.kaniko_jobs.order_by("number")
            ),
        )


def _as_json(value: Any) -> SafeString:
    return format_html("<pre>{}</pre>", json.dumps(value, indent=2, ensure_ascii=False))


class JobAttemptInline(admin.TabularInline):
    model = JobAttempt
    fields = readonly_fields = (
        "number",
        "outcome",
        "http_status",
        "reason",
        "message",
        "worker",
        "started_at",
        "took",
    )
    ordering = ("number",)
    extra = 0
    can_delete = False

    @admin.display(description="took")
    def took(self, attempt: JobAttempt) -> str:
        return humane.took(attempt.duration)

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(KanikoJob)
class KanikoJobAdmin(JobActions):
    list_display = (
        "name",
        "marked_state",
        "reason",
        "third_party_id",
        "parser_id",
        "priority",
        "number",
        "queued_at",
    )
    list_filter = ("state", ReasonFilter, PriorityFilter, "queued_at")
    search_fields = ("name",)
    search_help_text = SEARCH_HELP
    inlines = (JobAttemptInline,)

    @admin.display(description="state", ordering="state")
    def marked_state(self, job: KanikoJob) -> SafeString:
        return mark(job.get_state_display(), tone=tone(job.state))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[KanikoJob], search_term: str
    ) -> tuple[QuerySet[KanikoJob], bool]:
        if not search_term:
            return queryset, False
        return queryset.filter(Q(third_party_id=search_term) | Q(event__in=list(finding.event_ids(search_term)))), False


@admin.register(JobAttempt)
class JobAttemptAdmin(ReadOnlyAdmin):
    list_display = (
        "kaniko_job",
        "number",
        "outcome",
        "http_status",
        "reason",
        "worker",
        "started_at",
        "took",
    )
    list_filter = ("outcome", "started_at")
    list_select_related = ("kaniko_job",)
    search_fields = ("kaniko_job",)
    search_help_text = SEARCH_HELP

    @admin.display(description="took")
    def took(self, attempt: JobAttempt) -> str:
        return humane.took(attempt.duration)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[JobAttempt], search_term: str
    ) -> tuple[QuerySet[JobAttempt], bool]:
        if not search_term:
            return queryset, False
        jobs = KanikoJob.objects.filter(event__in=list(finding.event_ids(search_term)))
        return queryset.filter(kaniko_job__in=list(jobs.values_list("pk", flat=True))), False


@admin.register(Drift)
class DriftAdmin(ReadOnlyAdmin):
    list_display = ("kind", "name", "namespace", "message", "found_at")
    list_filter = ("kind",)


@admin.register(Outage)
class OutageAdmin(ReadOnlyAdmin):
    list_display = ("reason", "started_at", "ended_at", "probes", "message")


@admin.register(PruneRun)
class PruneRunAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "finished_at", "removed")
