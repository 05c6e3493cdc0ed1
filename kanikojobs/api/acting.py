"""What every action over REST shares: who acts, why, and on which dead letters."""

from typing import Any

from rest_framework import serializers
from rest_framework.request import Request

from kanikojobs import audit
from kanikojobs.models import OperatorAction
from kanikojobs.replay.selection import SelectionError, parse


def author(request: Request) -> audit.Author:
    return audit.by_user(request.user, via=OperatorAction.Via.API)


class ReasonSerializer(serializers.Serializer[Any]):
    reason = serializers.CharField(max_length=audit.MOST_REASON_CHARACTERS, help_text="Why; it is kept.")


class SelectionField(serializers.JSONField):
    """A filter; see `kanikojobs.replay.selection`."""

    def to_internal_value(self, data: Any) -> Any:
        if not isinstance(data, dict):
            raise serializers.ValidationError("must be an object of conditions; {} means all open dead letters")
        try:
            return parse(data)
        except SelectionError as error:
            raise serializers.ValidationError(str(error)) from None


class FilterSerializer(serializers.Serializer[Any]):
    filter = SelectionField(
        help_text="Conditions that must all hold: ids, groups (fingerprints), causes, reason (a Kaniko Job's), "
        "third_party_id, parser_id, died_from, died_until (times of the first death). {} means all open ones."
    )


class FilterAndReasonSerializer(FilterSerializer, ReasonSerializer):
    pass
