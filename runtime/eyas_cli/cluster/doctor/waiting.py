"""What holds up one job: its conditions, its claims, and why its pods do not run."""

from typing import Any, Final

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_cli.cluster.doctor.ask import find
from eyas_cli.cluster.job import ClusterJob, JobPod, read_job
from eyas_contract.words import counted
from eyas_operator import names
from eyas_operator.backends.kubernetes.resources import CLAIMS

_HINTS: Final = (
    ("ErrImage", "the node cannot pull the image: check its name, and spec.*.template.spec.imagePullSecrets"),
    ("ImagePull", "the node cannot pull the image: check its name, and spec.*.template.spec.imagePullSecrets"),
    ("ErrImageNeverPull", "the image is not on the node: load it there, or allow pulling"),
    ("CreateContainerConfigError", "a Secret or ConfigMap of the pod is missing"),
    ("Insufficient", "no node has room: fewer replicas, smaller requests, or more nodes"),
    ("taint", "every node with room is tainted: add spec.*.template.spec.tolerations"),
    ("unbound", "a claim of the pod is not bound: see the lines about claims"),
    ("node affinity", "no node matches spec.*.template.spec.nodeSelector or affinity, or a volume lives elsewhere"),
    ("ContainerCreating", "volumes are being attached, or the image is being pulled"),
)


async def job(access: Access, name: str) -> list[Check]:
    """Every check of one job."""
    found = await read_job(access, name)
    return [_state(found), *await _claims(access, found), *(_pod(entry) for entry in found.pods if not entry.ready)]


def _state(found: ClusterJob) -> Check:
    status = found.status
    conditions = {it.type: it for it in status.conditions}
    if not conditions:
        return Check(
            "job", "error", "no operator has looked at it: is its namespace among the chart's watchNamespaces?"
        )
    for kind, wrong in (("Accepted", "False"), ("Failed", "True"), ("Stalled", "True"), ("Exact", "False")):
        condition = conditions.get(kind)
        if condition is not None and condition.status == wrong:
            level = "warning" if kind in ("Stalled", "Exact") else "error"
            return Check("job", "error" if level == "error" else "warning", f"{kind} is {wrong}: {condition.message}")
    opened = [it for it in status.incidents if it.open]
    return Check("job", "ok", f"{status.state}, attempt {status.attempt}, {counted(len(opened), 'open incident')}")


async def _claims(access: Access, found: ClusterJob) -> list[Check]:
    """Claims that the job names, and those that were made for it."""
    selector = f"{names.LABEL_JOB_UID}={found.identity.uid}"
    made = await find(access, CLAIMS.collection(access.namespace), labelSelector=selector)
    claims: dict[str, dict[str, Any] | None] = {it["metadata"]["name"]: it for it in (made or {}).get("items", [])}
    volumes = found.record.body["spec"].get("volumes") or {}
    for volume in ("models", "data", "checkpoints"):
        named = (volumes.get(volume) or {}).get("claimName")
        if named:
            claims[named] = await find(access, CLAIMS.item(access.namespace, named))
    return [_claim(name, claim) for name, claim in sorted(claims.items())]


def _claim(name: str, claim: dict[str, Any] | None) -> Check:
    if claim is None:
        return Check("claim", "error", f"{name} does not exist: make it, the job waits for it")
    phase = claim.get("status", {}).get("phase", "Pending")
    modes = ", ".join(claim["spec"].get("accessModes", []))
    storage = claim["spec"].get("storageClassName", "the default class")
    hint = "" if phase == "Bound" else f": kubectl describe pvc {name} says why"
    return Check("claim", "ok" if phase == "Bound" else "warning", f"{name} is {phase} ({modes}, {storage}){hint}")


def _pod(entry: JobPod) -> Check:
    why = entry.waiting
    if not why:
        return Check("pod", "ok", f"{entry.unit} is {entry.state}")
    hint = next((text for sign, text in _HINTS if sign in why), "kubectl describe pod says more")
    return Check("pod", "warning", f"{entry.unit} waits: {why[:200]}: {hint}")
