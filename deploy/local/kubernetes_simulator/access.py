"""Who may do what: bearer tokens, and scripted refusals in the words of RBAC."""

from typing import Any

from aiohttp import web

from deploy.local.kubernetes_simulator.answers import ApiError, bad_request, forbidden, unauthorized
from deploy.local.kubernetes_simulator.resources import Target

Json = dict[str, Any]

ANONYMOUS = "system:anonymous"
_USER = "system:serviceaccount:default:kanikojobs"


def _why(*, user: str, verb: str, plural: str, group: str, namespace: str) -> str:
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    return f'User "{user}" cannot {verb} resource "{plural}" in API group "{group}"{where}'


class Access:
    """Everything is allowed that no rule denies. With a token set, requests need it."""

    def __init__(self, *, token: str) -> None:
        self._token = token
        self._denied: list[Json] = []

    def deny(self, rules: list[Json]) -> None:
        """Replaces the denials: each has any of verb, resource (`pods/log` for a subresource), namespace.

        One that has none denies everything, /readyz too, as a server does that has not read its rules yet.
        """
        self._denied = rules

    def user_of(self, request: web.BaseRequest) -> str:
        """Raises 401 for a wrong token; without one the request is anonymous, which RBAC refuses."""
        if not self._token:
            return _USER
        given = request.headers.get("Authorization", "")
        if not given:
            return ANONYMOUS
        if given != f"Bearer {self._token}":
            raise unauthorized()
        return _USER

    def _allows(self, *, verb: str, resource: str, namespace: str) -> bool:
        asked = {"verb": verb, "resource": resource, "namespace": namespace}
        return not any(all(asked[key] == rule.get(key, asked[key]) for key in asked) for rule in self._denied)

    def check(self, target: Target, *, verb: str, user: str) -> None:
        """Raises 403."""
        if not self._denied and user != ANONYMOUS:
            return
        plural = target.resource.plural + (f"/{target.subresource}" if target.subresource else "")
        if user != ANONYMOUS and self._allows(verb=verb, resource=plural, namespace=target.namespace):
            return
        why = _why(user=user, verb=verb, plural=plural, group=target.resource.group, namespace=target.namespace)
        raise forbidden(resource=target.resource, name=target.name, why=why)

    def check_path(self, path: str) -> None:
        """Raises 403 for a path that is no resource's."""
        if {} in self._denied:
            raise ApiError(
                code=403, reason="Forbidden", message=f'forbidden: User "{_USER}" cannot get path "{path}"', details={}
            )

    def review(self, review: Any, *, user: str) -> Json:
        """The answer to a SelfSubjectAccessReview. Raises 400 or 422-like refusals for one that asks nothing."""
        spec = review.get("spec") if isinstance(review, dict) else None
        asked = spec.get("resourceAttributes", spec.get("nonResourceAttributes")) if isinstance(spec, dict) else None
        if not isinstance(asked, dict):
            raise bad_request(
                'SelfSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes: Invalid value: '
                "null: exactly one of nonResourceAttributes or resourceAttributes must be specified"
            )
        resource = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        allowed = user != ANONYMOUS and self._allows(
            verb=asked.get("verb", ""), resource=resource, namespace=asked.get("namespace", "")
        )
        return {
            "kind": "SelfSubjectAccessReview",
            "apiVersion": "authorization.k8s.io/v1",
            "metadata": {},
            "spec": spec,
            "status": {"allowed": allowed},
        }
