"""Lists that cost the same at any length: pages by the last row that was seen, counts up to a cap.

Django's own lists skip the rows of all pages before (OFFSET) and count everything. Here a page begins where the last
one ended, which the primary key's index finds at once; the address names that row, so it can be kept and sent.
"""

from typing import Any
from urllib.parse import urlencode

from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

MOST_COUNTED = 1000
BEFORE, AFTER = "before", "after"


class CappedPaginator(Paginator):
    """Counts up to a cap: an exact count of millions of rows would cost more than the page."""

    @cached_property
    def count(self) -> int:
        rows: QuerySet[Any] = self.object_list  # type: ignore[assignment]
        return rows.order_by()[:MOST_COUNTED].count()


class KeysetChangeList(ChangeList):
    """Newest first. `?before=` and `?after=` name the row that a page ends or begins at."""

    by_key = True
    counted_up = False
    newer: str | None = None
    older: str | None = None

    def __init__(self, request: HttpRequest, *args: Any, **options: Any) -> None:
        # Taken out before Django looks for filters: they are none, and a filter's link shall begin at the newest.
        query = request.GET.copy()
        self._before = _key(query.pop(BEFORE, []))
        self._after = _key(query.pop(AFTER, []))
        request.GET = query  # type: ignore[assignment]
        super().__init__(request, *args, **options)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return ["-pk"]

    def get_results(self, request: HttpRequest) -> None:
        size = self.list_per_page
        rows = self.queryset
        if self._after is not None:
            found = list(rows.filter(pk__gt=self._after).order_by("pk")[: size + 1])
            is_more, found = len(found) > size, found[:size][::-1]
            has_newer, has_older = is_more, True
        else:
            if self._before is not None:
                rows = rows.filter(pk__lt=self._before)
            found = list(rows[: size + 1])
            has_newer, has_older = self._before is not None, len(found) > size
            found = found[:size]
        if found:
            self.newer = self._page({AFTER: found[0].pk}) if has_newer else None
            self.older = self._page({BEFORE: found[-1].pk}) if has_older else None
        else:
            # Beyond the last row, or filtered away: the way back is the beginning.
            self.newer = self._page({}) if self._before is not None or self._after is not None else None
        self.paginator = self.model_admin.get_paginator(request, self.queryset, size)
        whole = self._before is None and self._after is None and not has_older
        self.result_count = len(found) if whole else self.paginator.count
        self.counted_up = self.result_count >= MOST_COUNTED
        self.result_list = found
        self.full_result_count = None
        self.show_full_result_count = False
        self.show_admin_actions = bool(found)
        self.can_show_all = self.multi_page = False

    def _page(self, position: dict[str, Any]) -> str:
        query = self.get_query_string()
        return f"{query}{'&' if len(query) > 1 else ''}{urlencode(position)}" if position else query


def _key(values: list[str]) -> int | None:
    """A primary key out of an address, where anything may stand."""
    return (
        int(values[-1]) if values and values[-1].isascii() and values[-1].isdecimal() and len(values[-1]) < 19 else None
    )
