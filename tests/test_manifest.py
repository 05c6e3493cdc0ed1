"""The manifest: valid, within the rules of a guarded namespace, and deaf to whatever an event tries to say."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kanikojobs.advice import advice
from kanikojobs.errors import PermanentError
from kanikojobs.manifest import Resources, SecretKey, image_destination, job_manifest
from kanikojobs.manifest.runtimes import dockerfile_for, load_runtimes
from kanikojobs.manifest.source_rules import SourceRules
from kanikojobs.naming import label_value
from tests.kubelet import command_of, environment_of, expand
from tests.pod_security import broken_by_baseline
from tests.sample_builds import EVERYTHING, OPTIONS, PREFIX, SAMPLE, pod_of

SOURCES = {
    "git": "https://github.com/notifi/parsers/tree/main/a",
    "s3": "s3://sources/app.tar.gz#:api",
    "gs": "gs://sources/app.tar.gz",
    "tarball": "https://github.com/notifi/parsers/archive/main.tar.gz",
}
RUNTIMES = [
    *(f"nodejs{version}" for version in range(18, 25)),
    *(f"python3.{version}" for version in range(10, 15)),
    "python312",
    "go1.23",
    "go",
    "",
    "java21",
]


def containers_of(manifest):
    """The source container, if there is one, and kaniko's."""
    pod = pod_of(manifest)
    return (pod.get("initContainers", [None])[0], pod["containers"][0])


def kaniko_arguments(*, build=SAMPLE, options=OPTIONS, secrets=None):
    """What kaniko is executed with, after Kubernetes has expanded it."""
    _, kaniko = containers_of(job_manifest(build=build, options=options))
    variables = environment_of(kaniko, secrets=secrets or {})
    return command_of(kaniko, variables=variables)


def assert_valid(manifest, *, versions=("1.30", "1.36")):
    for version in versions:
        kubernetes_validate.validate(manifest, version, strict=True)


def assert_counted(manifest):
    """A LimitRange or a ResourceQuota finds requests and limits for everything that it may count."""
    pod = pod_of(manifest)
    for container in [*pod.get("initContainers", []), *pod["containers"]]:
        for kind in ("requests", "limits"):
            assert container["resources"][kind].keys() == {"cpu", "memory", "ephemeral-storage"}


@pytest.mark.parametrize("options", [OPTIONS, EVERYTHING], ids=["plain", "every option"])
@pytest.mark.parametrize(
    ("runtime", "source_url"),
    # What kaniko fetches itself has no template, so there the runtime changes nothing.
    [
        *((runtime, SOURCES["git"]) for runtime in RUNTIMES),
        *(("go", SOURCES[kind]) for kind in ("s3", "gs", "tarball")),
    ],
)
def test_every_runtime_source_and_option_gives_a_valid_manifest(runtime, source_url, options):
    build = replace(SAMPLE, runtime=runtime, source_url=source_url)

    manifest = job_manifest(build=build, options=options)

    assert_valid(manifest)
    assert broken_by_baseline(pod_of(manifest)) == set()
    assert_counted(manifest)


@pytest.mark.parametrize("version", ["1.28", "1.29", "1.31", "1.32", "1.33", "1.34", "1.35", "1.37"])
def test_every_option_is_known_to_other_versions_of_kubernetes(version):
    assert_valid(job_manifest(build=SAMPLE, options=EVERYTHING), versions=[version])


def test_the_sample_event_becomes_the_job_that_the_document_promises():
    manifest = job_manifest(build=SAMPLE, options=OPTIONS)

    assert manifest["metadata"]["name"] == SAMPLE.kubernetes_name
    assert len(manifest["metadata"]["name"]) <= 57
    assert manifest["metadata"]["labels"] == manifest["spec"]["template"]["metadata"]["labels"]
    assert manifest["metadata"]["labels"][f"{PREFIX}third-party-id"] == SAMPLE.third_party_id
    assert manifest["metadata"]["annotations"] == {
        f"{PREFIX}event-id": SAMPLE.event_id,
        f"{PREFIX}source": SAMPLE.source,
        f"{PREFIX}third-party-id": SAMPLE.third_party_id,
        f"{PREFIX}parser-id": SAMPLE.parser_id,
        f"{PREFIX}job-name": SAMPLE.job_name,
        f"{PREFIX}correlation-id": SAMPLE.correlation_id,
        f"{PREFIX}image": image_destination(build=SAMPLE, options=OPTIONS),
        f"{PREFIX}traceparent": SAMPLE.traceparent,
    }
    assert manifest["spec"]["activeDeadlineSeconds"] == 1800
    assert manifest["spec"]["backoffLimit"] == 0
    assert manifest["spec"]["ttlSecondsAfterFinished"] > 0
    arguments = kaniko_arguments()
    assert "--build-arg=NODE_ENV=production" in arguments
    assert "--build-arg=BUILD_MODE=optimized" in arguments
    assert "--digest-file=/dev/termination-log" in arguments
    assert f"--destination={image_destination(build=SAMPLE, options=OPTIONS)}" in arguments


