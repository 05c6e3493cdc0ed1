"""The lists and pages of events, Kaniko Jobs, attempts and dead letters."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from kanikojobs.admin.job_actions import JobActions
from kanikojobs.admin.rows import PriorityFilter, ReadOnlyAdmin
from kanikojobs.models import DeadLetter, JobAttempt, JobStartEvent, KanikoJob
from kanikojobs.timeline import timeline


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
    # Ids are looked up whole, each by its index. A part of an id would read the whole table.
    search_fields = ("event_id__exact", "correlation_id__exact", "parser_id__exact", "third_party_id__exact")
    search_help_text = "A whole id: event, correlation, third party or parser."
    exclude = ("content_hash",)
    readonly_fields = ("kaniko_jobs",)
    change_form_template = "admin/event.html"

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        event = self.get_object(request, object_id)
        story = timeline(event) if event and self.has_view_permission(request, event) else []
        return super().change_view(request, object_id, form_url, {"timeline": story, **(extra_context or {})})

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
        "duration",
    )
    ordering = ("number",)
    extra = 0
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return False


@admin.register(KanikoJob)
class KanikoJobAdmin(JobActions):
    list_display = (
        "name",
        "state",
        "reason",
        "third_party_id",
        "parser_id",
        "priority",
        "number",
        "queued_at",
    )
    list_filter = ("state", PriorityFilter, "queued_at")
    search_fields = (
        "name__exact",
        "event__event_id__exact",
        "event__correlation_id__exact",
        "third_party_id__exact",
        "parser_id__exact",
        "job_uid__exact",
    )
    search_help_text = "A whole name in Kubernetes, UID, or id of the event, correlation, third party or parser."
    inlines = (JobAttemptInline,)


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
        "duration",
    )
    list_filter = ("outcome", "started_at")
    list_select_related = ("kaniko_job",)
    search_fields = ("kaniko_job__name__exact", "kaniko_job__event__event_id__exact", "reason__exact")
    search_help_text = "A whole name in Kubernetes, event id or reason."


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = ("id", "cause", "short_reason", "ce_id", "state", "times_seen", "last_died_at")
    list_filter = ("cause", "state", "origin", "last_died_at")
    payloads = ("body", "headers", "properties", "faults")
    search_fields = ("ce_id__exact", "fingerprint__exact")
    search_help_text = "A whole event id or fingerprint."
    exclude = ("body", "message_hash", "faults")
    readonly_fields = ("body_as_text",)

    @admin.display(description="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        first, _, rest = letter.reason.partition("\n")
        return first[:120] + (" …" if rest or len(first) > 120 else "")

    @admin.display(description="body")
    def body_as_text(self, letter: DeadLetter) -> SafeString:
        return format_html("<pre>{}</pre>", bytes(letter.body).decode("utf-8", "backslashreplace"))
