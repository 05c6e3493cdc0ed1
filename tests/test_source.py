"""What people and tools write as `source_url`, what it means, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanikojobs.errors import PermanentError
from kanikojobs.manifest.source import Source, SourceKind, parse_source
from kanikojobs.manifest.source_rules import SourceRules

COMMIT = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
RULES = SourceRules(
    allowed_hosts=(
        "github.com",
        "gitlab.com",
        "bitbucket.org",
        "*.example.com",
        "git.example.org:8443",
        "forge.example.net/notifi",
        "git.tools.svc.cluster.local",
    ),
    insecure_hosts=("127.0.0.1:3000", "git-server"),
    allowed_buckets=("s3://sources", "gs://sources/builds"),
)


def git(host, url, **fields):
    return Source(kind=SourceKind.GIT, host=host, url=url, **fields)


def github(**fields):
    return git("github.com", "https://github.com/notifi/parsers.git", **fields)


def gitlab(**fields):
    return git("gitlab.com", "https://gitlab.com/group/sub/parsers.git", **fields)


ACCEPTED = {
    "the document's sample": (
        "https://github.com/notifi/parsers/0197ad6c10b973b2b854a0e652155b7e",
        github(sub_path="0197ad6c10b973b2b854a0e652155b7e"),
    ),
    "a repository": ("https://github.com/notifi/parsers", github()),
    "a slash at the end": ("https://github.com/notifi/parsers/", github()),
    "upper case in scheme and host": ("HTTPS://GitHub.COM/notifi/parsers", github()),
    "the default port": ("https://github.com:443/notifi/parsers", github()),
    ".git": ("https://github.com/notifi/parsers.git", github()),
    ".git and a folder": ("https://github.com/notifi/parsers.git/a/b", github(sub_path="a/b")),
    ".git//folder": ("https://github.com/notifi/parsers.git//a/b", github(sub_path="a/b")),
    "a deep folder": ("https://github.com/notifi/parsers/a/b/c", github(sub_path="a/b/c")),
    "a tree page": ("https://github.com/notifi/parsers/tree/main/a/b", github(tree="main/a/b")),
    "a tree page of a branch": ("https://github.com/notifi/parsers/tree/feature/x", github(tree="feature/x")),
    "a tree page of a commit": (
        f"https://github.com/notifi/parsers/tree/{COMMIT}/a/b",
        github(commit=COMMIT, sub_path="a/b"),
    ),
    "an escaped space in a folder": ("https://github.com/notifi/parsers/my%20app", github(sub_path="my app")),
    "GitLab's nested groups": ("https://gitlab.com/group/sub/parsers", gitlab()),
    "GitLab's tree page": ("https://gitlab.com/group/sub/parsers/-/tree/main/a", gitlab(tree="main/a")),
    "GitLab's tree page as it is copied": (
        "https://gitlab.com/group/sub/parsers/-/tree/main/a?ref_type=heads",
        gitlab(tree="main/a"),
    ),
    "GitLab's tree page of before": ("https://gitlab.com/group/sub/parsers/tree/main/a", gitlab(tree="main/a")),
    "GitHub's page with a tab": ("https://github.com/notifi/parsers?tab=readme-ov-file", github()),
    "GitLab's .git": ("https://gitlab.com/group/sub/parsers.git//a", gitlab(sub_path="a")),
    "Bitbucket's source page": (
        "https://bitbucket.org/team/app/src/main/a",
        git("bitbucket.org", "https://bitbucket.org/team/app.git", tree="main/a"),
    ),
    "Bitbucket's source page of a commit": (
        f"https://bitbucket.org/team/app/src/{COMMIT}/a/",
        git("bitbucket.org", "https://bitbucket.org/team/app.git", commit=COMMIT, sub_path="a"),
    ),
    "a tree page of a tag": ("https://github.com/notifi/parsers/tree/v1.2.3/a", github(tree="v1.2.3/a")),
    "a tree page of the default branch": ("https://github.com/notifi/parsers/tree/HEAD/a/b", github(sub_path="a/b")),
    "the root of the default branch": ("https://github.com/notifi/parsers/tree/HEAD/", github()),
    "kaniko's form": ("git://github.com/notifi/parsers.git", github()),
    "kaniko's form with a ref": (
        "git://github.com/notifi/parsers.git#refs/heads/x",
        github(ref="refs/heads/x"),
    ),
    "kaniko's form with ref and commit": (
        f"git://github.com/notifi/parsers.git#refs/heads/x#{COMMIT}",
        github(ref="refs/heads/x", commit=COMMIT),
    ),
    "Docker's form with a tag": ("https://github.com/notifi/parsers.git#v1.2", github(ref="v1.2")),
    "Docker's form with a folder": (
        "https://github.com/notifi/parsers.git#feature/x:api",
        github(ref="feature/x", sub_path="api"),
    ),
    "Docker's form without a ref": ("https://github.com/notifi/parsers.git#:api", github(sub_path="api")),
    "a commit after #": (f"https://github.com/notifi/parsers#{COMMIT}", github(commit=COMMIT)),
    "the default branch by name": ("https://github.com/notifi/parsers#HEAD:api", github(sub_path="api")),
    "Docker's form with folder and commit": (
        f"https://github.com/notifi/parsers.git#refs/heads/x:api#{COMMIT}",
        github(ref="refs/heads/x", commit=COMMIT, sub_path="api"),
    ),
    "a pull request's ref": (
        "https://github.com/notifi/parsers#refs/pull/7/head",
        github(ref="refs/pull/7/head"),
    ),
    "a host below a wildcard": (
        "https://git.example.com/a/b",
        git("git.example.com", "https://git.example.com/a/b.git"),
    ),
    "an empty port, and one with zeros": ("https://github.com:0443/notifi/parsers", github()),
    "a folder that a shell would run": ("https://github.com/notifi/parsers/$(id)`x`;y", github(sub_path="$(id)`x`;y")),
    "a port of its own": (
        "https://git.example.org:8443/a/b",
        git("git.example.org", "https://git.example.org:8443/a/b.git"),
    ),
    "below an allowed path": (
        "https://forge.example.net/notifi/parsers",
        git("forge.example.net", "https://forge.example.net/notifi/parsers.git"),
    ),
    "an internal host that is listed": (
        "https://git.tools.svc.cluster.local/a/b",
        git("git.tools.svc.cluster.local", "https://git.tools.svc.cluster.local/a/b.git"),
    ),
    "plain http to a host listed for it": (
        "http://127.0.0.1:3000/notifi/parsers/0197",
        git("127.0.0.1", "http://127.0.0.1:3000/notifi/parsers.git", sub_path="0197"),
    ),
    "kaniko's form to a host listed for http": (
        "git://git-server/a/b.git",
        git("git-server", "http://git-server/a/b.git"),
    ),
    "https stays https to a host listed for http": (
        "https://git-server/a/b.git",
        git("git-server", "https://git-server/a/b.git"),
    ),
    "S3": (
        "s3://sources/team/app.tar.gz",
        Source(kind=SourceKind.S3, host="", url="s3://sources/team/app.tar.gz"),
    ),
    "an object whose name has a space and a percent sign": (
        "s3://sources/my%20app%25.tar.gz",
        Source(kind=SourceKind.S3, host="", url="s3://sources/my%20app%25.tar.gz"),
    ),
    "Google Cloud Storage with a folder": (
        "gs://sources/builds/app.tgz#:api",
        Source(kind=SourceKind.GS, host="", url="gs://sources/builds/app.tgz", sub_path="api"),
    ),
    "GitLab's tarball": (
        "https://gitlab.com/group/parsers/-/archive/main/parsers-main.tar.gz#:parsers-main",
        Source(
            kind=SourceKind.TARBALL,
            host="gitlab.com",
            url="https://gitlab.com/group/parsers/-/archive/main/parsers-main.tar.gz",
            sub_path="parsers-main",
        ),
    ),
    "a tarball": (
        "https://github.com/notifi/parsers/archive/refs/heads/main.tar.gz#:parsers-main",
        Source(
            kind=SourceKind.TARBALL,
            host="github.com",
            url="https://github.com/notifi/parsers/archive/refs/heads/main.tar.gz",
            sub_path="parsers-main",
        ),
    ),
}

INVALID, NOT_ALLOWED = "SourceInvalid", "SourceNotAllowed"
REFUSED = {
    "nothing": ("", INVALID, "scheme"),
    "no scheme": ("github.com/notifi/parsers", INVALID, "scheme"),
    "a flag": ("--upload-pack=touch /tmp/x", INVALID, "space"),
    "a flag without a space": ("--config=core.sshCommand=x", INVALID, "scheme"),
    "a flag as the host": ("https://--upload-pack=x/a/b", INVALID, "host"),
    "a flag as the owner": ("https://github.com/--upload-pack=x/b", INVALID, "repository"),
    "a flag as the folder": ("https://github.com/a/b/--destination=evil", INVALID, "folder"),
    "a flag as the ref": ("https://github.com/a/b#--upload-pack=x", INVALID, "follows #"),
    "git's ext transport": ("ext::sh -c x", INVALID, "space"),
    "git's ext transport as a scheme": ("ext://sh", NOT_ALLOWED, "https, git, s3 or gs"),
    "a file": ("file:///etc/passwd", NOT_ALLOWED, "https, git, s3 or gs"),
    "kaniko's folder": ("dir:///kaniko/.docker", NOT_ALLOWED, "https, git, s3 or gs"),
    "kaniko's tarball": ("tar://stdin", NOT_ALLOWED, "https, git, s3 or gs"),
    "javascript": ("javascript:alert(1)", INVALID, "scheme"),
    "ssh": ("ssh://git@github.com/a/b.git", INVALID, "credentials"),
    "ssh without a user": ("ssh://github.com/a/b.git", INVALID, "https://"),
    "git@": ("git@github.com:a/b.git", INVALID, "scheme"),
    "plain http": ("http://github.com/a/b", NOT_ALLOWED, "KANIKOJOBS_INSECURE_HOSTS"),
    "a host that is not listed": ("https://evil.example/a/b", NOT_ALLOWED, "KANIKOJOBS_ALLOWED_HOSTS"),
    "a host that ends like a listed one": ("https://evilgithub.com/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "a host that begins like a listed one": (
        "https://github.com.evil.example/a/b",
        NOT_ALLOWED,
        "ALLOWED_HOSTS",
    ),
    "the wildcard's own name": ("https://example.com/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "another port": ("https://github.com:22/a/b", NOT_ALLOWED, "github.com:22"),
    "a port out of range": ("https://github.com:99999/a/b", INVALID, "port"),
    "port 0": ("https://github.com:0/a/b", INVALID, "port"),
    "a port that is no number": ("https://github.com:x/a/b", INVALID, "port"),
    "outside an allowed path": ("https://forge.example.net/other/parsers", NOT_ALLOWED, "path"),
    "beside an allowed path": ("https://forge.example.net/notifi-evil/parsers", NOT_ALLOWED, "path"),
    "a password": ("https://user:hunter2@github.com/a/b", INVALID, "credentials"),
    "a token": ("https://hunter2@github.com/a/b", INVALID, "credentials"),
    "a host behind credentials": ("https://github.com:hunter2@evil.example/a/b", INVALID, "credentials"),
    "a token in the query": ("https://github.com/a/b?token=hunter2", INVALID, "query"),
    "a newline": ("https://github.com/a/b\n--destination=evil", INVALID, "control"),
    "a newline in the host": ("https://git\nhub.com/a/b", INVALID, "control"),
    "an escaped newline": ("https://github.com/a/b/x%0Ay", INVALID, "control"),
    "an escaped NUL": ("https://github.com/a/b/x%00y", INVALID, "control"),
    "a tab": ("https://github.com/a\t/b", INVALID, "control"),
    "a backslash": ("https://github.com\\@evil.example/a/b", INVALID, "backslash"),
    "an escaped backslash": ("https://github.com/a/b/..%5C..%5Cetc", INVALID, "backslash"),
    "Cyrillic letters in the host": ("https://gіthub.com/a/b", INVALID, "ASCII"),
    "full-width letters in the host": ("https://ｇithub.com/a/b", INVALID, "ASCII"),
    "an ideographic full stop": ("https://github。com/a/b", INVALID, "ASCII"),
    "look-alikes in the repository": ("https://github.com/nоtifi/parsers", INVALID, "repository"),
    "loopback": ("https://127.0.0.1/a/b", NOT_ALLOWED, "internal"),
    "loopback at another port than listed": (
        "http://127.0.0.1:3001/a/b",
        NOT_ALLOWED,
        "list 127.0.0.1:3001 in KANIKOJOBS_INSECURE_HOSTS",
    ),
    "a private network": ("https://10.0.0.1/a/b", NOT_ALLOWED, "internal"),
    "the cloud's metadata": ("https://169.254.169.254/latest/meta-data", NOT_ALLOWED, "internal"),
    "the cloud's metadata by name": ("https://metadata.google.internal/a/b", NOT_ALLOWED, "internal"),
    "IPv6 loopback": ("https://[::1]/a/b", NOT_ALLOWED, "internal"),
    "IPv4 inside IPv6": ("https://[::ffff:10.0.0.1]/a/b", NOT_ALLOWED, "internal"),
    "IPv4 inside IPv6, in hexadecimal": ("https://[::ffff:7f00:1]/a/b", NOT_ALLOWED, "internal"),
    "IPv4 behind NAT64": ("https://[64:ff9b::7f00:1]/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "IPv4 behind 6to4": ("https://[2002:7f00:1::]/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "IPv6 loopback, written out": ("https://[0:0:0:0:0:0:0:1]/a/b", NOT_ALLOWED, "internal"),
    "IPv6 for no address": ("https://[::]/a/b", NOT_ALLOWED, "internal"),
    "a private IPv6 network": ("https://[fd00::1]/a/b", NOT_ALLOWED, "internal"),
    "an address of a future kind": ("https://[v1.fe80::a+en1]/a/b", INVALID, "IPv6"),
    "a name in brackets": ("https://[github.com]/a/b", INVALID, "brackets"),
    "a broken IPv6 address": ("https://[::1/a/b", INVALID, "URL"),
    "an IPv6 zone": ("https://[fe80::1%25eth0]/a/b", INVALID, "IPv6"),
    "a public address": ("https://93.184.215.14/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "a decimal address": ("https://2130706433/a/b", INVALID, "unusual spelling"),
    "a hexadecimal address": ("https://0x7f000001/a/b", INVALID, "unusual spelling"),
    "an octal address": ("https://0177.0.0.1/a/b", INVALID, "unusual spelling"),
    "an octal address in one number": ("https://017700000001/a/b", INVALID, "unusual spelling"),
    "a hexadecimal address by parts": ("https://0x7f.0x0.0x0.0x1/a/b", INVALID, "unusual spelling"),
    "an address with zeros": ("https://127.0.0.01/a/b", INVALID, "unusual spelling"),
    "an address with a dot after it": ("https://127.0.0.1./a/b", INVALID, "host name"),
    "an address in circled digits": ("https://①②⑦.0.0.1/a/b", INVALID, "ASCII"),
    "the address of nobody": ("https://0.0.0.0/a/b", NOT_ALLOWED, "internal"),
    "a carrier's network": ("https://100.100.100.200/a/b", NOT_ALLOWED, "internal"),
    "a short address": ("https://127.1/a/b", INVALID, "unusual spelling"),
    "localhost": ("https://localhost/a/b", NOT_ALLOWED, "internal"),
    "a service of the cluster": ("https://kubernetes.default.svc/a/b", NOT_ALLOWED, "internal"),
    "a service by its namespace": ("https://kubernetes.default/a/b", NOT_ALLOWED, "internal"),
    "a service of the system": ("https://registry.kube-system/a/b", NOT_ALLOWED, "internal"),
    "below localhost": ("https://x.localhost/a/b", NOT_ALLOWED, "internal"),
    "an escaped dot in the host": ("https://github%2ecom/a/b", INVALID, "host name"),
    "an escaped newline in the host": ("https://github.com%0a/a/b", INVALID, "host name"),
    "an escaped @ in the host": ("https://github.com%40evil.example/a/b", INVALID, "host name"),
    "a punycode look-alike": ("https://xn--gthub-cta.com/a/b", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "two dots in the host": ("https://github..com/a/b", INVALID, "host name"),
    "a port with a sign": ("https://github.com:+443/a/b", INVALID, "port"),
    "a host in the fragment": ("https://evil.example#@github.com/a/b", INVALID, "repository"),
    "a scheme without slashes": ("https:github.com/a/b", INVALID, "scheme"),
    "no scheme but slashes": ("//github.com/a/b", INVALID, "scheme"),
    "git's options after a space": ("git://github.com/a/b.git --upload-pack=x", INVALID, "space"),
    "the unencrypted git port": ("git://github.com:9418/a/b.git", NOT_ALLOWED, "github.com:9418"),
    "git with a transport before it": ("git::https://github.com/a/b", INVALID, "scheme"),
    "git+https": ("git+https://github.com/a/b", NOT_ALLOWED, "https, git, s3 or gs"),
    "an image": ("docker://github.com/a/b", NOT_ALLOWED, "https, git, s3 or gs"),
    "a name without a dot": ("https://kubernetes/a/b", NOT_ALLOWED, "internal"),
    "a dot after the host": ("https://github.com./a/b", INVALID, "host name"),
    "no host": ("https:///a/b", INVALID, "no host"),
    "an owner without a repository": ("https://github.com/notifi", INVALID, "repository"),
    "an owner and a folder": ("https://github.com/notifi//parsers", INVALID, "repository"),
    "a group without a project": ("https://gitlab.com/group", INVALID, "repository"),
    "no repository": ("https://github.com/", INVALID, "repository"),
    "up and out": ("https://github.com/a/b/../../c", INVALID, "folder"),
    "up and out, escaped": ("https://github.com/a/b/%2e%2e/c", INVALID, "folder"),
    "up and out as the owner": ("https://github.com/../b", INVALID, "repository"),
    "an escaped slash": ("https://github.com/a/b/..%2f..%2fetc", INVALID, "%"),
    "up and out after #": ("https://github.com/a/b#main:../../etc", INVALID, "folder"),
    "an absolute folder after #": ("https://github.com/a/b#main:/a//etc", INVALID, "folder"),
    "the repository's own files": ("https://github.com/a/b/.git/config", INVALID, "repository"),
    "up and out, half escaped": ("https://github.com/a/b/.%2e/c", INVALID, "folder"),
    "a line break, escaped": ("https://github.com/a/b/c%0d%0ad", INVALID, "control"),
    "text that runs backwards": ("https://github.com/a/b/gpj\u202e.x", INVALID, "control"),
    "text that runs backwards, escaped": ("https://github.com/a/b/%e2%80%ae", INVALID, "control"),
    "a character without width": ("https://github.com/a/b/ap\u200bi", INVALID, "control"),
    "an escaped slash in a branch": ("https://github.com/a/b/tree/feature%2Fx", INVALID, "%"),
    "a revision": ("https://github.com/a/b#main~1", INVALID, "follows #"),
    "a reflog": ("https://github.com/a/b#@{upstream}", INVALID, "follows #"),
    "a query beside a known one": ("https://github.com/a/b?tab=x&token=hunter2", INVALID, "query"),
    "a broken escape": ("https://github.com/a/b/%zz", INVALID, "%"),
    "an escape that is not UTF-8": ("https://github.com/a/b/%ff", INVALID, "UTF-8"),
    "a shell's text as the ref": ("https://github.com/a/b#$(id)", INVALID, "follows #"),
    "a refspec as the ref": ("https://github.com/a/b#+refs/heads/x", INVALID, "follows #"),
    "a ref that goes up": ("https://github.com/a/b#refs/../x", INVALID, "follows #"),
    "a short commit after the second #": ("https://github.com/a/b#main#abc123", INVALID, "commit"),
    "a page of a file": ("https://github.com/a/b/blob/main/Dockerfile", INVALID, "not a folder"),
    "a page of a GitLab file": ("https://gitlab.com/a/b/-/blob/main/x", INVALID, "not a folder"),
    "a tree without a branch": ("https://github.com/a/b/tree", INVALID, "branch"),
    "two branches": ("https://github.com/a/b/tree/main#dev", INVALID, "twice"),
    "two folders": ("https://github.com/a/b/api#main:web", INVALID, "twice"),
    "a tarball by http": ("http://127.0.0.1:3000/x.tar.gz", INVALID, "https://"),
    "a tarball from elsewhere": ("https://evil.example/x.tar.gz", NOT_ALLOWED, "ALLOWED_HOSTS"),
    "a tarball with a branch": ("https://github.com/x.tar.gz#main", INVALID, "no branches"),
    "a bucket that is not listed": ("s3://secrets/x.tar.gz", NOT_ALLOWED, "KANIKOJOBS_ALLOWED_BUCKETS"),
    "the same name at another cloud": ("gs://sources/x.tar.gz", NOT_ALLOWED, "ALLOWED_BUCKETS"),
    "a bucket with a key": ("s3://key:hunter2@sources/x.tar.gz", INVALID, "credentials"),
    "a bucket with a port": ("s3://sources:80/x.tar.gz", INVALID, "bucket"),
    "a version of an object": ("s3://sources/x.tar.gz?versionId=1", INVALID, "query"),
    "an empty part of a key": ("s3://sources//x.tar.gz", INVALID, "folder"),
    "an archive of another kind": ("oci://sources/x", NOT_ALLOWED, "https, git, s3 or gs"),
    "a bucket in capitals": ("s3://Sources/x.tar.gz", INVALID, "bucket"),
    "an object that is no tarball": ("s3://sources/x.zip", INVALID, "tar.gz"),
    "up and out of a prefix": ("gs://sources/builds/../x.tar.gz", INVALID, "folder"),
    "too long": ("https://github.com/a/" + "b" * 3000, INVALID, "2048"),
}


@pytest.mark.parametrize(("url", "expected"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_it_reads(url, expected):
    assert parse_source(url, rules=RULES) == expected


@pytest.mark.parametrize(("url", "reason", "hint"), REFUSED.values(), ids=REFUSED.keys())
def test_it_refuses(url, reason, hint):
    with pytest.raises(PermanentError) as refusal:
        parse_source(url, rules=RULES)

    assert refusal.value.reason == reason
    assert refusal.value.message.startswith("data.parameters.source_url: ")
    assert hint in refusal.value.message
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("*", "https://localhost/a/b"),
        ("*", "https://10.0.0.1/a/b"),
        ("*", "https://93.184.215.14/a/b"),
        ("*", "https://[2001:4860:4860::8888]/a/b"),
        ("*", "https://[64:ff9b::a00:1]/a/b"),
        ("*", "https://kubernetes.default/a/b"),
        ("*.example.com", "https://kubernetes.default.svc.example.com/a/b"),
    ],
)
def test_a_wildcard_never_reaches_an_internal_host_or_an_address(pattern, url):
    with pytest.raises(PermanentError, match="SourceNotAllowed"):
        parse_source(url, rules=SourceRules(allowed_hosts=(pattern,)))


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("*", "https://any.example.com/a/b"),
        ("*.svc.cluster.local", "https://git.tools.svc.cluster.local/a/b"),
        ("10.0.0.1", "https://10.0.0.1/a/b"),
        ("[::1]:8443", "https://[::1]:8443/a/b"),
        ("github.com:443", "https://github.com/a/b"),
    ],
)
def test_an_entry_that_names_a_place_opens_it(pattern, url):
    source = parse_source(url, rules=SourceRules(allowed_hosts=(pattern,)))

    assert source.url == f"{url}.git"


def test_without_any_setting_no_bucket_is_allowed():
    with pytest.raises(PermanentError, match="KANIKOJOBS_ALLOWED_BUCKETS"):
        parse_source("s3://sources/x.tar.gz", rules=SourceRules())


@given(st.one_of(st.text(), st.text().map("https://github.com/{}".format), st.text().map("https://{}/a/b".format)))
def test_any_text_is_read_or_refused_and_what_is_read_is_safe(text):
    try:
        source = parse_source(text, rules=RULES)
    except PermanentError:
        return

    assert source.url.startswith(("https://", "http://127.0.0.1:3000/", "http://git-server/", "s3://", "gs://"))
    for value in (source.url, source.ref, source.commit, source.tree, source.sub_path):
        assert not value.startswith("-")
        assert ".." not in value.split("/")
        assert not any(character < " " or character == "\\" for character in value)
