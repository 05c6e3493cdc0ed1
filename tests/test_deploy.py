"""The deploy files: every overlay renders, the API server would take it, and all that is referenced is there."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml
from django.http.request import validate_host
from django.urls import resolve

from kanikojobs import sink
from project.document_settings import variables
from tests.deployment import (
    CHECKOUT,
    KUBERNETES,
    OVERLAYS,
    Object,
    config,
    containers,
    custom_schemas,
    of_kind,
    only,
    pod_templates,
    render,
    told,
)

DOCKERFILE = (CHECKOUT / "deploy" / "Dockerfile").read_text()
README = (CHECKOUT / "deploy" / "README.md").read_text()
CRDS = os.environ.get("KANIKOJOBS_CRDS", "")
CUSTOM = re.compile(r".*\.(rabbitmq\.com|knative\.dev|keda\.sh|coreos\.com)/.*|(rabbitmq\.com|keda\.sh)/.*")

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)


def is_custom(obj: Object) -> bool:
    return CUSTOM.fullmatch(obj["apiVersion"]) is not None


# --- What the API server would say ----------------------------------------------------------------------------------


@every_overlay
def test_every_built_in_object_meets_the_schema_of_kubernetes(overlay: str) -> None:
    built_in = [obj for obj in render(overlay) if not is_custom(obj)]

    assert {"Deployment", "Job", "NetworkPolicy", "Role", "PodDisruptionBudget"} <= {obj["kind"] for obj in built_in}
    for obj in built_in:
        kubernetes_validate.validate(obj, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.skipif(not CRDS, reason="KANIKOJOBS_CRDS does not name a folder of CustomResourceDefinitions")
@every_overlay
def test_every_custom_object_meets_its_published_definition(overlay: str) -> None:
    schemas = custom_schemas(Path(CRDS))
    custom = [obj for obj in render(overlay) if is_custom(obj)]

    assert {"Queue", "Service", "PrometheusRule", "ScaledObject"} <= {obj["kind"] for obj in custom}
    for obj in custom:
        scope, schema = schemas[obj["apiVersion"], obj["kind"]]
        faults = [
            f"{fault.json_path}: {fault.message}" for fault in jsonschema.Draft7Validator(schema).iter_errors(obj)
        ]
        assert not faults, f"{told(obj)}: {faults}"
        assert ("namespace" in obj["metadata"]) == (scope == "Namespaced"), told(obj)


@every_overlay
def test_every_object_has_a_namespace_that_is_made_before_it(overlay: str) -> None:
    made: set[str] = set()
    for obj in render(overlay):
        if obj["kind"] == "Namespace":
            made.add(obj["metadata"]["name"])
        else:
            assert obj["metadata"]["namespace"] in made, told(obj)


@every_overlay
def test_no_object_is_there_twice(overlay: str) -> None:
    objects = [(obj["apiVersion"].partition("/")[0], told(obj)) for obj in render(overlay)]

    assert sorted(objects) == sorted(set(objects))


def test_two_overlays_of_one_cluster_share_no_namespace() -> None:
    assert not of_kind("dev", "Namespace").keys() & of_kind("prod", "Namespace").keys()


def test_production_names_nothing_of_development() -> None:
    for obj in render("prod"):
        text = yaml.safe_dump(obj)
        assert not re.search(r"\b(rabbitmq|knative-lambda|builder)-dev\b", text), told(obj)


@every_overlay
def test_the_queue_has_one_kind_of_reader(overlay: str) -> None:
    source = bool(of_kind(overlay, "RabbitmqSource"))
    consumer = of_kind(overlay, "Deployment")["kanikojobs-consumer"]["spec"]["template"]["spec"]["containers"][0]

    assert ("--dead-letters-only" in consumer["args"]) == source
    assert environment_of(overlay).get("KANIKOJOBS_QUEUE_READER", "consumer") == ("knative" if source else "consumer")


# --- References -----------------------------------------------------------------------------------------------------


def required_secrets() -> dict[str, set[str]]:
    """The secrets that deploy/README.md says must exist: `place/name` -> keys."""
    row = r"^\| (rabbitmq|builder|builds) \| `([a-z-]+)` \| ((?:`[a-z.-]+`(?:, )?)+) \|"
    rows = re.findall(row, README, re.MULTILINE)
    return {f"{place}/{name}": set(re.findall(r"`([^`]+)`", keys)) for place, name, keys in rows}


def place_of(overlay: str, obj: Object) -> str:
    """The place (rabbitmq, builder, builds) of an object's namespace, whatever an overlay calls it."""
    namespace = of_kind(overlay, "Namespace")[obj["metadata"]["namespace"]]
    return str(namespace["metadata"]["labels"]["kanikojobs.notifi.network/place"])


