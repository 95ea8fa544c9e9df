"""Puts the adapter together: what an operator process opens once and closes at its end."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from eyas_contract import env
from eyas_operator.backends.kubernetes.client import KubeClient, open_client
from eyas_operator.backends.kubernetes.cluster import KubernetesCluster
from eyas_operator.backends.kubernetes.keys import OperatorKeys
from eyas_operator.backends.kubernetes.recorder import Recorder
from eyas_operator.backends.kubernetes.report import Reports
from eyas_operator.environment import Environment
from eyas_operator.telemetry import Telemetry
from eyas_operator.world import Pod


@asynccontextmanager
async def open_cluster(
    *,
    key_directory: Path,
    instance: str,
    environment: Environment,
    clock: Callable[[], float],
    telemetry: Telemetry,
    kubeconfig: Path | None = None,
) -> AsyncIterator[KubernetesCluster]:
    """The adapter of an operator process called `instance`, inside the running event loop.

    `key_directory` holds the operator's keys (see `keys`); `clock` gives Unix seconds. Without a kubeconfig the
    service account of this pod is used. Raises `UserError` when neither is usable.
    """
    client: KubeClient = await open_client(kubeconfig, telemetry.requested)
    keys = OperatorKeys(key_directory)
    cluster = KubernetesCluster(
        client,
        keys=keys,
        reports=Reports(keys, metadata_url, time.monotonic),
        recorder=Recorder(client, instance, clock),
    )
    try:
        yield cluster
    finally:
        await cluster.close()


def metadata_url(pod: Pod) -> str:
    """Where the service in `pod` listens."""
    address = pod.status.pod_ip
    return f"http://{f'[{address}]' if ':' in address else address}:{env.METADATA_PORT}"
