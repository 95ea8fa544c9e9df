"""Makes jobs and plays the kubelets of their pods, by patching statuses: started, or ended by a crash.

The metadata services of its jobs are played, too: their pods have the addresses where `services` answers.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from eyas_cli.bench.operator.control_plane import CONNECTIONS, MERGE, NAMESPACE, ControlPlane
from eyas_cli.bench.operator.services import Services, address
from eyas_contract.ids import valid_job_uid
from eyas_operator import names

JOBS: Final = f"/apis/{names.API_VERSION}/namespaces/{NAMESPACE}/{names.PLURAL}"
PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
PODS_PER_JOB_MIN: Final = 5
"""Metadata, store master, store node, one producer, one consumer."""
_NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
_PAGE: Final = 500
_STARTED: Final = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [
        {"name": names.CONTAINER, "image": "x", "imageID": "", "restartCount": 0, "ready": True,
         "state": {"running": {}}}
    ],
}  # fmt: skip
_CRASHED: Final = {
    "phase": "Failed",
    "conditions": [{"type": "Ready", "status": "False"}],
    "containerStatuses": [
        {"name": names.CONTAINER, "image": "x", "imageID": "", "restartCount": 0, "ready": False,
         "state": {"terminated": {"exitCode": 137, "reason": "Error"}}}
    ],
}  # fmt: skip


def job_body(name: str, pods: int) -> dict[str, Any]:
    """A job that has `pods` pods."""
    producers = (pods - 2) // 2
    spec = {
        "target": {"model": "/models/target"},
        "data": {"prompts": ["/data/prompts.jsonl"], "maxLength": 2048},
        "draft": {"vocabSize": 32000},
        "training": {"windowSize": 64, "learningRate": 1e-4, "maxSteps": 20000},
        "store": {"backend": "Mooncake", "mooncake": {"nodes": {"replicas": 1, "segmentSize": "1Gi"}}},
        "volumes": {
            "models": {"claimName": "models"}, "data": {"claimName": "data"},
            "checkpoints": {"size": "1Gi", "accessMode": "ReadWriteMany"},
        },
        "producers": {"replicas": producers},
        "consumers": {"replicas": pods - 3 - producers},
        "startupDeadlineSeconds": 86400,
    }  # fmt: skip
    return {"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": {"name": name}, "spec": spec}


class Player:
    """Everybody but the operator."""

    def __init__(self, plane: ControlPlane, played: Services) -> None:
        self._plane = plane
        self._services = played
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="player")

    def submit(self, jobs: int, pods_each: int) -> None:
        """Make jobs `job-0`, `job-1`, ... ."""
        bodies = (job_body(f"job-{index}", pods_each) for index in range(jobs))
        made = self._threads.map(lambda body: self._plane.must("POST", JOBS, body)["metadata"]["uid"], bodies)
        for index, uid in enumerate(made):
            self._services.begin(index, valid_job_uid(uid.replace("-", "")))

    def start_pending(self) -> int:
        """Every pod that waits runs and is ready now; how many there were."""
        pending = list(self._names("fieldSelector=status.phase%3DPending"))
        list(self._threads.map(lambda name: self._patch(name, _STARTED | {"podIP": _address(name)}), pending))
        return len(pending)

    def pods(self) -> int:
        """Pods that exist."""
        listed = self._plane.must("GET", f"{PODS}?limit=1", accept=_NAMES_ONLY)
        return int(listed["metadata"].get("remainingItemCount", 0)) + len(listed["items"] or ())

    def producers(self) -> list[str]:
        """Names of all producer pods, one of every job first."""
        rows: dict[str, list[str]] = {}
        for name in self._names(f"labelSelector={names.LABEL_ROLE.replace('/', '%2F')}%3Dproducer"):
            rows.setdefault(job_stem(name), []).append(name)
        turns = itertools.zip_longest(*(sorted(found) for found in rows.values()))
        return [name for turn in turns for name in turn if name is not None]

    def crash(self, pod: str) -> None:
        """The pod's container ends as if it had been killed."""
        self._patch(pod, _CRASHED)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()

    def _patch(self, name: str, status: dict[str, Any]) -> None:
        """A pod that the operator has deleted meanwhile (404) is nobody's business any more."""
        self._plane.ask("PATCH", f"{PODS}/{name}/status", {"status": status}, content=MERGE)

    def _names(self, query: str) -> Iterator[str]:
        more = ""
        while True:
            page = self._plane.must("GET", f"{PODS}?limit={_PAGE}&{query}{more}", accept=_NAMES_ONLY)
            yield from (entry["metadata"]["name"] for entry in page["items"] or ())
            if not page["metadata"].get("continue"):
                return
            more = f"&continue={page['metadata']['continue']}"


def _address(pod: str) -> str:
    return address(int(pod.split("-")[1]))


def job_stem(pod: str) -> str:
    """What the names of all pods of one job begin with: its name and the head of its UID."""
    return "-".join(pod.split("-")[:3])
