"""Is Eyas there: the definition as this program knows it, an operator that runs, one copy of it that leads."""

from datetime import UTC, datetime
from typing import Final

from eyas_cli.checks import Check
from eyas_cli.cluster.access import Access
from eyas_cli.cluster.doctor.ask import Object, find
from eyas_operator import names
from eyas_operator.api.crd import crd
from eyas_operator.backends.kubernetes.resources import ALL_NAMESPACES, PODS
from eyas_operator.desired.access import OPERATOR_LABELS
from eyas_operator.errors import Refused

CRD_NAME: Final = f"{names.PLURAL}.{names.GROUP}"
LEASE: Final = "eyas-operator"
_INSTALL: Final = "helm install eyas charts/eyas --namespace eyas-system --create-namespace"


async def definition(access: Access) -> list[Check]:
    """The CustomResourceDefinition."""
    group = await find(access, f"/apis/{names.GROUP}/{names.VERSION}")
    if group is None:
        return [Check("definition", "error", f"{names.API_VERSION} is not served: {_INSTALL}")]
    try:
        found = await find(access, f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{CRD_NAME}")
    except Refused:
        return [Check("definition", "ok", f"{names.API_VERSION} is served")]
    served = found is not None and _schema(found) == _schema(crd())
    text = f"{names.API_VERSION} is served" + (
        "" if served else ", with another schema than this program knows: upgrade the chart or this program"
    )
    return [Check("definition", "ok" if served else "warning", text)]


def _schema(definition: Object) -> object:
    """Names and types of all fields: what the API server adds by itself does not count."""
    (version,) = (it for it in definition["spec"]["versions"] if it["name"] == names.VERSION)
    return _shape(version["schema"]["openAPIV3Schema"]["properties"]["spec"])


def _shape(schema: Object) -> object:
    children = {key: _shape(child) for key, child in schema.get("properties", {}).items()}
    items = _shape(schema["items"]) if isinstance(schema.get("items"), dict) else None
    return schema.get("type"), children, items


async def operator(access: Access, now: datetime) -> list[Check]:
    """Its pods and its Lease. Looks everywhere where this user may, else in the chosen namespace."""
    selector = ",".join(f"{key}={value}" for key, value in OPERATOR_LABELS.items())
    try:
        pods = await find(access, PODS.collection(ALL_NAMESPACES), labelSelector=selector)
    except Refused:
        pods = await find(access, PODS.collection(access.namespace), labelSelector=selector)
        if not (pods or {}).get("items"):
            text = f"none in {access.namespace}, and you may not look elsewhere: ask who installed it"
            return [Check("operator", "warning", text)]
    items = (pods or {}).get("items", [])
    if not items:
        return [Check("operator", "error", f"no operator runs: {_INSTALL}")]
    places = sorted({item["metadata"]["namespace"] for item in items})
    return [*map(_pod, items), *[await _lease(access, namespace, now) for namespace in places]]


def _pod(item: Object) -> Check:
    meta, status = item["metadata"], item.get("status", {})
    ready = any(it["type"] == "Ready" and it["status"] == "True" for it in status.get("conditions", []))
    where = f"{meta['namespace']}/{meta['name']} on {item['spec'].get('nodeName', 'no node')}"
    if ready:
        return Check("operator", "ok", f"{where} is ready")
    reasons = [it["state"]["waiting"].get("reason", "") for it in status.get("containerStatuses", [])
               if "waiting" in it.get("state", {})]  # fmt: skip
    why = ", ".join(reasons) or status.get("phase", "unknown")
    return Check(
        "operator", "warning", f"{where} is not ready ({why}): kubectl logs -n {meta['namespace']} {meta['name']}"
    )


async def _lease(access: Access, namespace: str, now: datetime) -> Check:
    try:
        lease = await find(access, f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{LEASE}")
    except Refused as error:
        return Check("leader", "warning", f"you may not see the Lease: {error}")
    spec = (lease or {}).get("spec", {})
    if not spec.get("holderIdentity"):
        return Check("leader", "error", f"no copy in {namespace} leads: see its log")
    renewed = datetime.fromisoformat(spec["renewTime"])
    age = (now - renewed.astimezone(UTC)).total_seconds()
    holder, term = spec["holderIdentity"], float(spec.get("leaseDurationSeconds", 15))
    if age > 2 * term:
        text = f"{holder} led last {age:.0f} s ago: it is gone and nobody took over"
        return Check("leader", "error", text)
    return Check("leader", "ok", f"{holder} leads, heard {max(0.0, age):.0f} s ago")
