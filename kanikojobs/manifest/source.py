"""From an event's `source_url` to what a build fetches: a git repository, a tarball, or an object in a
bucket.

People paste what their browser shows (`https://github.com/notifi/parsers/<id>`, tree pages of GitHub and
GitLab), tools write git URLs with fragments. All of it ends as one `Source`. Pure: nothing is looked up, so
where only the server can tell a branch name from a folder (`/tree/feature/x/api`), both stay together in
`tree`, and `deploy/runtimes/fetch-source.sh` asks the server.

The URL is hostile text. What cannot be read or is not allowed is refused with a sentence that says what to
write, and no error repeats a part of the URL that could hold a credential.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import SplitResult, quote, unquote, urlsplit

from kanikojobs.manifest.source_rules import INSECURE_SETTING, SourceRules, checked_host, invalid, not_allowed

_LONGEST_URL = 2048
_EXAMPLE = "https://github.com/<owner>/<repository>/tree/<branch>/<folder>"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# Also what cannot be seen, or turns round what can: it would make one folder look like another to whoever reads it.
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\xa0\xad\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\\]")
# What GitLab and GitHub add to the addresses of their pages.
_QUERY_OF_A_PAGE = re.compile(r"ref_type=(?:heads|tags)|tab=[a-z0-9-]+")
_REPOSITORY_PART = re.compile(r"[A-Za-z0-9_~.][A-Za-z0-9_~.-]*")
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/+@=,-]{0,254}")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
_TARBALL_ENDINGS = (".tar.gz", ".tgz")
_DEFAULT_PORTS = {"https": 443, "http": 80, "git": None}
# Pages of GitHub, GitLab and Bitbucket that show something else than a folder.
_OTHER_PAGES = frozenset(
    {"blob", "raw", "blame", "edit", "commit", "commits", "pull", "merge_requests", "pull-requests"}
)


class SourceKind(StrEnum):
    GIT = "git"
    S3 = "s3"
    GS = "gs"
    TARBALL = "https-tarball"


@dataclass(frozen=True, slots=True)
class Source:
    """Where a build's files come from.

    `url` is the repository to clone, or the context that kaniko itself fetches. `ref` is a branch, a tag or a
    full ref (`refs/pull/1/head`), "" for the default branch; `commit` is a full hash. `tree` is a ref and a
    folder in one, to be told apart by the server; it comes without `ref`, `commit` and `sub_path`.
    """

    kind: SourceKind
    host: str
    url: str
    ref: str = ""
    commit: str = ""
    tree: str = ""
    sub_path: str = ""


def parse_source(url: str, *, rules: SourceRules) -> Source:
    """Reads a `source_url`. Raises `PermanentError` with the reason SourceInvalid or SourceNotAllowed."""
    if len(url) > _LONGEST_URL:
        raise invalid(f"is longer than {_LONGEST_URL} characters")
    if _UNSAFE.search(url):
        raise invalid("has a space, a control character or a backslash")
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise invalid(f"does not begin with a scheme; write {_EXAMPLE}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise invalid(f"is not a URL (host, port or brackets); write {_EXAMPLE}") from None
    if "@" in parts.netloc:
        raise invalid(
            "has credentials before the host; leave them out, secrets are configured per host by the operator"
        )
    if "?" in url and not _QUERY_OF_A_PAGE.fullmatch(parts.query):
        raise invalid("has a query (?…); leave it out, it may hold a credential")
    match parts.scheme:
        case "https" | "http" | "git":
            return _from_host(parts, port=port, rules=rules)
        case "s3" | "gs":
            return _from_bucket(parts, port=port, rules=rules)
        case "ssh" | "git+ssh":
            raise invalid("uses SSH, which needs keys in the build; write the repository's https:// URL")
        case _:
            raise not_allowed("the scheme must be https, git, s3 or gs")


def _from_host(parts: SplitResult, *, port: int | None, rules: SourceRules) -> Source:
    host = checked_host(parts.hostname or "")
    if port == 0:
        raise invalid("the port must be from 1 to 65535")
    if port == _DEFAULT_PORTS[parts.scheme]:
        port = None
    path = _decoded(parts.path)
    if path.endswith(_TARBALL_ENDINGS):
        return _tarball(parts, host=host, port=port, path=path, rules=rules)
    repository, rest = _split_repository(path, host=host)
    if not all(_REPOSITORY_PART.fullmatch(part) and part not in (".", "..", ".git") for part in repository):
        raise invalid("the repository's path may have letters, digits and . _ ~ - only, no .. or .git by itself")
    name = "/".join(repository).removesuffix(".git")
    if not name or (len(repository) == 1 and _is_forge(host)):
        raise invalid(f"names no repository; write {_EXAMPLE}")
    insecure = rules.is_insecure(host=host, port=port, path=name)
    if parts.scheme == "http" and not insecure:
        place = _netloc(host, port=port)
        raise not_allowed(f"uses plain http; write https://, or list {place} in {INSECURE_SETTING}")
    rules.require_host(host=host, port=port, path=name)
    # kaniko's git:// means "git by https" too; the unencrypted git protocol is never used.
    scheme = "http" if insecure and parts.scheme != "https" else "https"
    clone_url = f"{scheme}://{_netloc(host, port=port)}/{name}.git"
    tree, sub_path = _tree_or_sub_path(rest, host=host)
    ref, commit, fragment_path = _fragment(parts.fragment)
    if tree and (ref or commit or fragment_path):
        raise invalid("names a branch twice, by /tree/… and after #; leave one out")
    if sub_path and fragment_path:
        raise invalid("names a folder twice, in the path and after #; leave one out")
    if tree and _COMMIT.fullmatch(tree.partition("/")[0]):
        commit, _, sub_path = tree.partition("/")
        tree = ""
    return Source(
        kind=SourceKind.GIT,
        host=host,
        url=clone_url,
        ref=ref,
        commit=commit,
        tree=tree,
        sub_path=sub_path or fragment_path,
    )


def _tarball(parts: SplitResult, *, host: str, port: int | None, path: str, rules: SourceRules) -> Source:
    _checked_segments(path.strip("/"))
    rules.require_host(host=host, port=port, path=path.strip("/"))
    if parts.scheme != "https":
        raise invalid("is a tarball; kaniko fetches those by https:// only")
    return Source(
        kind=SourceKind.TARBALL,
        host=host,
        url=f"https://{_netloc(host, port=port)}{quote(path)}",
        sub_path=_only_sub_path(parts.fragment),
    )


def _from_bucket(parts: SplitResult, *, port: int | None, rules: SourceRules) -> Source:
    bucket, key = parts.netloc, _decoded(parts.path).removeprefix("/")
    if port is not None or not _BUCKET.fullmatch(bucket):
        raise invalid("the bucket's name may have lower-case letters, digits and . _ - only")
    if not key.endswith(_TARBALL_ENDINGS):
        raise invalid(f"write {parts.scheme}://<bucket>/<path>.tar.gz: kaniko takes compressed tarballs from buckets")
    _checked_path(key)
    rules.require_bucket(scheme=parts.scheme, bucket=bucket, key=key)
    return Source(
        kind=SourceKind(parts.scheme),
        host="",
        url=f"{parts.scheme}://{bucket}/{quote(key)}",
        sub_path=_only_sub_path(parts.fragment),
    )


def _split_repository(path: str, *, host: str) -> tuple[list[str], list[str]]:
    """Where the repository's path ends: at `//`, after a part that ends in `.git`, before GitLab's `/-/`,
    after owner and name; on GitLab, whose groups nest, before a page, or it is the whole path."""
    explicit, separator, below = path.removeprefix("/").partition("//")
    if separator:
        return explicit.split("/"), below.strip("/").split("/") if below.strip("/") else []
    segments = [segment for segment in path.split("/") if segment]
    for index, segment in enumerate(segments):
        if segment.endswith(".git"):
            return segments[: index + 1], segments[index + 1 :]
        if segment == "-" and index:
            return segments[:index], segments[index:]
        # Names of projects may not be those of pages there, so this is an address of before `/-/`.
        if _is_gitlab(host) and index >= 2 and segment in ("tree", *_OTHER_PAGES):
            return segments[:index], segments[index:]
    if _is_gitlab(host):
        return segments, []
    return segments[:2], segments[2:]


def _is_gitlab(host: str) -> bool:
    return "gitlab" in host.split(".")


def _is_forge(host: str) -> bool:
    """Whether every repository there has an owner, or a group, before its name."""
    return _is_gitlab(host) or host in ("github.com", "bitbucket.org")


def _tree_or_sub_path(rest: list[str], *, host: str) -> tuple[str, str]:
    from_forge = rest[:1] == ["-"]
    rest = rest[1:] if from_forge else rest
    if not rest:
        return "", ""
    page, below = rest[0], "/".join(rest[1:])
    if page == "tree" or (page == "src" and host == "bitbucket.org"):
        if not below:
            raise invalid(f"ends where a branch should follow; write {_EXAMPLE}")
        if rest[1] == "HEAD":
            return "", _checked_path("/".join(rest[2:])) if rest[2:] else ""
        return _checked_path(below), ""
    if from_forge or page in _OTHER_PAGES:
        raise invalid(f"shows a file or a change, not a folder; write {_EXAMPLE}")
    return "", _checked_path("/".join(rest))


def _fragment(text: str) -> tuple[str, str, str]:
    """The forms of kaniko (`#refs/heads/x#<commit>`) and of Docker (`#ref:folder`): ref, commit and
    folder."""
    named, _, pinned = _decoded(text).partition("#")
    ref, _, folder = named.partition(":")
    folder = _checked_path(folder.strip("/")) if folder.strip("/") else ""
    if pinned and not _COMMIT.fullmatch(pinned):
        raise invalid("what follows the second # must be a whole commit hash (40 or 64 hexadecimal digits)")
    if ref in ("", "HEAD") or _COMMIT.fullmatch(ref):
        return "", pinned or ref.removeprefix("HEAD"), folder
    if not _REF.fullmatch(ref) or ".." in ref or "//" in ref or ref.endswith(("/", ".", ".lock")):
        raise invalid("what follows # is not a branch, tag or commit (letters, digits and . _ / + @ = , -)")
    return ref, pinned, folder


def _only_sub_path(fragment: str) -> str:
    ref, commit, folder = _fragment(fragment)
    if ref or commit:
        raise invalid("a tarball has no branches; after # write :<folder> or nothing")
    return folder


def _checked_path(path: str) -> str:
    if any(segment.startswith("-") for segment in path.split("/")):
        raise invalid("the folder must be a path inside the source, without parts that begin with -")
    return _checked_segments(path)


def _checked_segments(path: str) -> str:
    if {"", ".", "..", ".git"} & set(path.split("/")):
        raise invalid("the folder must be a path inside the source, without .., .git or empty parts")
    return path


def _decoded(text: str) -> str:
    if re.search(r"%(?![0-9A-Fa-f]{2})|%2[Ff]", text):
        raise invalid("has a % that does not escape one character of a name")
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise invalid("has %-escapes that are not UTF-8") from None
    if _UNSAFE.sub("", decoded.replace(" ", "")) != decoded.replace(" ", ""):
        raise invalid("has a control character or a backslash behind a %-escape")
    return decoded


def _netloc(host: str, *, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"
