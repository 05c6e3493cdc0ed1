"""The deploy files as a cluster meets them: what no schema says, and what shows only when a pod is to start."""

import re
from collections import Counter
from collections.abc import Iterator

import pytest
from django.conf import settings

from kanikojobs.manifest import job_manifest
from kanikojobs.manifest.builds import Build
from kanikojobs.manifest.settings import build_options
from tests.deployment import OVERLAYS, Object, config, containers, of_kind, only, pod_templates, render, told

every_overlay = pytest.mark.parametrize("overlay", OVERLAYS)

# Kubernetes documentation, "Labels and Selectors" and "Object Names and IDs".
LABEL_VALUE = re.compile(r"(?=.{0,63}$)([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
LABEL_KEY = re.compile(r"(?=[^/]{1,253}/|[^/]+$)([a-z0-9.-]+/)?(?=.{1,63}$)[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
PORT_NAME = re.compile(r"(?=.*[a-z])(?!.*--)[a-z0-9]([a-z0-9-]{0,13}[a-z0-9])?")
QUANTITY = {"m": 0.001, "": 1.0, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * QUANTITY[unit]


def label_sets(obj: Object) -> Iterator[dict[str, str]]:
    yield obj["metadata"].get("labels", {})
    template = obj.get("spec", {}).get("template", {})
    if isinstance(template, dict):
        yield template.get("metadata", {}).get("labels", {})


@every_overlay
def test_every_label_is_one(overlay: str) -> None:
    for obj in render(overlay):
        for labels in label_sets(obj):
            for key, value in labels.items():
                assert LABEL_KEY.fullmatch(key), (told(obj), key)
                assert LABEL_VALUE.fullmatch(value), (told(obj), value)


@every_overlay
def test_nothing_is_named_twice_in_a_pod(overlay: str) -> None:
    for obj, template in pod_templates(overlay):
        pod = template["spec"]
        named = [
            [container["name"] for container in containers(pod)],
            [volume["name"] for volume in pod.get("volumes", [])],
            *([variable["name"] for variable in container.get("env", [])] for container in containers(pod)),
            *([mount["mountPath"] for mount in container.get("volumeMounts", [])] for container in containers(pod)),
        ]
        for names in named:
            assert [name for name, times in Counter(names).items() if times > 1] == [], told(obj)


@every_overlay
def test_what_is_set_for_one_process_is_not_overruled_by_what_is_set_for_all(overlay: str) -> None:
    shared = config(overlay, "kanikojobs-environment").keys()
    for obj, template in pod_templates(overlay):
        for container in containers(template["spec"]):
            own = {variable["name"] for variable in container["env"]}
            assert not shared & (own | {name.removesuffix("_FILE") for name in own}), told(obj)


@every_overlay
def test_every_name_of_a_port_is_one(overlay: str) -> None:
    names = [
        port["name"]
        for obj in render(overlay)
        for pod in [obj.get("spec", {}).get("template", {})]
        if isinstance(pod, dict)
        for container in pod.get("spec", {}).get("containers", [])
        for port in container.get("ports", [])
        if "name" in port
    ]
    names += [
        port["name"] for service in of_kind(overlay, "Service").values() for port in service["spec"].get("ports", [])
    ]

    assert names
    assert [name for name in names if not PORT_NAME.fullmatch(name)] == []


# What each process talks to, besides DNS: Postgres, RabbitMQ, the API server.
TALKS_TO = {
    "web": {5432, 5672, 443, 6443},
    "consumer": {5432, 5672},
    "worker": {5432, 443, 6443},
    "watcher": {5432, 443, 6443},
    "migrate": {5432},
}


def selects(selector: Object, labels: dict[str, str]) -> bool:
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(wanted["key"]) in wanted["values"] for wanted in selector.get("matchExpressions", [])
    )


@every_overlay
def test_every_process_may_reach_what_it_needs_and_nothing_more(overlay: str) -> None:
    policies = [policy for policy in render(overlay) if policy["kind"] == "NetworkPolicy"]
    reached: dict[str, set[int]] = {}
    for obj, template in pod_templates(overlay):
        labels = template["metadata"]["labels"]
        reached[labels["app.kubernetes.io/component"]] = {
            port["port"]
            for policy in policies
            if policy["metadata"]["namespace"] == obj["metadata"]["namespace"]
            and selects(policy["spec"]["podSelector"], labels)
            for rule in policy["spec"].get("egress", [])
            for port in rule["ports"]
        }

    assert reached == {component: ports | {53} for component, ports in TALKS_TO.items()}


def a_build() -> Object:
    """The pod of a build as the settings' defaults make it."""
    build = Build(
        source="s",
        event_id="e",
        number=1,
        third_party_id="t",
        parser_id="p",
        job_name="j",
        source_url=f"https://{settings.KANIKOJOBS_ALLOWED_HOSTS[0]}/notifi/parsers/p",
    )
    return dict(job_manifest(build=build, options=build_options())["spec"]["template"]["spec"])


@every_overlay
def test_a_build_names_all_that_the_quota_counts_and_fits_the_limits_of_a_container(overlay: str) -> None:
    hard = only(overlay, "ResourceQuota")["spec"]["hard"]
    (limits,) = only(overlay, "LimitRange")["spec"]["limits"]
    counted = [name.split(".", 1) for name in hard if "." in name]

    assert {"cpu", "memory", "ephemeral-storage"} == {resource for _, resource in counted}
    for container in containers(a_build()):
        for kind, resource in counted:
            assert resource in container["resources"][kind], (container["name"], kind, resource)
        for resource, most in limits["max"].items():
            assert amount(container["resources"]["limits"][resource]) <= amount(most), resource


@every_overlay
def test_the_quota_has_room_for_all_the_builds_that_are_let_in_at_once(overlay: str) -> None:
    hard = only(overlay, "ResourceQuota")["spec"]["hard"]
    pod = a_build()

    def needed(kind: str, resource: str) -> float:
        # The init container ends before the other starts, so a pod needs the larger of the two.
        return max(amount(container["resources"][kind][resource]) for container in containers(pod))

    room = {name: amount(most) / needed(*name.split(".", 1)) for name, most in hard.items() if "." in name}

    assert amount(hard["pods"]) >= min(room.values())
    environment = config(overlay, "kanikojobs-environment")
    at_once, of_one = (int(environment[f"KANIKOJOBS_MAX_ACTIVE_JOBS{suffix}"]) for suffix in ("", "_PER_THIRD_PARTY"))
    assert 0 < of_one < at_once <= min(room.values()), room


@every_overlay
def test_the_autoscaler_wants_no_more_pods_at_once_than_it_may_have(overlay: str) -> None:
    spec = only(overlay, "ScaledObject")["spec"]

    # The one rule that its definition holds beyond the schema (x-kubernetes-validations).
    assert spec["minReplicaCount"] <= spec["maxReplicaCount"]
    assert spec["fallback"]["replicas"] <= spec["maxReplicaCount"]
    deployment = of_kind(overlay, "Deployment")[spec["scaleTargetRef"]["name"]]
    assert "replicas" not in deployment["spec"]