def test_the_same_row_gives_the_same_manifest():
    reordered = replace(SAMPLE, environment=dict(reversed(list(SAMPLE.environment.items()))))

    first = job_manifest(build=SAMPLE, options=EVERYTHING)
    second = job_manifest(build=reordered, options=EVERYTHING)

    assert json.dumps(first) == json.dumps(second)


def test_the_next_number_is_another_job_and_another_image():
    again = replace(SAMPLE, number=2)

    assert again.kubernetes_name != SAMPLE.kubernetes_name
    assert image_destination(build=again, options=OPTIONS) != image_destination(build=SAMPLE, options=OPTIONS)


def test_a_pod_has_no_token_no_service_list_and_one_try():
    pod = pod_of(job_manifest(build=SAMPLE, options=OPTIONS))

    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["restartPolicy"] == "Never"


def test_the_container_that_meets_the_source_first_has_no_rights_at_all():
    source, _ = containers_of(job_manifest(build=SAMPLE, options=OPTIONS))

    assert source["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_a_disruption_is_not_counted_as_a_failed_build():
    policy = job_manifest(build=SAMPLE, options=OPTIONS)["spec"]["podFailurePolicy"]

    assert policy["rules"] == [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    ]


def test_every_option_has_its_place():
    manifest = job_manifest(build=SAMPLE, options=EVERYTHING)
    pod, (source, kaniko) = pod_of(manifest), containers_of(manifest)

    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "builds"
    assert manifest["spec"]["activeDeadlineSeconds"] == 1800 + 120
    assert pod["priorityClassName"] == "urgent"
    assert pod["nodeSelector"] == {"pool": "builds"}
    assert pod["tolerations"] == [{"key": "builds", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["runtimeClassName"] == "gvisor"
    assert pod["hostUsers"] is False
    assert pod["imagePullSecrets"] == [{"name": "pull"}]
    assert pod["serviceAccountName"] == "builder"
    assert kaniko["resources"]["limits"]["memory"] == "8Gi"
    assert {
        "--cache-repo=registry.example.com/cache/0307ea43639b4616b044d190310a26bd",
        "--registry-mirror=mirror.example.com",
        "--insecure-registry=registry.tools:5000",
        "--skip-tls-verify-registry=registry.lab:5000",
        "--skip-push-permission-check=true",
        "--push-retry=3",
        "--image-download-retry=3",
        "--compressed-caching=false",
    } <= set(kaniko["args"])
    assert {"name": "registry", "mountPath": "/kaniko/.docker", "readOnly": True} in kaniko["volumeMounts"]
    for container in (source, kaniko):
        assert {"name": "HTTPS_PROXY", "value": "http://proxy:3128"} in container["env"]


def test_a_retry_may_ask_for_more_memory_another_dockerfile_and_another_image():
    build = replace(
        SAMPLE, memory="16Gi", cpu="4", dockerfile="docker/prod.Dockerfile", destination="other.example.com/x:{number}"
    )

    manifest = job_manifest(build=build, options=OPTIONS)
    source, kaniko = containers_of(manifest)

    for kind in ("requests", "limits"):
        assert kaniko["resources"][kind]["memory"] == "16Gi"
        assert kaniko["resources"][kind]["cpu"] == "4"
    assert "--destination=other.example.com/x:1" in kaniko["args"]
    assert environment_of(source, secrets={})["SOURCE_DOCKERFILE"] == "docker/prod.Dockerfile"
    assert_valid(manifest)


def test_a_lower_priority_has_no_class():
    pod = pod_of(job_manifest(build=replace(SAMPLE, priority=9), options=EVERYTHING))

    assert "priorityClassName" not in pod


def test_a_timeout_above_the_limit_is_cut_to_it():
    manifest = job_manifest(build=replace(SAMPLE, build_timeout=10**6), options=OPTIONS)

    assert manifest["spec"]["activeDeadlineSeconds"] == OPTIONS.max_build_timeout


# What events put where


HOSTILE = [
    "--destination=evil.example/x:1",
    "two\nlines\n--destination=evil",
    "'; rm -rf / #",
    '"quoted"',
    "$(NPM_TOKEN)",
    "$$(NPM_TOKEN)",
    "$$$(NPM_TOKEN)",
    "$(HTTPS_PROXY)$$",
    "$HOME ${HOME} `id`",
    "a=b=c",
    "☃ ünïcödé",
    "",
    " ",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_reaches_the_build_as_it_is_and_nothing_else(value):
    build = replace(SAMPLE, environment={"VALUE": value})

    arguments = kaniko_arguments(build=build, options=EVERYTHING, secrets={("npm", "token"): "hunter2"})

    assert f"--build-arg=VALUE={value}" in arguments
    assert len(arguments) == len(
        kaniko_arguments(
            build=replace(SAMPLE, environment={"VALUE": "x"}),
            options=EVERYTHING,
            secrets={("npm", "token"): "hunter2"},
        )
    )
    assert not any("hunter2" in argument for argument in arguments)


@given(st.text(alphabet="$()NPM_TOKEN ab{}", max_size=30))
def test_no_text_can_ask_kubernetes_for_a_variable(value):
    build = replace(SAMPLE, environment={"VALUE": value})
    _, kaniko = containers_of(job_manifest(build=build, options=EVERYTHING))

    argument = next(argument for argument in kaniko["args"] if argument.startswith("--build-arg=VALUE="))

    assert expand(argument, variables={"NPM_TOKEN": "hunter2"}) == f"--build-arg=VALUE={value}"


def test_a_value_from_a_secret_travels_in_the_environment_only():
    build = replace(SAMPLE, environment={"NPM_TOKEN": "from the event", "OTHER": "x"})

    manifest = job_manifest(build=build, options=EVERYTHING)
    source, kaniko = containers_of(manifest)

    # kaniko takes an argument without a value from its own environment.
    assert "--build-arg=NPM_TOKEN" in kaniko["args"]
    assert "from the event" not in json.dumps(manifest)
    assert {
        "name": "NPM_TOKEN",
        "valueFrom": {"secretKeyRef": {"name": "npm", "key": "token"}},
    } in kaniko["env"]
    assert "NPM_TOKEN" not in environment_of(source, secrets={("github", "password"): "x"})


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "no_proxy"])
def test_an_operators_proxy_reaches_the_commands_of_a_build_and_stays_out_of_the_image(name):
    options = replace(OPTIONS, environment={name: "proxy:3128", "LC_ALL": "C.UTF-8"})
    build = replace(SAMPLE, environment={name: "evil:3128", "OTHER": "x"})

    source, kaniko = containers_of(job_manifest(build=build, options=options))

    # kaniko gives RUN the image's variables and the build's arguments, and none of its own variables.
    given = [argument for argument in kaniko["args"] if argument.startswith("--build-arg=")]
    assert given == sorted([f"--build-arg={name}", "--build-arg=OTHER=x"])
    assert environment_of(kaniko, secrets={})[name] == "proxy:3128"
    assert name not in environment_of(source, secrets={})["DOCKERFILE_TEMPLATE"]


@pytest.mark.parametrize("name", ["PATH", "LD_PRELOAD", "GIT_DIR", "DOCKER_CONFIG", "HTTPS_PROXY", "AWS_PROFILE"])
def test_an_events_variable_never_becomes_a_containers(name):
    build = replace(SAMPLE, environment={name: "evil"})

    source, kaniko = containers_of(job_manifest(build=build, options=OPTIONS))

    assert f"--build-arg={name}=evil" in kaniko["args"]
    for container in (source, kaniko):
        assert name not in [variable["name"] for variable in container["env"]]


@pytest.mark.parametrize("name", ["9X", "", "A-B", "A B", "A=B", "--x", "Ä", "A\n"])
def test_a_name_that_is_no_environment_name_is_refused(name):
    with pytest.raises(PermanentError, match=r"EnvironmentInvalid.*letters, digits and _"):
        job_manifest(build=replace(SAMPLE, environment={name: "x"}), options=OPTIONS)


def test_a_nul_character_is_refused():
    with pytest.raises(PermanentError, match=r"EnvironmentInvalid.*'X'.*NUL"):
        job_manifest(build=replace(SAMPLE, environment={"X": "a\0b"}), options=OPTIONS)


@pytest.mark.parametrize("field", ["event_id", "third_party_id", "parser_id", "job_name", "correlation_id", "runtime"])
@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "a\nb", "☃", "X" * 300, "../../etc", "$(NPM_TOKEN)"])
def test_hostile_ids_give_a_valid_manifest(field, text):
    manifest = job_manifest(build=replace(SAMPLE, **{field: text}), options=EVERYTHING)

    assert_valid(manifest)
    for value in manifest["metadata"]["labels"].values():
        assert label_value(value) == value or re.fullmatch(r".{1,45}--[0-9a-f]{16}", value)
    _, kaniko = containers_of(manifest)
    assert not any(text in argument for argument in kaniko["args"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"source_url": "file:///etc/passwd"}, "SourceNotAllowed"),
        ({"source_url": "nonsense"}, "SourceInvalid"),
        ({"build_type": "virtual-machine"}, "BuildTypeUnknown"),
        ({"memory": "lots"}, "ResourcesInvalid"),
        ({"cpu": "-1"}, "ResourcesInvalid"),
        ({"dockerfile": "../../etc/passwd"}, "DockerfileInvalid"),
        ({"dockerfile": "/etc/passwd"}, "DockerfileInvalid"),
        ({"destination": "evil.example/{secret}:1"}, "DestinationInvalid"),
        ({"destination": "{third_party_id}.example/x:1"}, "DestinationInvalid"),
        ({"destination": "registry.example.com/x:{correlation_id}", "correlation_id": ""}, "DestinationInvalid"),
    ],
)
def test_what_cannot_be_built_is_refused_for_good(change, reason):
    with pytest.raises(PermanentError) as refusal:
        job_manifest(build=replace(SAMPLE, **change), options=OPTIONS)

    assert refusal.value.reason == reason
    assert advice(reason)


