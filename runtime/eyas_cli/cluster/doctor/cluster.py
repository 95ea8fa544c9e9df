"""What jobs need of a cluster: storage classes, devices, and what the namespace allows its pods."""

from typing import Final

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_cli.cluster.doctor.ask import find
from eyas_contract.words import counted

_DEFAULT_CLASS: Final = "storageclass.kubernetes.io/is-default-class"
_ONE_NODE: Final = (
    "rancher.io/local-path",
    "kubernetes.io/no-provisioner",
    "docker.io/hostpath",
    "k8s.io/minikube-hostpath",
)
"""Provisioners whose volumes live on one node."""
_DEVICES: Final = ("nvidia.com/gpu", "amd.com/gpu", "rdma/")


async def storage(access: Access) -> list[Check]:
    """Storage classes: is there a default, and can volumes be shared between nodes?"""
    found = await find(access, "/apis/storage.k8s.io/v1/storageclasses")
    classes = (found or {}).get("items", [])
    if not classes:
        return [Check("storage", "error", "there is no storage class: claims of jobs stay Pending; make one")]
    checks = []
    default = [
        it["metadata"]["name"] for it in classes if it["metadata"].get("annotations", {}).get(_DEFAULT_CLASS) == "true"
    ]
    if default:
        checks.append(Check("storage", "ok", f"{', '.join(default)} is the default class"))
    else:
        text = "no class is the default: name one in spec.volumes.*.storageClassName"
        checks.append(Check("storage", "warning", text))
    for entry in classes:
        name, provisioner = entry["metadata"]["name"], entry["provisioner"]
        if provisioner in _ONE_NODE:
            text = (
                f"{name} ({provisioner}) keeps a volume on one node, as a rule: then there is no ReadWriteMany, hence "
                "one consumer pod, and the metadata store begins anew if that node is lost"
            )
            checks.append(Check("storage", "warning", text))
    return checks


async def devices(access: Access) -> list[Check]:
    """GPUs and RDMA devices that nodes offer."""
    found = await find(access, "/api/v1/nodes")
    nodes = (found or {}).get("items", [])
    offered: dict[str, int] = {}
    for node in nodes:
        for resource, count in node.get("status", {}).get("allocatable", {}).items():
            if resource.startswith(_DEVICES) and count.isdigit():
                offered[resource] = offered.get(resource, 0) + int(count)
    away = [
        node["metadata"]["name"]
        for node in nodes
        if not any(
            it["type"] == "Ready" and it["status"] == "True" for it in node.get("status", {}).get("conditions", [])
        )
    ]
    checks = [Check("nodes", "ok" if nodes and not away else "warning", _nodes(len(nodes), away))]
    text = ", ".join(f"{count} {resource}" for resource, count in sorted(offered.items()))
    checks.append(Check("devices", "ok", text or "no GPU and no RDMA device: jobs with gpus: 0 and without fabric run"))
    return checks


def _nodes(count: int, away: list[str]) -> str:
    return f"{counted(count, 'node')}" + (f", not ready: {', '.join(away)}" if away else ", all ready" if count else "")


async def allowed(access: Access) -> list[Check]:
    """The Pod Security level of the namespace, and whether a quota bounds it."""
    namespace = await find(access, f"/api/v1/namespaces/{access.namespace}")
    if namespace is None:
        return [
            Check(
                "namespace", "error", f"{access.namespace} does not exist: kubectl create namespace {access.namespace}"
            )
        ]
    level = namespace["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "")
    text = f"{access.namespace} enforces {level or 'no Pod Security level'}"
    if level in ("restricted", "baseline"):
        text += ": jobs with a fabric (RDMA) ask for IPC_LOCK and are refused there"
    return [Check("namespace", "ok", text)]
