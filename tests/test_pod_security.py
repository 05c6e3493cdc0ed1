"""A build's pod against the Pod Security Standards: within "baseline", and as near to "restricted" as kaniko can be."""

from typing import Any

import pytest

from kanikojobs.manifest import job_manifest
from tests.pod_security import broken_by_baseline, broken_by_restricted
from tests.sample_builds import EVERYTHING, OPTIONS, SAMPLE, pod_of

PLAIN: dict[str, Any] = {
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, "runAsNonRoot": True},
    "containers": [
        {"name": "x", "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}}
    ],
}
OPTIONS_OF_A_POD = pytest.mark.parametrize("options", [OPTIONS, EVERYTHING], ids=["plain", "every option"])


@OPTIONS_OF_A_POD
def test_a_builds_pod_is_within_baseline(options):
    pod = pod_of(job_manifest(build=SAMPLE, options=options))

    assert broken_by_baseline(pod) == set()


@OPTIONS_OF_A_POD
def test_kaniko_alone_breaks_restricted_and_only_where_it_must(options):
    pod = pod_of(job_manifest(build=SAMPLE, options=options))

    assert broken_by_restricted(pod) == {"Running as Non-root", "Running as Non-root user", "Capabilities"}
    assert broken_by_restricted(pod | {"containers": []}) == set()


def test_what_breaks_nothing_is_found_to_break_nothing():
    assert broken_by_restricted(PLAIN) == set()


@pytest.mark.parametrize(
    ("control", "of_pod", "of_container"),
    [
        ("Host Namespaces", {"hostPID": True}, {}),
        ("HostPath Volumes", {"volumes": [{"name": "x", "hostPath": {"path": "/"}}]}, {}),
        ("Sysctls", {"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, {}),
        ("Privileged Containers", {}, {"securityContext": {"privileged": True}}),
        ("Capabilities", {}, {"securityContext": {"capabilities": {"add": ["NET_RAW"]}}}),
        ("Host Ports", {}, {"ports": [{"containerPort": 80, "hostPort": 80}]}),
        ("/proc Mount Type", {}, {"securityContext": {"procMount": "Unmasked"}}),
        ("Host Probes / Lifecycle Hooks", {}, {"livenessProbe": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}),
        ("SELinux", {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, {}),
        ("AppArmor", {}, {"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
        ("Seccomp", {}, {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
    ],
)
def test_a_pod_that_breaks_a_control_is_found_out(control, of_pod, of_container):
    pod = PLAIN | of_pod | {"containers": [PLAIN["containers"][0] | of_container]}

    assert broken_by_baseline(pod) == {control}