# Credentials


def test_a_git_secret_goes_to_its_own_host_only():
    elsewhere = replace(SAMPLE, source_url="https://gitlab.com/group/parsers")

    own, _ = containers_of(job_manifest(build=SAMPLE, options=EVERYTHING))
    other, _ = containers_of(job_manifest(build=elsewhere, options=EVERYTHING))

    variables = environment_of(own, secrets={("github", "password"): "token"})
    assert variables["GIT_PASSWORD"] == "token"
    assert "GIT_USERNAME" not in variables
    assert "GIT_PASSWORD" not in environment_of(other, secrets={})


def test_a_buckets_secret_goes_to_builds_from_buckets_only():
    by_source = {
        name: containers_of(job_manifest(build=replace(SAMPLE, source_url=url), options=EVERYTHING))[1]
        for name, url in SOURCES.items()
    }

    assert by_source["s3"]["envFrom"] == [{"secretRef": {"name": "bucket"}}]
    assert "GOOGLE_APPLICATION_CREDENTIALS" in environment_of(by_source["gs"], secrets={("npm", "token"): "x"})
    for name in ("git", "tarball"):
        assert "bucket" not in json.dumps(by_source[name])


def test_tarballs_are_fetched_by_kaniko_itself():
    manifest = job_manifest(build=replace(SAMPLE, source_url=SOURCES["s3"]), options=OPTIONS)
    source, kaniko = containers_of(manifest)

    assert source is None
    assert kaniko["args"][:3] == [
        "--context=s3://sources/app.tar.gz",
        "--dockerfile=Dockerfile",
        "--context-sub-path=api",
    ]


