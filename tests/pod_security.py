"""The Pod Security Standards as Kubernetes 1.36 checks them: which controls of a profile a pod's spec breaks.

Written from kubernetes.io/docs/concepts/security/pod-security-standards, control by control under their names there;
those about Windows and about AppArmor's old annotations aside.
"""

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

_BASELINE_CAPABILITIES = {
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
    "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
}  # fmt: skip
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SAFE_SYSCTLS = {
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
}  # fmt: skip
_RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
_PROFILES = {"RuntimeDefault", "Localhost"}


def containers_of(pod: Json) -> list[Json]:
    return [*pod.get("initContainers", []), *pod["containers"], *pod.get("ephemeralContainers", [])]


def broken_by_baseline(pod: Json) -> set[str]:
    """The controls of "baseline" that the pod breaks."""
    return set(_baseline(pod))


def broken_by_restricted(pod: Json) -> set[str]:
    """The controls of "restricted" that the pod breaks, those of "baseline" included."""
    return {*_baseline(pod), *_restricted(pod)}


def _baseline(pod: Json) -> Iterator[str]:
    if any(pod.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "Host Namespaces"
    if any("hostPath" in volume for volume in pod.get("volumes", [])):
        yield "HostPath Volumes"
    sysctls = pod.get("securityContext", {}).get("sysctls", [])
    if {sysctl["name"] for sysctl in sysctls} - _SAFE_SYSCTLS:
        yield "Sysctls"
    for container in containers_of(pod):
        context = container.get("securityContext", {})
        if context.get("privileged"):
            yield "Privileged Containers"
        if set(context.get("capabilities", {}).get("add", [])) - _BASELINE_CAPABILITIES:
            yield "Capabilities"
        if any(port.get("hostPort") for port in container.get("ports", [])):
            yield "Host Ports"
        if context.get("procMount", "Default") != "Default":
            yield "/proc Mount Type"
        hooks = [container.get(name, {}) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
        hooks += container.get("lifecycle", {}).values()
        if any(hook.get(kind, {}).get("host") for hook in hooks for kind in ("httpGet", "tcpSocket")):
            yield "Host Probes / Lifecycle Hooks"
    for context in _contexts(pod):
        selinux = context.get("seLinuxOptions", {})
        if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
            yield "SELinux"
        if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
            yield "AppArmor"
        if context.get("seccompProfile", {}).get("type", "RuntimeDefault") not in _PROFILES:
            yield "Seccomp"


def _restricted(pod: Json) -> Iterator[str]:
    if any(volume.keys() - {"name"} - _RESTRICTED_VOLUMES for volume in pod.get("volumes", [])):
        yield "Volume Types"
    of_pod = pod.get("securityContext", {})
    for container in containers_of(pod):
        context = of_pod | container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            yield "Privilege Escalation"
        if context.get("runAsNonRoot") is not True:
            yield "Running as Non-root"
        if context.get("runAsUser") == 0:
            yield "Running as Non-root user"
        if context.get("seccompProfile", {}).get("type") not in _PROFILES:
            yield "Seccomp"
        capabilities = context.get("capabilities", {})
        if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
            yield "Capabilities"


def _contexts(pod: Json) -> Iterator[Json]:
    yield pod.get("securityContext", {})
    for container in containers_of(pod):
        yield container.get("securityContext", {})
