"""A Mooncake pool on the test cluster that belongs to no job: master and one store node in one pod, behind a Service.

What a team runs that shares one pool between its jobs. Our runtime image has both programs: no other one is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from eyas_contract import env
from support.kubectl import Kubectl
from support.pod_drill import seen

IMAGE: Final = "eyas-runtime:0.1.0"
SEGMENT_BYTES: Final = 256 << 20
_BLOBS: Final = "eyas_runtime.features.blobs"
_ADMIN: Final = f"127.0.0.1:{env.MASTER_METRICS_PORT}"
_KEYS: Final = (
    f"from {_BLOBS}.mooncake_admin import MooncakeAdmin\n"
    f"print(*MooncakeAdmin('{_ADMIN}', deadline_seconds=5.0).keys(''), sep='\\n')"
)


class SharedPool:
    """One pool, called by its Service."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl = kubectl
        self.name = name

    @property
    def store(self) -> dict[str, Any]:
        """`spec.store` of a job that uses it."""
        external = {
            "masterAddress": f"{self.name}:{env.MASTER_PORT}",
            "masterMetricsAddress": f"{self.name}:{env.MASTER_METRICS_PORT}",
        }
        return {
            "backend": "Mooncake",
            "maxResidentBytes": "64Mi",
            "mooncake": {"protocol": "TCP", "external": external},
        }

    def keys(self, part: str = "") -> list[str]:
        """Keys of what lies in it now that have `part` in them."""
        listed = self._kubectl.run("exec", self.name, "--container", "node", "--", "python", "-c", _KEYS)
        return [key for key in listed.split() if part in key]


@contextmanager
def shared_pool(kubectl: Kubectl, name: str) -> Iterator[SharedPool]:
    """The pool while a test uses it."""
    ports = [("rpc", env.MASTER_PORT), ("http", env.MASTER_METRICS_PORT)]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"pool": name}, "ports": [{"name": port, "port": number} for port, number in ports]},
    }
    try:
        kubectl.apply(service)
        kubectl.apply(_pod(name))
        kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=120s", seconds=150)
        pool = SharedPool(kubectl, name)
        seen(lambda: pool.keys() == [], "the pool answers and is empty")
        yield pool
    finally:
        kubectl.run("delete", "pod,service", name, "--ignore-not-found", "--grace-period=1", "--wait=false")


def _pod(name: str) -> dict[str, Any]:
    rpc, admin = str(env.MASTER_PORT), str(env.MASTER_METRICS_PORT)
    master = [f"{_BLOBS}.mooncake_master", "--host=0.0.0.0", f"--rpc-port={rpc}", f"--admin-port={admin}"]
    node = [
        f"{_BLOBS}.mooncake_node", f"--master=127.0.0.1:{rpc}", f"--admin={_ADMIN}", "--hostname=$(POD_IP)",
        f"--segment-bytes={SEGMENT_BYTES}", "--ready-file=/tmp/ready",
    ]  # fmt: skip
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"pool": name}},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {
                "runAsNonRoot": True, "runAsUser": 65532, "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container("master", master), _container("node", node) | {"readinessProbe": probe}],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }  # fmt: skip


def _container(name: str, module: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "image": IMAGE,
        "command": ["python", "-m", *module],
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