# Operators


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"destination": "registry.example.com/{tenant}:1"}, r"destination: .*no placeholder {tenant}; there are"),
        ({"destination": "registry.example.com/x"}, "destination: .*:tag"),
        ({"destination": "library/x:1"}, "destination: .*registry's host"),
        ({"destination": "{third_party_id}/x:1"}, "destination: .*registry's host"),
        ({"destination": "registry.example.com/Upper:1"}, "destination: .*lower-case"),
        ({"destination": "registry.example.com/{number!r}:1"}, "destination: .*no ! or :"),
        ({"destination": "registry.example.com/{number:>9}:1"}, "destination: .*no ! or :"),
        ({"destination": "registry.example.com/{"}, "destination"),
        ({"cache_repo": "registry.example.com/cache:1"}, "cache_repo: .*not have a :tag"),
        ({"base_registry": "127.0.0.1:5000/"}, "base_registry: '127.0.0.1:5000/' is no registry"),
        ({"registry_mirrors": ("https://mirror.example.com",)}, "registry_mirrors: .*host:port"),
        ({"insecure_registries": ("http://127.0.0.1:5000",)}, "insecure_registries: .*host:port"),
        ({"skip_tls_verify_registries": ("registry.lab/team",)}, "skip_tls_verify_registries: .*host:port"),
        ({"source_rules": SourceRules(insecure_hosts=("http://127.0.0.1:3000",))}, "insecure_hosts: .*has a scheme"),
        ({"secret_environment": {"PATH": SecretKey("a", "b")}}, "secret_environment: 'PATH'"),
        ({"secret_environment": {"git_dir": SecretKey("a", "b")}}, "secret_environment: 'git_dir'"),
        ({"kaniko_arguments": ("destination=x",)}, "kaniko_arguments"),
        ({"build_resources": Resources("x", "4", "2Gi", "8Gi", "5Gi", "50Gi")}, "build_resources.cpu_request"),
    ],
)
def test_options_that_cannot_work_say_which_and_why(change, message):
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **change)


