"""The lists of events and Kaniko Jobs with their items, newest first by cursor."""

from typing import Any

from django.db.models import Prefetch, QuerySet
from rest_framework import viewsets
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.serializers import BaseSerializer

from kanikojobs.api import serializers
from kanikojobs.models import JobAttempt, JobStartEvent, KanikoJob


class NewestFirst(CursorPagination):
    """By primary key, which an index has in order: any page of any list costs the same."""

    ordering = "-id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 500

    def decode_cursor(self, request: Request) -> Any:
        cursor = super().decode_cursor(request)
        # Anybody can make up a cursor; Django REST framework looks at its form only.
        if cursor and cursor.position is not None and not str(cursor.position).isdecimal():
            raise NotFound(self.invalid_cursor_message)
        return cursor


class ListAndItem(viewsets.ReadOnlyModelViewSet[Any]):
    """A list and its items; the item has more than the list's rows."""

    pagination_class = NewestFirst
    detail_serializer_class: type[BaseSerializer[Any]]
    detail_prefetch: tuple[Any, ...] = ()

    def get_queryset(self) -> QuerySet[Any]:
        rows = super().get_queryset()
        # Payloads are the item's: a list of them would be read from disk to be thrown away.
        if self.action == "list":
            return rows.only(*self.get_serializer_class().Meta.fields)  # type: ignore[attr-defined]
        return rows.prefetch_related(*self.detail_prefetch)

    def get_serializer_class(self) -> type[BaseSerializer[Any]]:
        return self.detail_serializer_class if self.action == "retrieve" else super().get_serializer_class()


class EventViewSet(ListAndItem):
    """Job start events as they arrived."""

    queryset = JobStartEvent.objects.all()
    serializer_class = serializers.JobStartEventSerializer
    detail_serializer_class = serializers.JobStartEventDetailSerializer
    detail_prefetch = (Prefetch("kaniko_jobs", queryset=KanikoJob.objects.order_by("number")),)
    filterset_fields = {
        "event_id": ["exact"],
        "third_party_id": ["exact"],
        "parser_id": ["exact"],
        "correlation_id": ["exact"],
        "origin": ["exact"],
        "priority": ["exact", "lte", "gte"],
        "received_at": ["gte", "lt"],
    }


class KanikoJobViewSet(ListAndItem):
    """Kaniko Jobs: one row is one Kubernetes Job."""

    queryset = KanikoJob.objects.all()
    serializer_class = serializers.KanikoJobSerializer
    detail_serializer_class = serializers.KanikoJobDetailSerializer
    detail_prefetch = (Prefetch("attempts", queryset=JobAttempt.objects.order_by("number")),)
    filterset_fields = {
        "state": ["exact", "in"],
        "reason": ["exact"],
        "name": ["exact"],
        "event": ["exact"],
        "third_party_id": ["exact"],
        "parser_id": ["exact"],
        "queued_at": ["gte", "lt"],
    }
