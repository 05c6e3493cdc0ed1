"""The list of dead letters, and the page of one: all the evidence, and what may be done with it."""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from kanikojobs import audit, inspection
from kanikojobs.admin.acting import ReasonForm, attempt, author_of, needs
from kanikojobs.admin.rows import ReadOnlyAdmin
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter, FailureGroup, JobStartEvent, OperatorAction
from kanikojobs.replay import disposal, mending, running, runs
from kanikojobs.replay.runs import NothingToReplay, Pace
from kanikojobs.replay.selection import MOST_IDS, Selection

# The list's filters, and the condition of a replay that each is.
CONDITIONS = {
    "fingerprint": "groups",
    "fingerprint__exact": "groups",
    "cause": "causes",
    "cause__exact": "causes",
    "third_party_id": "third_party_id",
    "third_party_id__exact": "third_party_id",
    "parser_id": "parser_id",
    "parser_id__exact": "parser_id",
    "first_died_at__gte": "died_from",
    "first_died_at__lt": "died_until",
}
RETRIED_FROM_THE_LIST = "Retried from the list."


@admin.register(DeadLetter)
class DeadLetterAdmin(ReadOnlyAdmin):
    list_display = (
        "id",
        "cause",
        "short_reason",
        "third_party_id",
        "parser_id",
        "ce_id",
        "state",
        "times_seen",
        "first_died_at",
    )
    list_filter = ("state", "cause", "origin", "first_died_at")
    payloads = ("body", "headers", "properties", "faults")
    search_fields = ("ce_id__exact", "fingerprint__exact", "third_party_id__exact", "parser_id__exact")
    search_help_text = "A whole id: event, third party, parser, or the fingerprint of a group."
    exclude = ("body", "message_hash", "faults")
    show_facets = admin.ShowFacets.NEVER
    actions: Any = ("replay_selected", "discard_selected", "restore_selected")
    action_form = ReasonForm
    change_list_template = "admin/kanikojobs/deadletter/change_list.html"

    @admin.display(description="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        # Of a hundred faults only the first is shown, and only so much is searched for secrets.
        first, _, rest = inspection.masked_text(letter.reason[:4000]).partition("\n")
        return first[:120] + (" …" if rest or len(first) > 120 else "")

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest) -> bool:
        return lookup in CONDITIONS or super().lookup_allowed(lookup, value, request)

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("kanikojobs.replay_deadletter")

    def has_discard_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("kanikojobs.discard_deadletter")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:id>/retry/", view(self.retry_one), name="kanikojobs_deadletter_retry"),
            path("<int:id>/mend/", view(self.mend), name="kanikojobs_deadletter_mend"),
            path("<int:id>/check/", view(self.check_body), name="kanikojobs_deadletter_check"),
            path("<int:id>/discard/", view(self.discard_one), name="kanikojobs_deadletter_discard"),
            path("<int:id>/restore/", view(self.restore_one), name="kanikojobs_deadletter_restore"),
            path("<int:id>/download/", view(self.download), name="kanikojobs_deadletter_download"),
            *super().get_urls(),
        ]

    # --- the list -----------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        if isinstance(response, TemplateResponse) and response.context_data and "cl" in response.context_data:
            response.context_data["plan_query"] = plan_query(request)
        return response

    @admin.action(description="Retry selected dead letters", permissions=["replay"])
    def replay_selected(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> HttpResponse | None:
        ids = self._ids(request, letters)
        if not ids:
            return None

        try:
            run = runs.start(
                selection=Selection(ids=ids),
                cut_off=now(),
                pace=Pace(),
                author=author_of(request),
                reason=request.POST.get("reason", "").strip() or RETRIED_FROM_THE_LIST,
            )
        except (NothingToReplay, audit.ReasonMissing) as problem:
            messages.error(request, str(problem))
            return None
        running.first_step(run)
        return HttpResponseRedirect(run_url(run.pk))

    @admin.action(description="Discard selected dead letters", permissions=["discard"])
    def discard_selected(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        if ids := self._ids(request, letters):
            self._dispose(request, disposal.discard, Selection(ids=ids), done="discarded")

    @admin.action(description="Restore selected dead letters", permissions=["discard"])
    def restore_selected(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> None:
        if ids := self._ids(request, letters):
            self._dispose(request, disposal.restore, Selection(ids=ids), done="restored")

    def _ids(self, request: HttpRequest, letters: QuerySet[DeadLetter]) -> tuple[int, ...]:
        ids = tuple(letters.order_by("id").values_list("pk", flat=True)[: MOST_IDS + 1])
        if len(ids) > MOST_IDS:
            messages.error(request, f"Not more than {MOST_IDS} at once. Filter, and plan a replay of all that match.")
            return ()
        return ids

    def _dispose(self, request: HttpRequest, dispose: Any, selection: Selection, *, done: str) -> None:
        def act() -> str:
            result = dispose(
                selection=selection, author=author_of(request), reason=request.POST.get("reason", "").strip()
            )
            left = f" {result.left} were left: the same message is open already." if result.left else ""
            return f"{result.done} {done}.{left}"

        attempt(request, act, problems=())

    # --- one letter ---------------------------------------------------------------------------------------------

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        letter = self.get_object(request, object_id)
        if letter is None or not self.has_view_permission(request, letter):
            # Django's own answers: a redirect with a message, or 403.
            return super().change_view(request, object_id, form_url, extra_context)
        if request.method == "POST":
            raise PermissionDenied
        return TemplateResponse(
            request, "admin/kanikojobs/deadletter/letter.html", self._context(request, letter) | (extra_context or {})
        )

    def _context(self, request: HttpRequest, letter: DeadLetter) -> dict[str, Any]:
        secrets = request.user.has_perm("kanikojobs.view_secrets_deadletter")
        event = inspection.story(letter)
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "original": letter,
            "title": f"Dead letter {letter.pk}",
            "reason": letter.reason if secrets else inspection.masked_text(letter.reason),
            "letter": inspection.inspect(letter, secrets=secrets, sink_url=request.build_absolute_uri("/events")),
            "group": FailureGroup.objects.filter(fingerprint=letter.fingerprint).first(),
            "event": event,
            "kaniko_jobs": list(event.kaniko_jobs.order_by("number")[:50]) if isinstance(event, JobStartEvent) else [],
            "items": list(letter.replay_items.select_related("run", "kaniko_job").order_by("id")[:50]),
            "acts": list(
                OperatorAction.objects.filter(target_type="deadletter", target_id=str(letter.pk)).order_by("id")[:50]
            ),
            "open": letter.state == DeadLetter.State.OPEN,
            "discarded": letter.state == DeadLetter.State.DISCARDED,
            "may_replay": self.has_replay_permission(request),
            "may_discard": self.has_discard_permission(request),
            "may_mend": may_mend(request),
            "most_characters": audit.MOST_REASON_CHARACTERS,
        }

    def _letter(self, id: int) -> DeadLetter:
        letter = DeadLetter.objects.filter(pk=id).first()
        if letter is None:
            raise Http404
        return letter

    @needs("replay_deadletter")
    def retry_one(self, request: HttpRequest, id: int) -> HttpResponse:
        letter = self._letter(id)

        def act() -> str:
            run = runs.start(
                selection=Selection(ids=(letter.pk,)),
                cut_off=now(),
                pace=Pace(),
                author=author_of(request),
                reason=request.POST.get("reason", "").strip() or "Retried from its page.",
            )
            running.first_step(run)
            item = run.items.get()
            return f"Replayed: {item.get_outcome_display()}."

        attempt(request, act, problems=(NothingToReplay,))
        return HttpResponseRedirect(letter_url(letter.pk))

    @needs("discard_deadletter")
    def discard_one(self, request: HttpRequest, id: int) -> HttpResponse:
        self._dispose(request, disposal.discard, Selection(ids=(self._letter(id).pk,)), done="discarded")
        return HttpResponseRedirect(letter_url(id))

    @needs("discard_deadletter")
    def restore_one(self, request: HttpRequest, id: int) -> HttpResponse:
        self._dispose(request, disposal.restore, Selection(ids=(self._letter(id).pk,)), done="restored")
        return HttpResponseRedirect(letter_url(id))

    def mend(self, request: HttpRequest, id: int) -> HttpResponse:
        """The form with the body to edit; POST replays what it says if that is valid."""
        if not may_mend(request):
            raise PermissionDenied
        letter = self._letter(id)
        faults: tuple[Any, ...] = ()
        if request.method == "POST":
            body = posted_body(request)
            try:
                run = mending.replay(
                    letter=letter, body=body, author=author_of(request), reason=request.POST.get("reason", "")
                )
            except mending.StillInvalid as invalid:
                faults = invalid.faults
            except (NothingToReplay, audit.ReasonMissing) as problem:
                messages.error(request, str(problem))
            else:
                running.first_step(run)
                messages.success(request, f"Replayed as mended: {run.items.get().get_outcome_display()}.")
                return HttpResponseRedirect(letter_url(letter.pk))
            text = body.decode("utf-8", "replace")
        else:
            text = bytes(letter.body).decode("utf-8", "replace")
        context = self._context(request, letter) | {
            "title": f"Mend dead letter {letter.pk}",
            "text": text,
            "faults": faults,
            "is_text": inspection.inspect(letter, secrets=True).is_text,
            "given_reason": request.POST.get("reason", ""),
        }
        return TemplateResponse(request, "admin/kanikojobs/deadletter/mend.html", context)

    @needs("edit_deadletter")
    def check_body(self, request: HttpRequest, id: int) -> HttpResponse:
        """What is wrong with an edited body, for the page to show while somebody types."""
        checked = mending.check(letter=self._letter(id), body=posted_body(request))
        return JsonResponse(
            {
                "good": checked.is_good,
                "outcome": checked.outcome.label,
                "faults": [{"path": fault.path, "problem": fault.problem} for fault in checked.faults],
            }
        )

    def download(self, request: HttpRequest, id: int) -> HttpResponseBase:
        """The body as a file: to the byte for who may see secrets, else with them struck out."""
        letter = self._letter(id)
        if not self.has_view_permission(request, letter):
            raise PermissionDenied
        secrets = request.user.has_perm("kanikojobs.view_secrets_deadletter")
        # Never as what it says it is: a browser is not to run what somebody sent.
        response = HttpResponse(
            inspection.visible_body(letter, secrets=secrets), content_type="application/octet-stream"
        )
        response["Content-Disposition"] = f'attachment; filename="{inspection.file_name(letter)}"'
        response["X-Content-Type-Options"] = "nosniff"
        return response


def may_mend(request: HttpRequest) -> bool:
    """Whoever edits a body sees all of it: with its secrets struck out it could not be replayed."""
    return request.user.has_perms(
        ["kanikojobs.edit_deadletter", "kanikojobs.replay_deadletter", "kanikojobs.view_secrets_deadletter"]
    )


def posted_body(request: HttpRequest) -> bytes:
    # Browsers send line ends as CR LF whatever was in the box.
    return request.POST.get("body", "").replace("\r\n", "\n").encode("utf-8", "backslashreplace")


def letter_url(id: int) -> str:
    return reverse("admin:kanikojobs_deadletter_change", args=[id])


def run_url(id: int) -> str:
    return reverse("admin:kanikojobs_replayrun_change", args=[id])


def plan_url(**conditions: Any) -> str:
    return f"{reverse('admin:kanikojobs_replayrun_plan')}?{urlencode(conditions, doseq=True)}"


def plan_query(request: HttpRequest) -> str:
    """The list's filter as conditions of a replay; empty where it has one that a replay does not know."""
    conditions: dict[str, str] = {}
    for name, value in request.GET.items():
        if name in ("o", "p", "all") or (name in ("state", "state__exact") and value == DeadLetter.State.OPEN):
            continue
        if name not in CONDITIONS:
            return ""
        conditions[CONDITIONS[name]] = str(value)
    return urlencode(conditions) or "all=1"


def link_to(url: str, text: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', url, text)