def secret_references(obj: Object) -> Iterator[tuple[str, set[str]]]:
    """Names and keys of the secrets that an object refers to."""
    spec = obj["spec"]
    if "containers" in spec.get("template", {}).get("spec", {}):
        pod = spec["template"]["spec"]
        for volume in pod.get("volumes", []):
            if secret := volume.get("secret"):
                yield secret["secretName"], {item["key"] for item in secret["items"]}
        for container in containers(pod):
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    yield reference["name"], {reference["key"]}
    if obj["kind"] == "User":
        yield spec["importCredentialsSecret"]["name"], {"username", "password"}
    if obj["kind"] == "RabbitmqSource":
        yield spec["rabbitmqClusterReference"]["connectionSecret"]["name"], {"uri", "username", "password"}
    if obj["kind"] == "ServiceMonitor":
        for endpoint in spec["endpoints"]:
            credentials = endpoint["authorization"]["credentials"]
            yield credentials["name"], {credentials["key"]}


@every_overlay
def test_every_secret_that_is_referred_to_is_documented_and_none_is_here(overlay: str) -> None:
    documented = required_secrets()
    used: dict[str, set[str]] = {}
    for obj in render(overlay):
        if obj["kind"] in ("Deployment", "Job", "Service", "User", "RabbitmqSource", "ServiceMonitor"):
            for name, keys in secret_references(obj):
                used.setdefault(f"{place_of(overlay, obj)}/{name}", set()).update(keys)
    registry = environment_of(overlay)["KANIKOJOBS_REGISTRY_SECRET"]
    used[f"builds/{registry}"] = {".dockerconfigjson"}

    assert not of_kind(overlay, "Secret")
    assert used.keys() == documented.keys()
    for secret, keys in used.items():
        assert keys <= documented[secret], secret


@every_overlay
def test_every_config_map_and_key_that_is_mounted_is_there(overlay: str) -> None:
    maps = of_kind(overlay, "ConfigMap")
    for obj, template in pod_templates(overlay):
        pod = template["spec"]
        mounted = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in containers(pod):
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, told(obj)
            for mount in container.get("volumeMounts", []):
                volume = mounted[mount["name"]]
                if "configMap" in volume:
                    assert mount["subPath"] in maps[volume["configMap"]["name"]]["data"], told(obj)


@every_overlay
def test_every_file_that_the_environment_names_is_mounted(overlay: str) -> None:
    for obj, template in pod_templates(overlay):
        pod = template["spec"]
        for container in containers(pod):
            files = mounted_files(pod, container)
            variables = {variable["name"]: variable["value"] for variable in container["env"]}
            named = {value for name, value in variables.items() if name.endswith("_FILE")}
            assert named, told(obj)
            assert named | {environment_of(overlay)["KANIKOJOBS_SETTINGS_FILE"]} <= files, told(obj)


def mounted_files(pod: Object, container: Object) -> set[str]:
    files: set[str] = set()
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        if "subPath" in mount:
            files.add(mount["mountPath"])
        for item in volumes[mount["name"]].get("secret", {}).get("items", []):
            files.add(f"{mount['mountPath']}/{item['path']}")
    return files


def environment_of(overlay: str) -> dict[str, str]:
    """What the overlay's ConfigMap sets in every container."""
    return config(overlay, "kanikojobs-environment")


