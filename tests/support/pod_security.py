"""Judges templates of pods by the Pod Security Standard `restricted`, as its page has it.

Used by tests of manifests. The API server has the last word on it; this one needs none.
"""

from collections.abc import Iterator
from typing import Any

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim"),
    *("projected", "secret"),
}


def violations(template: dict[str, Any]) -> list[str]:
    """Return what `restricted` would refuse a pod for."""
    spec = template["spec"]
    return [
        *_pod(spec),
        *(
            f"{container['name']}: {problem}"
            for kind in ("initContainers", "containers", "ephemeralContainers")
            for container in spec.get(kind, [])
            for problem in _container(container, spec.get("securityContext", {}))
        ),
    ]


def _pod(spec: dict[str, Any]) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield field
    context = spec.get("securityContext", {})
    if context.get("sysctls"):
        yield "sysctls"
    yield from _user(context)
    for volume in spec.get("volumes", []):
        if (kinds := volume.keys() - {"name"}) - _VOLUMES or len(kinds) != 1:
            yield f"volume {volume['name']}"


def _container(container: dict[str, Any], pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    yield from _user(own)
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []):
        yield "capabilities are not dropped"
    if set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities are added"
    if own.get("privileged") or own.get("procMount", "Default") != "Default":
        yield "privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation"
    if own.get("runAsNonRoot", pod.get("runAsNonRoot")) is not True:
        yield "runAsNonRoot"
    profile = own.get("seccompProfile", pod.get("seccompProfile", {})).get("type")
    if profile not in {"RuntimeDefault", "Localhost"}:
        yield "seccompProfile"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"


def _user(context: dict[str, Any]) -> Iterator[str]:
    if context.get("runAsUser") == 0:
        yield "runAsUser"
    if context.get("runAsNonRoot") is False:
        yield "runAsNonRoot"
    if context.get("seLinuxOptions") or context.get("windowsOptions"):
        yield "options of other systems"
