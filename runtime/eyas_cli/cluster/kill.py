"""`kubectl eyas kill`: a drill. A pod is deleted, evicted, or a process in it gets a signal.

Deleting and evicting need the rights of an editor. A signal needs `pods/exec`, which none of our roles gives: the
processes are those that the pod's supervisor lists in its own file.
"""

from typing import Final

from eyas_cli.cluster.access import Access
from eyas_cli.cluster.job import JobPod, read_job
from eyas_contract.env import CHILDREN_FILE, POD_DIRECTORY
from eyas_contract.errors import UserError
from eyas_operator.backends.kubernetes.resources import PODS
from eyas_operator.backends.kubernetes.sockets import execute

SIGNALS: Final = ("KILL", "STOP", "CONT", "TERM")
_PROGRAM: Final = f"""
import json, os, pathlib, signal, sys
path = pathlib.Path(os.environ[{POD_DIRECTORY!r}]) / {CHILDREN_FILE!r}
for child in json.loads(path.read_bytes()):
    os.kill(child["pid"], signal.Signals["SIG" + sys.argv[1]])
    print(child["role"], child["index"], "pid", child["pid"])
"""


async def kill(access: Access, name: str, unit: str, *, signal: str, evict: bool, grace_seconds: int) -> list[str]:
    """Hurt every pod of `unit`; a sentence each. Raises `UserError` for an unknown unit or signal."""
    if signal and signal not in SIGNALS:
        raise UserError(f"--signal {signal}: one of {', '.join(SIGNALS)}")
    if signal and evict:
        raise UserError("--signal and --evict exclude each other")
    job = await read_job(access, name)
    done = []
    for entry in job.of("" if unit == "all" else unit):
        if signal:
            done.append(await signalled(access, entry.name, signal))
        elif evict:
            done.append(await _evicted(access, entry))
        else:
            uid = entry.pod.metadata.uid
            path = PODS.item(access.namespace, entry.name)
            await access.client.delete(path, uid=uid, grace_seconds=grace_seconds)
            done.append(f"deleted {entry.name} with {grace_seconds} s of grace")
    return done


async def _evicted(access: Access, entry: JobPod) -> str:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": entry.name, "namespace": access.namespace},
        "deleteOptions": {"preconditions": {"uid": entry.pod.metadata.uid}},
    }
    await access.client.request("POST", f"{PODS.item(access.namespace, entry.name)}/eviction", body=body)
    return f"evicted {entry.name}"


async def signalled(access: Access, pod: str, signal: str) -> str:
    """Send every process of the pod's supervisor a signal, for example `KILL`; a sentence about it."""
    said = await execute(access.client, access.namespace, pod, ("python", "-c", _PROGRAM, signal))
    processes = ", ".join(said.strip().splitlines()) or "no process: its supervisor has none now"
    return f"sent SIG{signal} in {pod} to {processes}"
