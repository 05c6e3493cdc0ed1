"""`/async-jobs/flows`: the two flows compared, and what to do next on the way from direct events to the queue."""

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from kanikojobs import flows
from kanikojobs.models import JobStartEvent
from kanikojobs.overview import WINDOWS


class WaySerializer(serializers.Serializer[flows.Way]):
    origin = serializers.CharField(help_text="queue or direct.")
    messages = serializers.IntegerField(help_text="Handed over by this way, whatever came of them.")
    recorded = serializers.IntegerField(help_text="Events that came by this way first.")
    both = serializers.IntegerField(help_text="Of these, those that came by the other way, too.")
    only = serializers.IntegerField(help_text=f"Those that did not; of direct ones up to {flows.MOST_COUNTED}.")
    mean_delay = serializers.FloatField(allow_null=True, help_text="Seconds until the other way.")


class NextStepSerializer(serializers.Serializer[flows.NextStep]):
    phase = serializers.IntegerField(help_text="Of the migration: 1 direct only, 2 both, 3 queue only.")
    ready = serializers.BooleanField(help_text="Whether the next step is safe.")
    sentence = serializers.CharField()


class UnmatchedSerializer(serializers.ModelSerializer[JobStartEvent]):
    class Meta:
        model = JobStartEvent
        fields = ("id", "event_id", "third_party_id", "parser_id", "received_at")


class FlowsSerializer(serializers.Serializer[flows.Comparison]):
    since = serializers.DateTimeField(help_text="When the window begins.")
    ways = WaySerializer(many=True)
    conflicts = serializers.IntegerField(help_text="Messages with the identity of a recorded event and other content.")
    refused = serializers.IntegerField(help_text="Requests that were answered with 410.")
    only_direct = serializers.IntegerField(
        help_text="Events of the last 24 hours that came directly and, after five minutes, not through the queue. "
        f"Counted up to {flows.MOST_COUNTED}."
    )
    senders = serializers.DictField(
        child=serializers.IntegerField(), help_text="Their third parties, the most frequent first."
    )
    newest = UnmatchedSerializer(many=True, help_text="The newest of them.")
    next_step = NextStepSerializer()


class FlowsView(APIView):
    """Same events by both ways? Per way, how many came by it first, how many by both, and how many by it alone.

    For those who may view events.
    """

    queryset = JobStartEvent.objects.all()

    @extend_schema(
        parameters=[OpenApiParameter("window", enum=[window.key for window in WINDOWS], default=flows.DAY.key)],
        responses=FlowsSerializer,
        tags=["stats"],
    )
    def get(self, request: Request) -> Response:
        wanted = request.query_params.get("window", "")
        window = next((window for window in WINDOWS if window.key == wanted), flows.DAY)
        return Response(FlowsSerializer(flows.comparison(window=window)).data)
