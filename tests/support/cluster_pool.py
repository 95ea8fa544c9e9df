"""The chart's Mooncake pool on the test cluster: what a team installs that shares one pool between its jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from eyas_contract import env
from support.cluster_operator import RELEASE, upgrade
from support.kubectl import NAMESPACE, Kubectl
from support.pod_drill import seen

MASTER: Final = f"{RELEASE}-pool-master.{NAMESPACE}.svc"
NODES: Final = f"{RELEASE}-pool-node"
_NODE_PODS: Final = "app.kubernetes.io/component=pool-node"
_KEYS: Final = (
    "from eyas_runtime.features.blobs.mooncake_admin import MooncakeAdmin\n"
    f"print(*MooncakeAdmin('{MASTER}:{env.MASTER_METRICS_PORT}', deadline_seconds=5.0).keys(''), sep='\\n')"
)


class SharedPool:
    """The pool, called by its Service."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    @property
    def store(self) -> dict[str, Any]:
        """`spec.store` of a job that uses it, as the chart's notes say."""
        external = {
            "masterAddress": f"{MASTER}:{env.MASTER_PORT}",
            "masterMetricsAddress": f"{MASTER}:{env.MASTER_METRICS_PORT}",
        }
        return {
            "backend": "Mooncake",
            "maxResidentBytes": "64Mi",
            "mooncake": {"protocol": "TCP", "external": external},
        }

    def nodes(self) -> list[str]:
        """Pods of its store nodes."""
        return sorted(pod["metadata"]["name"] for pod in self._kubectl.items("pods", "-l", _NODE_PODS))

    def keys(self, part: str = "") -> list[str]:
        """Keys of what lies in it now that have `part` in them."""
        listed = self._kubectl.run("exec", f"deployment/{NODES}", "--", "python", "-c", _KEYS)
        return [key for key in listed.split() if part in key]


@contextmanager
def shared_pool(kubectl: Kubectl) -> Iterator[SharedPool]:
    """The release has the pool while the block runs, with two store nodes of a GiB."""
    upgrade("mooncakePool.enabled=true", "mooncakePool.nodes.segmentGiB=1", "mooncakePool.nodes.cpu=50m")
    try:
        pool = SharedPool(kubectl)
        seen(lambda: pool.keys() == [], "the pool answers and is empty")
        yield pool
    finally:
        upgrade("mooncakePool.enabled=false")
