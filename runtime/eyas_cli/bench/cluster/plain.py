"""The plain arm of `eyas bench cluster`: the same gang as an Indexed Job, which Kubernetes alone restarts."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec

from eyas_cli.bench.cluster.arm import GANG, Place, pods_of, until
from eyas_cli.cluster.access import Access
from eyas_contract.errors import Transient, UserError
from eyas_operator.backends.kubernetes.errors import Exists, Missing
from eyas_operator.backends.kubernetes.resources import CLAIMS, PODS, Resource
from eyas_operator.backends.kubernetes.sockets import execute
from eyas_operator.desired.pods import USER_ID
from eyas_operator.errors import Refused
from eyas_operator.names import CONTAINER

NAME: Final = "eyas-bench-plain"
PORT: Final = 29400
BATCH: Final = Resource(kind="Job", group_version="batch/v1", plural="jobs")
_LOCKED: Final = {
    "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
}  # fmt: skip
# The shell stays: the process that is killed is its child, as a trainer is the child of its launcher.
_COMMAND: Final = "python -m eyas_runtime.bench.plain_gang & echo $! > /scratch/pid; wait $!; exit $?"


class PlainArm:
    """See `Arm`."""

    selector = f"job-name={NAME}"

    def __init__(self, access: Access) -> None:
        self.access = access

    async def place(self) -> Place | None:
        """As the newest rank 0 prints it."""
        ranks = [pod for pod in await pods_of(self) if pod.metadata.name.startswith(f"{NAME}-0-")]
        if not ranks:
            return None
        newest = max(ranks, key=lambda pod: pod.metadata.creation_timestamp or "")
        path = f"{PODS.item(self.access.namespace, newest.metadata.name)}/log"
        try:
            raw = await self.access.client.get(path, accept="*/*")
        except (Refused, Missing, Transient):  # Its container has not started.
            return None
        lines = [line.split() for line in raw.decode(errors="replace").splitlines()]
        steps = [(line[0], int(line[1])) for line in lines if len(line) == 2 and line[1].isdigit()]
        if not steps:
            return None
        return Place(life=steps[-1][0], step=steps[-1][1], resumed=steps[0][1])

    async def kill_process(self, pod: str) -> None:
        """See `Arm`."""
        await execute(self.access.client, self.access.namespace, pod, ("sh", "-c", "kill -9 $(cat /scratch/pid)"))


@asynccontextmanager
async def plain_arm(
    access: Access, *, image: str, storage: str | None, step_seconds: float, every_steps: int
) -> AsyncIterator[PlainArm]:
    """The Job and its claim, until the block ends. Raises `UserError` when an earlier run left one of them."""
    async with AsyncExitStack() as stack:
        for resource, manifest in (
            (CLAIMS, _claim(storage)), (BATCH, job_manifest(image, step_seconds=step_seconds, every_steps=every_steps)),
        ):  # fmt: skip
            try:
                raw = await access.client.create(resource.collection(access.namespace), manifest)
            except Exists as error:
                kind = resource.plural
                raise UserError(f"an earlier run left {NAME}: kubectl delete {kind} {NAME}, and run again") from error
            uid = msgspec.json.decode(raw)["metadata"]["uid"]
            stack.push_async_callback(_remove, access, resource.item(access.namespace, NAME), uid)
        arm = PlainArm(access)
        await until(arm.place, "the plain Job trains")
        yield arm


async def _remove(access: Access, path: str, uid: str) -> None:
    """Delete, and wait until it is gone: the next arm takes the same name."""
    await access.client.delete(path, uid=uid)

    async def gone() -> bool | None:
        try:
            await access.client.get(path)
        except Missing:
            return True
        return None

    await until(gone, f"the end of {path}")


def _claim(storage: str | None) -> dict[str, Any]:
    spec: dict[str, Any] = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    if storage:
        spec["storageClassName"] = storage
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": NAME}, "spec": spec}


def job_manifest(image: str, *, step_seconds: float, every_steps: int) -> dict[str, Any]:
    """The Indexed Job: a gang of three whose ranks start again only as new pods."""
    values = {
        "GANG_SIZE": str(GANG), "GANG_FOLDER": "/gang", "GANG_STEP_SECONDS": f"{step_seconds:g}",
        "GANG_EVERY_STEPS": str(every_steps), "GANG_PORT": str(PORT),
    }  # fmt: skip
    address = {"name": "GANG_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        "name": CONTAINER,
        "image": image,
        "command": ["sh", "-c", _COMMAND],
        "env": [*({"name": name, "value": value} for name, value in values.items()), address],
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": _LOCKED,
        "volumeMounts": [{"name": "gang", "mountPath": "/gang"}, {"name": "scratch", "mountPath": "/scratch"}],
    }
    secure = {
        "runAsNonRoot": True, "runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": secure,
        "containers": [container],
        "volumes": [
            {"name": "gang", "persistentVolumeClaim": {"claimName": NAME}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "16Mi"}},
        ],
    }
    spec = {
        "completionMode": "Indexed", "completions": GANG, "parallelism": GANG, "backoffLimit": 1000,
        "template": {"spec": pod},
    }  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": NAME}, "spec": spec}
