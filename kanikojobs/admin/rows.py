"""What the pages of all models share: they show, and change nothing."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from kanikojobs.models import HIGHEST_PRIORITY, LOWEST_PRIORITY

MOST_COUNTED = 10_000


class CappedPaginator(Paginator):
    """Counts up to a cap: an exact count of millions of rows would cost more than the page."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:MOST_COUNTED].count()


class PriorityFilter(admin.SimpleListFilter):
    """1 to 10 as they are: Django's own filter would read the whole table for the values that are in it."""

    title = parameter_name = "priority"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(priority), str(priority)) for priority in range(HIGHEST_PRIORITY, LOWEST_PRIORITY + 1)]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        chosen = {value for value, _ in self.lookup_choices}
        return queryset.filter(priority=self.value()) if self.value() in chosen else queryset


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

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False
