"""The init container's command, really run, against a git server that speaks as forges and as plain servers do."""

import os
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from kanikojobs.manifest import Build, BuildOptions, job_manifest
from kanikojobs.manifest.source_rules import SourceRules
from tests.git_server import PASSWORD, USERNAME, git, publish, serving
from tests.kubelet import command_of, environment_of


@dataclass(frozen=True, slots=True)
class Repository:
    """What the fixture has published as `notifi/parsers.git`: a history with one branch, one tag, traps."""

    first_commit: str
    last_commit: str


@dataclass(frozen=True, slots=True)
class Fetched:
    status: int
    output: str
    directory: Path
    mounted_at: str = ""
    arguments: list[list[str]] = field(default_factory=list)

    def dockerfile(self) -> str:
        return (self.directory / "Dockerfile").read_text()

    def files(self) -> set[str]:
        context = self.directory / "context"
        return {str(path.relative_to(context)) for path in context.rglob("*") if not path.is_dir()}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("repositories")
    with serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def repository(server, tmp_path_factory):
    worktree = tmp_path_factory.mktemp("worktree")
    git("init", "--quiet", cwd=worktree)
    write(worktree / "app/package.json", "{}")
    write(worktree / "app/index.js", "first")
    first = commit(worktree)
    git("tag", "v1.0", cwd=worktree)
    write(worktree / "app/index.js", "second")
    write(worktree / "own/Dockerfile", "FROM scratch\n# its own\n")
    write(worktree / "own/Dockerfile.dockerignore", "secret\n")
    write(worktree / "own/docker/prod.Dockerfile", "FROM scratch\n# for production\n")
    write(worktree / "my app/Dockerfile", "FROM scratch\n")
    write(worktree / ".gitmodules", '[submodule "x"]\n\tpath = x\n\turl = http://127.0.0.1:9/x\n')
    # Somewhere that may be lost: without its check the script would move what the link points at.
    (worktree / "out").symlink_to(tmp_path_factory.mktemp("outside"))
    (worktree / "up").symlink_to("../..")
    (worktree / "inside").symlink_to("own")
    write(worktree / "trap/keep", "")
    (worktree / "trap/Dockerfile").symlink_to("/proc/self/environ")
    write(worktree / "sibling/keep", "")
    (worktree / "sibling/Dockerfile").symlink_to("../own/Dockerfile")
    write(worktree / "folder/Dockerfile/keep", "")
    last = commit(worktree)
    git("branch", "feature/login", cwd=worktree)
    publish(worktree, to=server.root / "notifi/parsers.git")
    return Repository(first_commit=first, last_commit=last)


