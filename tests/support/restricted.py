"""A pure checker of Pod Security *restricted*, and of our own stricter rules for pods.

Written from the published standard, independently of the code that makes pods.
"""

from typing import Any

SAFE_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def violations(
    pod: dict[str, Any], *, capabilities: frozenset[str] = frozenset(), speaks_to_the_api: bool = False
) -> list[str]:
    """What the restricted level (with `capabilities` allowed on top), or our own rules, forbid in `pod`.

    `speaks_to_the_api`: it is the operator, the one pod that may have an account and its token.
    """
    spec = pod["spec"]
    found = [key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]
    if not speaks_to_the_api:
        found += ["serviceAccountName"] if spec.get("serviceAccountName") else []
        found += ["mounts a service account token"] if spec.get("automountServiceAccountToken") is not False else []
    security = spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        found.append("pod may run as root")
    if security.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
        found.append("no seccomp profile")
    if spec.get("enableServiceLinks") is not False:
        found.append("service links")
    for volume in spec.get("volumes", []):
        kinds = set(volume) - {"name"}
        if len(kinds) != 1 or not kinds <= SAFE_VOLUMES:
            found.append(f"volume {volume['name']} is {sorted(kinds)}")
        if "emptyDir" in volume and not volume["emptyDir"].get("sizeLimit"):
            found.append(f"volume {volume['name']} has no size limit")
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        found += _container(container, capabilities)
    return found


def _container(container: dict[str, Any], capabilities: frozenset[str]) -> list[str]:
    security = container.get("securityContext", {})
    found = []
    if security.get("privileged"):
        found.append("privileged")
    if security.get("allowPrivilegeEscalation") is not False:
        found.append("privilege escalation")
    if security.get("readOnlyRootFilesystem") is not True:
        found.append("writable root")
    dropped = security.get("capabilities", {})
    if "ALL" not in dropped.get("drop", []):
        found.append("capabilities are not dropped")
    if not set(dropped.get("add", [])) <= capabilities:
        found.append(f"adds {dropped['add']}")
    if any(port.get("hostPort") for port in container.get("ports", [])):
        found.append("host port")
    if "memory" not in container.get("resources", {}).get("limits", {}):
        found.append("no memory limit")
    return found