@every_overlay
def test_every_selector_finds_a_pod_and_every_port_is_listened_on(overlay: str) -> None:
    pods = [
        (obj["metadata"]["namespace"], template["metadata"]["labels"], template["spec"])
        for obj, template in pod_templates(overlay)
    ]
    for obj in render(overlay):
        if obj["kind"] in ("Service", "PodDisruptionBudget", "Deployment") and not is_custom(obj):
            selector = obj["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            found = [
                pod
                for namespace, labels, pod in pods
                if namespace == obj["metadata"]["namespace"] and wanted.items() <= labels.items()
            ]
            assert len(found) == 1, told(obj)
            if obj["kind"] == "Service":
                listened = {port["containerPort"] for port in found[0]["containers"][0]["ports"]}
                assert {port["targetPort"] for port in obj["spec"]["ports"]} <= listened, told(obj)


@every_overlay
def test_every_pod_belongs_to_a_disruption_budget_unless_it_ends_by_itself(overlay: str) -> None:
    budgets = [budget["spec"]["selector"]["matchLabels"] for budget in of_kind(overlay, "PodDisruptionBudget").values()]
    for obj, template in pod_templates(overlay):
        labels = template["metadata"]["labels"]
        assert obj["kind"] == "Job" or any(budget.items() <= labels.items() for budget in budgets), told(obj)


@every_overlay
def test_every_service_account_is_there(overlay: str) -> None:
    accounts = {(a["metadata"]["namespace"], name) for name, a in of_kind(overlay, "ServiceAccount").items()}
    for obj, template in pod_templates(overlay):
        assert (obj["metadata"]["namespace"], template["spec"]["serviceAccountName"]) in accounts, told(obj)
    for binding in of_kind(overlay, "RoleBinding").values():
        assert binding["roleRef"]["name"] in of_kind(overlay, "Role")
        for subject in binding["subjects"]:
            assert (subject["namespace"], subject["name"]) in accounts, told(binding)
    environment = environment_of(overlay)
    assert (environment["KANIKOJOBS_NAMESPACE"], environment["KANIKOJOBS_SERVICE_ACCOUNT"]) in accounts


