"""What the pages of all models share: they show, and change nothing."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString

from kanikojobs.admin.paging import CappedPaginator, KeysetChangeList
from kanikojobs.advice import ADVICE
from kanikojobs.models import HIGHEST_PRIORITY, LOWEST_PRIORITY
from kanikojobs.states import State

# How a state looks, in lists (`mark`) and as a page's verdict.
TONES = {State.SUCCEEDED: "well", State.FAILED: "failing", State.CANCELLED: "behind"}


def tone(state: str) -> str:
    return TONES.get(State(state), "going")


def mark(words: str, *, tone: str) -> SafeString:
    return format_html('<span class="mark {}">{}</span>', tone, words)


class PriorityFilter(admin.SimpleListFilter):
    """1 to 10 as they are: Django's own filter would read the whole table for the values that are in it."""

    title = parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(priority), str(priority)) for priority in range(HIGHEST_PRIORITY, LOWEST_PRIORITY + 1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = {value for value, _ in self.lookup_choices}
        return queryset.filter(priority=self.value()) if self.value() in chosen else queryset


class ReasonFilter(admin.SimpleListFilter):
    """The reasons that have advice, for the same cause; any other is found by its address, `?reason=…`."""

    title = parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(reason, reason) for reason in sorted(ADVICE)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(reason=self.value()) if self.value() else queryset


class ReadOnlyAdmin(admin.ModelAdmin):
    """A list with search and filters, and a page per row, for those who may view the model."""

    paginator = CappedPaginator
    show_full_result_count = False
    ordering = ("-id",)
    list_per_page = 50
    actions: Any = None
    # What only a row's own page shows: a list of fifty megabytes would help nobody.
    payloads: tuple[str, ...] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows = super().get_queryset(request)
        route = request.resolver_match.url_name if request.resolver_match else None
        return rows.defer(*self.payloads) if route and route.endswith("_changelist") else rows

    def get_changelist(self, request: HttpRequest, **options: Any) -> type[ChangeList]:
        by_key = tuple(self.get_ordering(request)) == ("-id",)
        return KeysetChangeList if by_key else super().get_changelist(request, **options)

    def get_sortable_by(self, request: HttpRequest) -> Any:
        # Another order than the index's would sort the whole table.
        return () if tuple(self.get_ordering(request)) == ("-id",) else super().get_sortable_by(request)

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """All fields side by side, unless a page groups its own."""
        return self.fieldsets or [(None, {"fields": self.get_fields(request, obj), "classes": ["facts"]})]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
