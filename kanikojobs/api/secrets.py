"""Text of dead letters over REST: with its secrets for those who may see them, without for everybody else."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from kanikojobs import inspection


def may_see_secrets(context: Mapping[str, Any]) -> bool:
    """Whether the request that a serializer answers is of somebody who may. Without a request nobody may."""
    request = context.get("request")
    return bool(request and request.user.has_perm("kanikojobs.view_secrets_deadletter"))


class MaskedField(serializers.CharField):
    """Text, word for word or with its secrets struck out."""

    def to_representation(self, value: Any) -> str:
        text: str = super().to_representation(value)
        return text if may_see_secrets(self.context) else inspection.masked_text(text)