@every_overlay
def test_what_is_scaled_and_scraped_is_there(overlay: str) -> None:
    scaled = only(overlay, "ScaledObject")
    monitor = only(overlay, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    scraped = [s for s in of_kind(overlay, "Service").values() if wanted <= s["metadata"]["labels"].items()]

    assert scaled["spec"]["scaleTargetRef"]["name"] in of_kind(overlay, "Deployment")
    assert scaled["metadata"]["namespace"] == monitor["metadata"]["namespace"] == scraped[0]["metadata"]["namespace"]
    assert f'namespace="{scaled["metadata"]["namespace"]}"' in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert len(scraped) == 1
    assert monitor["spec"]["endpoints"][0]["port"] in {port["name"] for port in scraped[0]["spec"]["ports"]}


@every_overlay
def test_each_consumer_is_scraped_and_probed_at_its_own_port(overlay: str) -> None:
    monitor = of_kind(overlay, "PodMonitor")["kanikojobs-consumer"]
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    (pod,) = (t["spec"] for _, t in pod_templates(overlay) if wanted <= t["metadata"]["labels"].items())
    (container,) = pod["containers"]
    (port,) = container["ports"]

    assert endpoint["port"] == container["livenessProbe"]["httpGet"]["port"] == port["name"]
    assert f"--metrics-port={port['containerPort']}" in container["args"]


@every_overlay
def test_every_long_running_process_has_a_liveness_probe(overlay: str) -> None:
    for obj, template in pod_templates(overlay):
        if obj["kind"] != "Job":
            (container,) = template["spec"]["containers"]
            assert container["livenessProbe"], told(obj)


@every_overlay
def test_knative_delivers_to_what_is_there(overlay: str) -> None:
    services = of_kind(overlay, "Service.serving.knative.dev")
    for trigger in of_kind(overlay, "Trigger").values():
        broker = of_kind(overlay, "Broker")[trigger["spec"]["broker"]]
        config = of_kind(overlay, "RabbitmqBrokerConfig")[broker["spec"]["config"]["name"]]
        cluster = only(overlay, "RabbitmqCluster")
        reference = config["spec"]["rabbitmqClusterReference"]

        assert trigger["spec"]["subscriber"]["ref"]["name"] in services
        assert trigger["spec"]["delivery"]["deadLetterSink"]["ref"]["name"] in services
        # Both keep what they refuse, which a broker counts as delivered.
        assert resolve(trigger["spec"]["subscriber"]["uri"]).func is sink.receive_from_broker
        assert resolve(trigger["spec"]["delivery"]["deadLetterSink"]["uri"]).func is sink.receive_undelivered
        assert (reference["name"], reference["namespace"]) == (
            cluster["metadata"]["name"],
            cluster["metadata"]["namespace"],
        )
        assert broker["metadata"]["namespace"] == topology_allowed_for(overlay)
    for source in of_kind(overlay, "RabbitmqSource").values():
        assert source["spec"]["sink"]["ref"]["name"] in of_kind(overlay, "Broker")
        assert source["spec"]["rabbitmqResourcesConfig"]["queueName"] in of_kind(overlay, "Queue")


def topology_allowed_for(overlay: str) -> str:
    return str(only(overlay, "RabbitmqCluster")["metadata"]["annotations"]["rabbitmq.com/topology-allowed-namespaces"])


@every_overlay
def test_the_builder_is_allowed_to_reach_rabbitmq(overlay: str) -> None:
    (builder,) = (name for name, obj in of_kind(overlay, "Namespace").items() if place_label(obj) == "builder")

    assert topology_allowed_for(overlay) == builder


def place_label(namespace: Object) -> str:
    return str(namespace["metadata"]["labels"]["kanikojobs.notifi.network/place"])


@every_overlay
def test_the_web_process_answers_to_every_name_that_it_is_called_by(overlay: str) -> None:
    allowed = environment_of(overlay)["DJANGO_ALLOWED_HOSTS"].split(",")
    (service,) = of_kind(overlay, "Service.serving.knative.dev").values()
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    # The document's URL, the probes, Knative's own probe of a pod, and Prometheus.
    called = [
        f"{name}.{namespace}.svc.cluster.local",
        f"{name}.{namespace}",
        "localhost",
        "127.0.0.1",
        f"kanikojobs-metrics.{namespace}.svc",
    ]

    assert [host for host in called if not validate_host(host, allowed)] == []


# --- Security -------------------------------------------------------------------------------------------------------


@every_overlay
def test_every_pod_of_ours_meets_the_restricted_standard_with_a_read_only_root(overlay: str) -> None:
    templates = list(pod_templates(overlay))

    assert len(templates) >= 4
    for obj, template in templates:
        pod = template["spec"]
        shared = pod.get("securityContext", {})
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), told(obj)
        for container in containers(pod):
            context = shared | container["securityContext"]
            assert context["runAsNonRoot"] is True, told(obj)
            assert context["runAsUser"] == 10001, told(obj)
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, told(obj)
            assert context["allowPrivilegeEscalation"] is False, told(obj)
            assert context["readOnlyRootFilesystem"] is True, told(obj)
            assert context["capabilities"] == {"drop": ["ALL"]}, told(obj)
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys(), told(obj)
            assert "memory" in container["resources"]["limits"], told(obj)
        for volume in pod["volumes"]:
            assert volume.keys() - {"name"} <= {"configMap", "secret", "emptyDir"}, told(obj)


@pytest.mark.parametrize(
    ("overlay", "place", "level"),
    [
        ("dev", "rabbitmq", "restricted"),
        # The pods that Knative makes beside ours set no seccomp profile.
        ("dev", "builder", "baseline"),
        ("dev", "builds", "baseline"),
        ("prod", "rabbitmq", "restricted"),
        ("prod", "builder", "restricted"),
        ("prod", "builds", "baseline"),
    ],
)
def test_the_namespaces_enforce_pod_security(overlay: str, place: str, level: str) -> None:
    (namespace,) = (obj for obj in of_kind(overlay, "Namespace").values() if place_label(obj) == place)

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == level


