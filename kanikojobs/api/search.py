"""`/async-jobs/search`: an event by whatever id somebody has in hand."""

from typing import Any

from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import finding


class HitSerializer(serializers.Serializer[Any]):
    kind = serializers.CharField(help_text="event, or dead-letter for one that never became an event.")
    id = serializers.IntegerField(help_text="Of /async-jobs/events or /async-jobs/dead-letters.")
    title = serializers.CharField()
    found_as = serializers.ListField(child=serializers.CharField(), help_text="What the id is of.")
    third_party_id = serializers.CharField()
    parser_id = serializers.CharField()
    at = serializers.DateTimeField(help_text="When it was received.")
    states = serializers.ListField(child=serializers.CharField(), help_text="Of its Kaniko Jobs, in their order.")


class FoundSerializer(serializers.Serializer[Any]):
    text = serializers.CharField(help_text="What was looked for, without what surrounded it.")
    hits = HitSerializer(many=True)
    more = serializers.BooleanField(help_text=f"Whether there are more than the {finding.MOST_HITS} newest.")


class SearchView(APIView):
    """Events, and dead letters that became none, that have this id.

    The id is compared whole: of the event, correlation, third party, parser or trace, the job name that was asked for,
    the name of a Job or a pod, a Job's UID, or an image digest. Answers what the caller may view.
    """

    permission_classes = (IsAuthenticated,)

    @extend_schema(
        tags=["search"],
        parameters=[OpenApiParameter("q", str, required=True, description="The id.")],
        responses=FoundSerializer,
        examples=[
            OpenApiExample(
                "a pod's name",
                value={
                    "text": "kaniko-job-a1b2-x7k2p",
                    "hits": [
                        {
                            "kind": "event",
                            "id": 48211,
                            "title": "0b0c4d6e",
                            "found_as": ["Kubernetes name"],
                            "third_party_id": "a-third-party",
                            "parser_id": "a-parser",
                            "at": "2026-01-01T03:00:00Z",
                            "states": ["failed", "succeeded"],
                        }
                    ],
                    "more": False,
                },
                response_only=True,
            )
        ],
    )
    def get(self, request: Request) -> Response:
        may_events, may_letters = (
            request.user.has_perm(f"kanikojobs.view_{model}") for model in ("jobstartevent", "deadletter")
        )
        if not may_events and not may_letters:
            raise PermissionDenied("Ask for the permission to view events or dead letters.")
        found = finding.find(request.query_params.get("q", ""), events=may_events, dead_letters=may_letters)
        return Response(FoundSerializer(found).data)
