"""Which hosts and buckets a build may take its source from.

An event's `source_url` is text from outside, and the pod that fetches it stands inside the cluster. So
nothing is reachable that was not allowed by name, an address inside the cluster or the cloud needs an entry
of its own (a wildcard never reaches it), and plain http is for hosts that are listed for it. The rules judge
names, not what names resolve to: a network policy for the build namespace stays advisable.
"""

import ipaddress
import re
from dataclasses import dataclass

from kanikojobs.errors import PermanentError

HOSTS_SETTING = "KANIKOJOBS_ALLOWED_HOSTS"
INSECURE_SETTING = "KANIKOJOBS_INSECURE_HOSTS"
BUCKETS_SETTING = "KANIKOJOBS_ALLOWED_BUCKETS"

# "default" is a namespace: a pod finds its services as `name.default`.
_INTERNAL_NAMES = frozenset(
    {"localhost", "local", "localdomain", "internal", "svc", "lan", "intranet", "corp", "home", "private", "default"}
)
_HOST_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*")
_DEFAULT_PORTS = ("80", "443")
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


def invalid(problem: str) -> PermanentError:
    """The error for a `source_url` that cannot be read."""
    return PermanentError(reason="SourceInvalid", message=f"data.parameters.source_url: {problem}")


def not_allowed(problem: str) -> PermanentError:
    """The error for a `source_url` that reads well but points where builds may not go."""
    return PermanentError(reason="SourceNotAllowed", message=f"data.parameters.source_url: {problem}")


@dataclass(frozen=True, slots=True)
class SourceRules:
    """The allow-lists.

    `allowed_hosts` and `insecure_hosts` hold `host`, `host:port`, `*.host` or `*` (any public name), each
    with an optional `/path` that the repository's path must begin with. A host in `insecure_hosts` is
    allowed, and reached by plain http. `allowed_buckets` holds `s3://bucket` and `gs://bucket`, with an
    optional `/prefix`.
    """

    allowed_hosts: tuple[str, ...] = ("github.com", "gitlab.com", "bitbucket.org")
    insecure_hosts: tuple[str, ...] = ()
    allowed_buckets: tuple[str, ...] = ()

    def is_insecure(self, *, host: str, port: int | None, path: str) -> bool:
        """Whether this place is listed for plain http."""
        return any(_covers(entry, host=host, port=port, path=path) for entry in self.insecure_hosts)

    def require_host(self, *, host: str, port: int | None, path: str) -> None:
        """Raises `PermanentError` (SourceNotAllowed) unless an entry covers this place."""
        if self.is_insecure(host=host, port=port, path=path):
            return
        if any(_covers(entry, host=host, port=port, path=path) for entry in self.allowed_hosts):
            return
        place = host if port is None else f"{host}:{port}"
        if is_internal(host):
            raise not_allowed(f"{place} is an internal address; if builds may reach it, {HOSTS_SETTING} must name it")
        listed = ", ".join((*self.allowed_hosts, *self.insecure_hosts)) or "nothing"
        raise not_allowed(f"{place} with this path is not allowed; {HOSTS_SETTING} lists {listed}")

    def require_bucket(self, *, scheme: str, bucket: str, key: str) -> None:
        """Raises `PermanentError` (SourceNotAllowed) unless the bucket is listed."""
        for entry in self.allowed_buckets:
            name, _, prefix = entry.removeprefix(f"{scheme}://").partition("/")
            if entry.startswith(f"{scheme}://") and name == bucket and _below(key, prefix=prefix):
                return
        raise not_allowed(f"{scheme}://{bucket} with this key is not allowed; list it in {BUCKETS_SETTING}")


def checked_host(name: str) -> str:
    """A host's name or address in its one canonical spelling; raises `PermanentError` (SourceInvalid).

    Other spellings of an address (2130706433, 0x7f.1, 127.1) are refused: what they mean depends on who reads
    them.
    """
    if not name:
        raise invalid("has no host")
    if not name.isascii():
        raise invalid("the host has letters outside ASCII; write its ASCII name, letters may look alike")
    host = name.lower()
    if ":" in host:
        try:
            if "%" in host:
                raise ValueError("a zone only means something on one machine")
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise invalid("the host is not an IPv6 address") from None
    if _NUMBER.fullmatch(host.rsplit(".", 1)[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise invalid("the host is an address in an unusual spelling; write four decimal numbers") from None
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise invalid("the host is not a host name (letters, digits, - and single dots between)")
    return host


def is_internal(host: str) -> bool:
    """Whether a canonical host lies inside a cluster, a cloud or a machine: addresses that are not public,
    names without a dot, and names under a suffix that no public name has."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        parts = host.split(".")
        last = parts[-1]
        return (
            len(parts) == 1
            or last in _INTERNAL_NAMES
            or last.startswith("kube-")
            or "svc" in parts
            or host.endswith(".home.arpa")
        )
    return not address.is_global


def _covers(entry: str, *, host: str, port: int | None, path: str) -> bool:
    place, _, prefix = entry.partition("/")
    place = place.lower()
    if place.startswith("["):
        name, _, entry_port = place[1:].partition("]")
        entry_port = entry_port.removeprefix(":")
    else:
        name, _, entry_port = place.partition(":")
    if port is None and entry_port in _DEFAULT_PORTS:
        entry_port = ""
    if entry_port != ("" if port is None else str(port)):
        return False
    return _names(name, host=host) and _below(path, prefix=prefix)


def _names(pattern: str, *, host: str) -> bool:
    if pattern == "*":
        return not is_internal(host) and not _is_address(host)
    if pattern.startswith("*."):
        base = pattern.removeprefix("*.")
        return host.endswith(f".{base}") and (is_internal(base) or not is_internal(host))
    return host == pattern


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _below(path: str, *, prefix: str) -> bool:
    prefix = prefix.strip("/")
    return not prefix or path == prefix or path.startswith(f"{prefix}/")
