"""The Lease of `coordination.k8s.io` behind the port of the election. Every write names the version that was read."""

from typing import Any

from eyas_operator.backends.kubernetes.client import KubeClient
from eyas_operator.backends.kubernetes.errors import Missing
from eyas_operator.backends.kubernetes.listing import decode
from eyas_operator.backends.kubernetes.recorder import micro_time
from eyas_operator.backends.kubernetes.resources import Resource
from eyas_operator.leadership.election import LEASE_SECONDS, Lease
from eyas_operator.world import Manifest, seconds_of

LEASES = Resource(kind="Lease", group_version="coordination.k8s.io/v1", plural="leases")


class KubeLeaseStore:
    """One Lease by name. Raises `Transient`, `Conflict` or `Refused` as `KubeClient` does."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def read(self) -> Lease | None:
        path = LEASES.item(self._namespace, self._name)
        try:
            return _lease(decode(await self._client.get(path), dict[str, Any], path))
        except Missing:
            return None

    async def write(self, lease: Lease) -> Lease:
        path = LEASES.item(self._namespace, self._name)
        if lease.version:
            raw = await self._client.replace(path, self._manifest(lease))
        else:
            raw = await self._client.create(LEASES.collection(self._namespace), self._manifest(lease))
        return _lease(decode(raw, dict[str, Any], path))

    def _manifest(self, lease: Lease) -> Manifest:
        meta = {"name": self._name, "namespace": self._namespace, "labels": {"app.kubernetes.io/part-of": "eyas"}}
        spec: Manifest = {
            # An empty holder is written as none: the API knows no empty name.
            "holderIdentity": lease.holder or None,
            "leaseDurationSeconds": int(lease.lease_seconds),
            "leaseTransitions": lease.transitions,
            "acquireTime": micro_time(seconds_of(lease.acquire_time)) if lease.acquire_time else None,
            "renewTime": micro_time(seconds_of(lease.renew_time)) if lease.renew_time else None,
        }
        return {
            "apiVersion": LEASES.group_version,
            "kind": LEASES.kind,
            "metadata": meta | ({"resourceVersion": lease.version} if lease.version else {}),
            "spec": {field: value for field, value in spec.items() if value is not None},
        }


def _lease(raw: Manifest) -> Lease:
    spec = raw.get("spec") or {}
    return Lease(
        holder=spec.get("holderIdentity") or "",
        version=raw["metadata"]["resourceVersion"],
        lease_seconds=float(spec.get("leaseDurationSeconds") or LEASE_SECONDS),
        transitions=int(spec.get("leaseTransitions") or 0),
        acquire_time=spec.get("acquireTime") or "",
        renew_time=spec.get("renewTime") or "",
    )
