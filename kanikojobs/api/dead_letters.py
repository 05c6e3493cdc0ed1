"""`/async-jobs/dead-letters`: lists, items, and what may be done with one or with all that match a filter."""

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from kanikojobs.api.acting import FilterAndReasonSerializer, FilterSerializer, ReasonSerializer, author
from kanikojobs.api.dead_letter_forms import (
    A_PLAN,
    DISCARD_A_GROUP,
    MOST_PLANNED,
    ONE_GROUP,
    THE_REGISTRY_IS_BACK,
    CheckedSerializer,
    CheckSerializer,
    DeadLetterDetailSerializer,
    DisposalSerializer,
    PlanSerializer,
    ReplayOneSerializer,
    StartedSerializer,
)
from kanikojobs.api.permissions import MayAct
from kanikojobs.api.serializers import DeadLetterSerializer
from kanikojobs.api.views import ListAndItem
from kanikojobs.database_time import now
from kanikojobs.models import DeadLetter
from kanikojobs.replay import disposal, mending, running, runs
from kanikojobs.replay.plan import plan
from kanikojobs.replay.runs import NothingToReplay
from kanikojobs.replay.selection import Selection


class DeadLetterViewSet(ListAndItem):
    """What could not be used, with all the evidence; replayed, mended, discarded and restored."""

    queryset = DeadLetter.objects.all()
    serializer_class = DeadLetterSerializer
    detail_serializer_class = DeadLetterDetailSerializer
    permission_classes = (MayAct,)
    action_permissions = {
        "replay": "replay_deadletter",
        "discard": "discard_deadletter",
        "restore": "discard_deadletter",
        "discard_all": "discard_deadletter",
        "restore_all": "discard_deadletter",
        "check": "view_deadletter",
        "plan": "view_deadletter",
    }
    filterset_fields = {
        "cause": ["exact", "in"],
        "state": ["exact"],
        "fingerprint": ["exact"],
        "ce_id": ["exact"],
        "third_party_id": ["exact"],
        "parser_id": ["exact"],
        "event": ["exact"],
        "first_died_at": ["gte", "lt"],
        "last_died_at": ["gte", "lt"],
    }

    @extend_schema(
        request=FilterSerializer, responses=PlanSerializer, examples=[ONE_GROUP, A_PLAN], tags=["dead-letters"]
    )
    @action(detail=False, methods=["post"])
    def plan(self, request: Request) -> Response:
        """What a replay of all that match would do. Changes nothing."""
        given = FilterSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        planned = plan(selection=given.validated_data["filter"], most=MOST_PLANNED)
        return Response(PlanSerializer(planned, context=self.get_serializer_context()).data)

    @extend_schema(
        request=ReplayOneSerializer,
        responses={202: StartedSerializer},
        examples=[THE_REGISTRY_IS_BACK],
        tags=["dead-letters"],
    )
    @action(detail=True, methods=["post"])
    def replay(self, request: Request, pk: str) -> Response:
        """Replay one, as it is or with a mended body. 409 if it is not open, or waits in another replay."""
        letter = self.get_object()
        given = ReplayOneSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        body = given.validated_data.get("body")
        if body is not None and not request.user.has_perm("kanikojobs.edit_deadletter"):
            self.permission_denied(request, message="Ask for the permission to mend dead letters.")
        try:
            run = self._start(request, letter, reason=given.validated_data["reason"], body=body)
        except NothingToReplay as nothing:
            return Response({"detail": str(nothing)}, status=409)
        return Response({"run": run.pk, "state": run.state}, status=202)

    def _start(self, request: Request, letter: DeadLetter, *, reason: str, body: str | None) -> Any:
        if body is not None:
            try:
                run = mending.replay(letter=letter, body=encoded(body), author=author(request), reason=reason)
            except mending.StillInvalid as invalid:
                raise serializers.ValidationError(
                    {"body": [{"path": fault.path, "problem": fault.problem} for fault in invalid.faults]}
                ) from None
        else:
            run = runs.start(
                selection=Selection(ids=(letter.pk,)),
                cut_off=now(),
                pace=runs.Pace(),
                author=author(request),
                reason=reason,
            )
        return running.first_step(run)

    @extend_schema(request=CheckSerializer, responses=CheckedSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def check(self, request: Request, pk: str) -> Response:
        """What a replay would make of a mended body. Changes nothing."""
        letter = self.get_object()
        given = CheckSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        checked = mending.check(letter=letter, body=encoded(given.validated_data["body"]))
        return Response(CheckedSerializer(checked).data)

    @extend_schema(request=ReasonSerializer, responses=DisposalSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def discard(self, request: Request, pk: str) -> Response:
        """Discard one: nobody is to replay it. It is kept."""
        return self._dispose(request, disposal.discard, Selection(ids=(self.get_object().pk,)))

    @extend_schema(request=ReasonSerializer, responses=DisposalSerializer, tags=["dead-letters"])
    @action(detail=True, methods=["post"])
    def restore(self, request: Request, pk: str) -> Response:
        """Open a discarded one again."""
        return self._dispose(request, disposal.restore, Selection(ids=(self.get_object().pk,)))

    @extend_schema(
        request=FilterAndReasonSerializer,
        responses=DisposalSerializer,
        examples=[DISCARD_A_GROUP],
        operation_id="async_jobs_dead_letters_discard_all",
        tags=["dead-letters"],
    )
    @action(detail=False, methods=["post"], url_path="discard")
    def discard_all(self, request: Request) -> Response:
        """Discard all open ones that match."""
        return self._dispose(request, disposal.discard, self._filter(request))

    @extend_schema(
        request=FilterAndReasonSerializer,
        responses=DisposalSerializer,
        operation_id="async_jobs_dead_letters_restore_all",
        tags=["dead-letters"],
    )
    @action(detail=False, methods=["post"], url_path="restore")
    def restore_all(self, request: Request) -> Response:
        """Open all discarded ones again that match."""
        return self._dispose(request, disposal.restore, self._filter(request))

    def _filter(self, request: Request) -> Selection:
        given = FilterAndReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        selection: Selection = given.validated_data["filter"]
        return selection

    def _dispose(self, request: Request, dispose: Any, selection: Selection) -> Response:
        given = ReasonSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        done = dispose(selection=selection, author=author(request), reason=given.validated_data["reason"])
        return Response(DisposalSerializer(done).data)


def encoded(body: str) -> bytes:
    """As UTF-8; a lone surrogate, which JSON can write and UTF-8 cannot, as its escape."""
    return body.encode("utf-8", "backslashreplace")