@pytest.mark.parametrize(
    ("runtime", "image"),
    [
        ("nodejs18", "node:18"),
        ("nodejs19", "node:19"),
        ("node20", "node:20"),
        ("nodejs22.x", "node:22"),
        ("nodejs", "node:22"),
        ("NodeJS24", "node:24"),
        ("python3.14", "python:3.14-bookworm"),
        ("python312", "python:3.12-bookworm"),
        ("python-3.10", "python:3.10-bookworm"),
        ("go1.23", "golang:1.23-bookworm"),
        ("go1.x", "golang:1-bookworm"),
        ("go", "golang:1-bookworm"),
    ],
)
def test_a_runtime_has_its_template(runtime, image):
    source, _ = containers_of(job_manifest(build=replace(SAMPLE, runtime=runtime), options=OPTIONS))

    template = environment_of(source, secrets={})["DOCKERFILE_TEMPLATE"]

    assert template.startswith(f"FROM docker.io/library/{image} AS build\n")
    assert not re.search(r"@[A-Z]+@", template)
    assert re.search(r"^USER [1-9][0-9]*:[1-9][0-9]*$", template, re.MULTILINE)
    assert 'ARG NODE_ENV\nENV NODE_ENV="${NODE_ENV}"' in template


@pytest.mark.parametrize("runtime", ["nodejs18", "python3.14", "go"])
def test_a_template_is_a_dockerfile_without_errors(runtime):
    hadolint = Path(sys.executable).parent / "hadolint"
    template = dockerfile_for(
        runtime, runtimes=load_runtimes(), registry="docker.io/library", environment=["NODE_ENV"], secrets=["NPM"]
    )

    checked = subprocess.run(
        [hadolint, "--no-color", "--failure-threshold=error", "-"], input=template, capture_output=True, text=True
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("runtime", ["", "nodejs16", "python2.7", "java21", "nodejs18; rm -rf /", "../nodejs18"])
def test_a_runtime_without_a_template_leaves_it_to_the_source(runtime):
    source, _ = containers_of(job_manifest(build=replace(SAMPLE, runtime=runtime), options=OPTIONS))

    variables = environment_of(source, secrets={})

    assert variables["DOCKERFILE_TEMPLATE"] == ""
    assert "nodejs 18 19 20 21 22 23 24" in variables["DOCKERFILE_ADVICE"]


def test_a_secret_argument_is_declared_for_the_build_and_not_kept_in_the_image():
    source, _ = containers_of(job_manifest(build=SAMPLE, options=EVERYTHING))

    template = environment_of(source, secrets={("github", "password"): "x"})["DOCKERFILE_TEMPLATE"]

    assert "ARG NPM_TOKEN" in template.partition("\nFROM ")[0]
    assert "NPM_TOKEN" not in template.partition("\nFROM ")[2]


def test_an_operator_adds_a_runtime_with_a_file(tmp_path):
    (tmp_path / "ruby.Dockerfile").write_text(
        "# runtime: ruby\n# versions: 3.3 3.4\n# default: 3.4\nFROM @REGISTRY@/ruby:@VERSION@\nUSER 65532\n"
    )
    options = replace(OPTIONS, runtimes=load_runtimes(tmp_path), base_registry="mirror.example.com/library")

    source, _ = containers_of(job_manifest(build=replace(SAMPLE, runtime="ruby3.3"), options=options))

    template = environment_of(source, secrets={})["DOCKERFILE_TEMPLATE"]
    assert template == "FROM mirror.example.com/library/ruby:3.3\nUSER 65532"


@pytest.mark.parametrize("head", ["", "# runtime: x\n", "# runtime: x\n# versions: 1\n# default: 2\n"])
def test_a_template_with_an_incomplete_head_is_named(tmp_path, head):
    (tmp_path / "x.Dockerfile").write_text(f"{head}FROM scratch\n")

    with pytest.raises(ValueError, match=r"x\.Dockerfile"):
        load_runtimes(tmp_path)