@pytest.fixture
def fetch(server, repository, tmp_path):
    """Runs the init container of a build as it is rendered; returns what it said and left."""
    build = Build(
        source="s", event_id="e", number=1, third_party_id="t", parser_id="p", job_name="j", source_url="unset"
    )
    options = BuildOptions(
        namespace="builds",
        destination="registry.example.com/x:{short_hash}",
        source_rules=SourceRules(insecure_hosts=(server.host,)),
    )

    def run(url: str, *, secrets=None, git_secrets=None, **changes) -> Fetched:
        manifest = job_manifest(
            build=replace(build, source_url=url, **changes), options=replace(options, git_secrets=git_secrets or {})
        )
        container = manifest["spec"]["template"]["spec"]["initContainers"][0]
        variables = environment_of(container, secrets=secrets or {})
        mounted_at = container["volumeMounts"][0]["mountPath"]
        assert variables["SOURCE_DIR"] == mounted_at
        variables |= {"SOURCE_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
        finished = subprocess.run(
            command_of(container, variables=variables), env=variables, cwd="/", capture_output=True, text=True
        )
        kaniko = manifest["spec"]["template"]["spec"]["containers"][0]
        arguments = [argument.split("=", 1) for argument in command_of(kaniko, variables={}) if "=" in argument]
        return Fetched(finished.returncode, finished.stdout + finished.stderr, tmp_path, mounted_at, arguments)

    return run


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def commit(worktree):
    git("add", "--all", cwd=worktree)
    git("commit", "--quiet", "--message=x", cwd=worktree)
    return git("rev-parse", "HEAD", cwd=worktree)


@pytest.mark.parametrize("way", ["smart", "dumb"])
def test_a_source_without_a_dockerfile_gets_its_runtimes(fetch, server, way):
    fetched = fetch(server.url("notifi/parsers.git/app", by=way), runtime="nodejs18")

    assert fetched.status == 0, fetched.output
    assert fetched.files() == {"package.json", "index.js"}
    assert fetched.dockerfile().startswith("FROM docker.io/library/node:18 AS build\n")


REFS = {
    ".git#v1.0:app": "first",
    ".git#refs/tags/v1.0:app": "first",
    ".git#feature/login:app": "second",
    ".git/tree/v1.0/app": "first",
    ".git/tree/feature/login/app": "second",
    ".git/tree/refs/heads/main/app": "second",
    ".git#{first}:app": "first",
    ".git#refs/heads/main#{first}": "first",
    ".git/tree/{first}/app": "first",
    ".git#:app": "second",
}
# Over the dumb protocol only fetching differs: a branch, a commit, the default.
DUMB = (".git/tree/feature/login/app", ".git#{first}:app", ".git#:app")


@pytest.mark.parametrize(
    ("way", "suffix"), [*(("smart", suffix) for suffix in REFS), *(("dumb", suffix) for suffix in DUMB)]
)
def test_branches_tags_and_commits_are_found(fetch, server, repository, way, suffix):
    url = server.url(f"notifi/parsers{suffix.format(first=repository.first_commit)}", by=way)

    fetched = fetch(url, runtime="nodejs18")

    assert fetched.status == 0, fetched.output
    index = next(path for path in fetched.directory.glob("context/**/index.js"))
    assert index.read_text() == REFS[suffix]


@pytest.mark.parametrize("source_url", ["notifi/parsers.git/app", "notifi/parsers.git/own"])
def test_everything_that_kaniko_is_told_to_read_is_there(fetch, server, source_url):
    fetched = fetch(server.url(source_url), runtime="go")

    told = {flag: value.removeprefix("dir://") for flag, value in fetched.arguments}
    context, dockerfile = (Path(told[flag]).relative_to(fetched.mounted_at) for flag in ("--context", "--dockerfile"))
    assert (fetched.directory / context).is_dir()
    assert (fetched.directory / dockerfile).is_file()


def test_it_says_which_commit_it_built(fetch, server, repository):
    fetched = fetch(server.url("notifi/parsers.git/own"))

    assert f"at commit {repository.last_commit}" in fetched.output


def test_a_source_with_a_dockerfile_keeps_it(fetch, server):
    fetched = fetch(server.url("notifi/parsers.git/own"), runtime="nodejs18")

    assert fetched.dockerfile() == "FROM scratch\n# its own\n"
    assert (fetched.directory / "Dockerfile.dockerignore").read_text() == "secret\n"


def test_another_dockerfile_can_be_named(fetch, server):
    fetched = fetch(server.url("notifi/parsers.git/own"), dockerfile="docker/prod.Dockerfile")

    assert fetched.dockerfile() == "FROM scratch\n# for production\n"


def test_a_folders_name_may_have_spaces(fetch, server):
    assert fetch(server.url("notifi/parsers.git/my%20app")).files() == {"Dockerfile"}


def test_a_link_inside_the_repository_is_followed(fetch, server):
    assert fetch(server.url("notifi/parsers.git/inside")).files() >= {"Dockerfile"}


def test_nothing_of_git_is_left_for_the_image(fetch, server):
    fetched = fetch(server.url("notifi/parsers.git"), runtime="nodejs18")

    assert sorted(path.name for path in fetched.directory.iterdir()) == ["Dockerfile", "context"]
    assert (fetched.directory / "context/app/index.js").read_text() == "second"
    assert not (fetched.directory / "context/.git").exists()


def test_it_can_run_again_in_the_same_volume(fetch, server):
    fetch(server.url("notifi/parsers.git/own"))

    fetched = fetch(server.url("notifi/parsers.git/app"), runtime="nodejs18")

    assert fetched.status == 0, fetched.output
    assert fetched.files() == {"package.json", "index.js"}
    assert not (fetched.directory / "Dockerfile.dockerignore").exists()


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("notifi/parsers.git/app", {}, "the event names no runtime (there are: go "),
        ("notifi/parsers.git/app", {"runtime": "java21"}, 'no template serves the runtime "java21"'),
        ("notifi/parsers.git/app", {"dockerfile": "x/Dockerfile"}, 'the source has no file "x/Dockerfile"'),
        ("notifi/parsers.git/missing", {}, 'the repository has no folder "missing"'),
        ("notifi/parsers.git/out", {}, '"out" leads out of the repository'),
        ("notifi/parsers.git/up", {}, '"up" leads out of the repository'),
        ("notifi/parsers.git/trap", {}, '"Dockerfile" leads out of the folder'),
        ("notifi/parsers.git/sibling", {}, '"Dockerfile" leads out of the folder'),
        ("notifi/parsers.git/folder", {}, '"Dockerfile" is not a file'),
        ("notifi/parsers.git#nowhere", {}, 'has no branch or tag "nowhere"'),
        ("notifi/parsers.git/tree/nowhere/app", {}, "no branch or tag of"),
        (f"notifi/parsers.git#{'0' * 40}", {}, "has no commit 0000000000"),
        ("notifi/unknown.git", {}, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_explained(fetch, server, path, changes, message):
    fetched = fetch(server.url(path), **changes)

    assert fetched.status != 0
    assert message in fetched.output


def test_a_private_repository_is_read_with_its_hosts_secret(fetch, server):
    secrets = {("forge", "username"): USERNAME, ("forge", "password"): PASSWORD}

    fetched = fetch(
        server.url("notifi/parsers.git/own", by="private"), git_secrets={"127.0.0.1": "forge"}, secrets=secrets
    )

    assert fetched.status == 0, fetched.output
    assert PASSWORD not in fetched.output


def test_without_a_secret_nobody_is_asked_for_a_password(fetch, server):
    fetched = fetch(server.url("notifi/parsers.git/own", by="private"))

    assert fetched.status != 0
    assert "cannot be read" in fetched.output


def test_a_redirect_is_not_followed(fetch, server):
    fetched = fetch(server.url("notifi/parsers.git/own", by="moved"))

    assert fetched.status != 0
    assert "301" in fetched.output


def test_a_server_that_serves_the_name_without_git_is_found(fetch, server, repository):
    (server.root / "plain").mkdir(exist_ok=True)
    (server.root / "plain/parsers").symlink_to(server.root / "notifi/parsers.git")

    fetched = fetch(server.url("plain/parsers//own", by="dumb"))

    assert fetched.status == 0, fetched.output


def test_kubernetes_finds_nothing_to_expand_in_the_script(server):
    options = BuildOptions(
        namespace="builds",
        destination="registry.example.com/x:{short_hash}",
        source_rules=SourceRules(insecure_hosts=(server.host,)),
    )
    build = Build(
        source="s",
        event_id="e",
        number=1,
        third_party_id="t",
        parser_id="p",
        job_name="j",
        source_url=server.url("a/b"),
        runtime="python3.12",
    )

    container = job_manifest(build=build, options=options)["spec"]["template"]["spec"]["initContainers"][0]

    assert command_of(container, variables={}) == container["command"]
    assert "$(" not in container["command"][2]