@every_overlay
def test_every_namespace_lets_nothing_in_or_out_that_is_not_named(overlay: str) -> None:
    for namespace in of_kind(overlay, "Namespace"):
        denied = [
            obj["spec"]
            for obj in render(overlay)
            if obj["kind"] == "NetworkPolicy"
            and obj["metadata"]["namespace"] == namespace
            and obj["metadata"]["name"] == "default-deny"
        ]
        assert denied == [{"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}]


@every_overlay
def test_builds_reach_no_private_address(overlay: str) -> None:
    policies = [p for p in render(overlay) if p["kind"] == "NetworkPolicy" and place_of(overlay, p) == "builds"]
    blocks = [
        to["ipBlock"] for p in policies for rule in p["spec"].get("egress", []) for to in rule["to"] if "ipBlock" in to
    ]

    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    cut_out = {address for block in blocks for address in block["except"]}
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fc00::/7", "fe80::/10"} <= cut_out


# --- The image ------------------------------------------------------------------------------------------------------


def copied() -> list[str]:
    """What the image takes from the checkout."""
    lines = re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()]


def test_the_image_is_made_of_what_is_there_and_not_ignored() -> None:
    ignored = (CHECKOUT / ".dockerignore").read_text().splitlines()

    assert copied()
    for source in copied():
        assert (CHECKOUT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_the_application_starts_from_the_images_files_alone(tmp_path: Path) -> None:
    for source in copied():
        target = tmp_path / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (CHECKOUT / source).is_dir():
            shutil.copytree(CHECKOUT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(CHECKOUT / source, target)
    environment = {
        "PATH": os.environ["PATH"],
        "DJANGO_SECRET_KEY": "only-for-collectstatic",
        "DJANGO_ALLOWED_HOSTS": "localhost",
        "DATABASE_URL": "postgres://localhost/none",
        "PYTHONDONTWRITEBYTECODE": "1",
    }

    for command in (["collectstatic", "--no-input", "--verbosity=0"], ["check"]):
        done = subprocess.run(
            [sys.executable, "manage.py", *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "staticfiles" / "admin").is_dir()


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"

    done = subprocess.run([hadolint, "--no-color", "deploy/Dockerfile"], cwd=CHECKOUT, capture_output=True, text=True)

    assert done.stdout + done.stderr == ""


def last_stage() -> list[tuple[str, str]]:
    """The instructions of the image itself, with their arguments: the stages before it are thrown away."""
    joined = re.sub(r"\\\n(?:\s*#[^\n]*\n)*\s*", "", re.sub(r"^#[^\n]*\n", "", DOCKERFILE, flags=re.MULTILINE))
    stage = joined[joined.rindex("FROM ") :]
    found = [(line.partition(" ")[0], line.partition(" ")[2]) for line in stage.splitlines() if line.strip()]
    assert {instruction for instruction, _ in found} <= {
        "FROM",
        "RUN",
        "COPY",
        "WORKDIR",
        "ENV",
        "USER",
        "EXPOSE",
        "CMD",
    }
    return found


def test_the_image_has_no_tools_to_build_with_and_no_secret() -> None:
    runs = [arguments for instruction, arguments in last_stage() if instruction == "RUN"]
    copies = [arguments for instruction, arguments in last_stage() if instruction == "COPY"]

    assert any(re.search(r"pip uninstall .*\bsetuptools wheel pip\b", arguments) for arguments in runs)
    for arguments in runs:
        assert not re.search(r"\b(apt|apt-get|apk|curl|wget|git|gcc|make|pip3? install)\b", arguments), arguments
    # Nothing of the checkout, and of the stages before it only what they have made.
    assert copies == ["--from=application /opt/kanikojobs /opt/kanikojobs"]
    for _, arguments in last_stage():
        assert not re.search(r"SECRET|PASSWORD|TOKEN|_KEY", arguments), arguments


def test_the_image_does_nothing_as_root_that_stays_and_starts_without_a_shell() -> None:
    instructions = [instruction for instruction, _ in last_stage()]
    command = json.loads(dict(last_stage())["CMD"])

    assert max(n for n, what in enumerate(instructions) if what in ("RUN", "COPY")) < instructions.index("USER")
    assert command[0] == "gunicorn"
    assert "--bind=0.0.0.0:8000" in command


def test_without_a_builder_make_says_what_is_missing(tmp_path: Path) -> None:
    make = shutil.which("make")
    assert make is not None

    done = subprocess.run([make, "image"], cwd=CHECKOUT, env={"PATH": str(tmp_path)}, capture_output=True, text=True)

    assert "make image needs docker or podman." in done.stderr
    assert done.returncode == 2


def test_the_image_runs_as_the_user_and_on_the_port_that_the_pods_say() -> None:
    (web,) = of_kind("prod", "Service.serving.knative.dev").values()
    container = web["spec"]["template"]["spec"]["containers"][0]

    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert container["securityContext"]["runAsUser"] == 10001
    assert re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE) == [str(container["ports"][0]["containerPort"])]
    assert f"--bind=0.0.0.0:{container['ports'][0]['containerPort']}" in DOCKERFILE


def test_every_image_has_a_fixed_version() -> None:
    compose = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())
    images = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    images += [compose["services"][name]["image"] for name in ("postgres", "rabbitmq")]
    images += [c["image"] for overlay in OVERLAYS for _, t in pod_templates(overlay) for c in containers(t["spec"])]

    assert len(images) >= 3
    for image in images:
        assert re.search(r":\d+\.\d+(\.\d+)?(-[a-z]+)*$", image), image


def test_a_long_running_command_is_the_same_in_every_file() -> None:
    compose = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]
    deployed = {
        template["metadata"]["labels"]["app.kubernetes.io/component"]: template["spec"]["containers"][0].get("args")
        for _, template in pod_templates("prod")
    }
    subcommands = {role: compose[role].get("command", [None] * 3)[2] for role in (*deployed,)}

    assert subcommands == {role: args[2] if args else None for role, args in deployed.items()}


def test_every_service_of_the_laptop_tells_its_health() -> None:
    compose = yaml.safe_load((CHECKOUT / "deploy" / "compose.yaml").read_text())["services"]

    assert compose.keys() == {"postgres", "rabbitmq", "migrate", "web", "consumer", "worker", "watcher"}
    assert [name for name, service in compose.items() if "test" not in service["healthcheck"]] == ["migrate"]


# --- Alerts ---------------------------------------------------------------------------------------------------------


def alerts() -> list[Object]:
    groups = only("prod", "PrometheusRule")["spec"]["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def anchors(markdown: str) -> set[str]:
    """The anchors that a forge gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_alert_has_patience_a_severity_and_a_runbook_that_is_there() -> None:
    for alert in alerts():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert re.fullmatch(r"\d+[mh]", alert["for"]), alert["alert"]
        assert alert["labels"]["severity"] in ("critical", "warning"), alert["alert"]
        assert anchor in anchors((CHECKOUT / page).read_text()), alert["alert"]


# --- Settings -------------------------------------------------------------------------------------------------------


@every_overlay
def test_the_deployed_settings_are_read_without_a_fault(overlay: str) -> None:
    document: Any = yaml.safe_load(config(overlay, "kanikojobs-settings")["settings.yaml"])

    found, faults = variables(document)

    assert faults == []
    assert len(found) == 8
    assert document["rabbitmq"]["namespace"] == only(overlay, "RabbitmqCluster")["metadata"]["namespace"]
    assert document["rabbitmq"]["clusterName"] == only(overlay, "RabbitmqCluster")["metadata"]["name"]
    assert f"builder/{document['rabbitmq']['connectionSecretName']}" in required_secrets()


@every_overlay
def test_every_variable_that_is_set_is_read_by_something(overlay: str) -> None:
    settings = (CHECKOUT / "project" / "settings.py").read_text()
    # The one is read before the settings are, the other by the probes and the processes that they probe.
    read = {*re.findall(r'"([A-Z_]+)"', settings), "KANIKOJOBS_SETTINGS_FILE", "KANIKOJOBS_LIVENESS_FILE"}

    assert environment_of(overlay).keys() <= read


def test_phase_three_refuses_direct_events_and_phase_two_takes_them() -> None:
    assert environment_of("prod")["KANIKOJOBS_DIRECT_EVENTS"] == "reject"
    assert not of_kind("prod", "Trigger")
    assert environment_of("dev")["KANIKOJOBS_DIRECT_EVENTS"] == "accept"
    assert of_kind("dev", "Trigger")


def test_every_folder_of_the_deploy_files_is_used() -> None:
    used = {
        (path.parent / folder).resolve()
        for path in KUBERNETES.rglob("kustomization.yaml")
        for key in ("resources", "components")
        for folder in yaml.safe_load(path.read_text()).get(key, [])
    }
    for path in KUBERNETES.rglob("kustomization.yaml"):
        assert path.parent in used or path.parent.name in OVERLAYS, path
