"""The Lease on a real API server: what the election writes is what the server keeps, and its guard holds."""

import asyncio
import time
from pathlib import Path

import pytest

from eyas_contract.errors import Conflict
from eyas_operator.backends.kubernetes.client import open_client
from eyas_operator.backends.kubernetes.lease import KubeLeaseStore
from eyas_operator.leadership.campaign import Campaign
from eyas_operator.leadership.election import LEASE_SECONDS, claimed, given_back
from support.kube_apiserver import KubeApiServer

pytestmark = pytest.mark.apiserver
PATH = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/eyas-operator"


def test_a_lease_is_read_as_it_was_written_and_guarded_by_its_version(kube: KubeApiServer) -> None:
    namespace = kube.namespace()
    now = "2026-01-02T03:04:05.678Z"

    async def script() -> None:
        client = await open_client(Path(kube.kubeconfig(namespace=namespace)))
        store = KubeLeaseStore(client, namespace, "eyas-operator")
        try:
            assert await store.read() is None
            first = await store.write(claimed(None, "a", now))
            assert (first.holder, first.lease_seconds, first.transitions) == ("a", LEASE_SECONDS, 0)
            assert await store.read() == first
            with pytest.raises(Conflict):
                await store.write(claimed(None, "b", now))
            second = await store.write(claimed(first, "b", now))
            with pytest.raises(Conflict):
                await store.write(claimed(first, "a", now))
            free = await store.write(given_back(second, now))
            assert (free.holder, free.transitions) == ("", 1)
        finally:
            await client.close()

    asyncio.run(script())
    spec = kube.must("GET", PATH.format(namespace))["spec"]
    assert spec["renewTime"] == "2026-01-02T03:04:05.678000Z"
    assert "holderIdentity" not in spec


def test_a_candidate_wins_renews_and_gives_back_on_a_real_server(kube: KubeApiServer) -> None:
    namespace = kube.namespace()

    async def script() -> None:
        client = await open_client(Path(kube.kubeconfig(namespace=namespace)))
        store = KubeLeaseStore(client, namespace, "eyas-operator")
        try:
            first = Campaign(store, "a", clock=time.monotonic, wall=time.time)
            await first.win()
            version = kube.must("GET", PATH.format(namespace))["metadata"]["resourceVersion"]
            await first._try()
            assert kube.must("GET", PATH.format(namespace))["metadata"]["resourceVersion"] != version
            await first.give_back()
            second = Campaign(store, "b", clock=time.monotonic, wall=time.time)
            await second.win()
            assert second.leading
            assert kube.must("GET", PATH.format(namespace))["spec"]["holderIdentity"] == "b"
        finally:
            await client.close()

    asyncio.run(script())
