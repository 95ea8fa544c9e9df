"""Drills on the test cluster: a job that trains for some seconds, ways to hurt its pods, and what must be true after.

All drills train the same (`SHORT`): the weights of the one undisturbed run are what every disturbed one must reach.
The pace is the capture's, so that a blow which falls when the ranks are ready falls into the middle of the training.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import yaml

from eyas_contract import env
from support.cluster_job import ClusterJob, applied, fake
from support.kubectl import Kubectl, Refused
from support.waiting import wait_until

SECONDS: Final = 180.0
"""Far more than any one thing takes, so that a loaded machine never decides a test."""
POLL_SECONDS: Final = 0.5
STEPS: Final = 32
SHORT: Final[dict[str, object]] = {
    "data.epochs": 1,
    "training.windowSize": 4,
    "training.maxSteps": STEPS,
    "training.checkpoint.everySteps": 4,
}
CAPTURE_SECONDS: Final = 0.15
MOONCAKE: Final[dict[str, object]] = {
    "store": {"backend": "Mooncake", "maxResidentBytes": "64Mi"}
    | {"mooncake": {"protocol": "TCP", "nodes": {"replicas": 1, "segmentSize": "128Mi"}}}
}
"""The store with pods of its own, for drills that hurt them; the others spare the machine and use a folder."""
_FOLDER: Final[dict[str, object]] = {
    "store": {"backend": "SharedDirectory", "maxResidentBytes": "64Mi"}
    | {"sharedDirectory": {"size": "1Gi", "storageClassName": "shared"}}
}
GATE: Final = "eyas.dev/drill"
"""Label of nodes on which a gated role may run: given when the drill opens the gate."""
_CHILDREN: Final = (
    "import json, os, signal, sys\n"
    f"path = os.environ[{env.POD_DIRECTORY!r}] + '/' + {env.CHILDREN_FILE!r}\n"
    "found = [child for child in json.load(open(path)) if child['process']]\n"
    "[os.kill(child['pid'], signal.Signals[sys.argv[1]]) for child in found]\n"
    "print(' '.join(child['process'] for child in found))\n"
)
T = TypeVar("T")


def drill(name: str, *, seconds: float = CAPTURE_SECONDS, **changes: object) -> dict[str, Any]:
    """A job of the fake trainer that trains `STEPS` steps in about twenty seconds: one producer and a gang of two."""
    widths: dict[str, object] = {"producers.replicas": 1, "consumers.replicas": 2, "consumers.processesPerPod": 1}
    widths["volumes.checkpoints.accessMode"] = "ReadWriteMany"
    widths["recovery.leaseSeconds"] = 5
    return fake(name, seconds=seconds, **(SHORT | _FOLDER | widths | changes))


def seen(fact: Callable[[], T | None], what: str, seconds: float = SECONDS) -> T:
    """The first truthy answer of the cluster; fails naming `what`."""
    return wait_until(fact, what, seconds=seconds, poll_seconds=POLL_SECONDS)


class Drill(ClusterJob):
    """One job, and ways to hurt it."""

    def condition(self, kind: str) -> dict[str, Any]:
        """One condition; empty before the operator saw the job."""
        found = [entry for entry in self.status().get("conditions", []) if entry["type"] == kind]
        return found[0] if found else {}

    def wait(self, condition: str, seconds: float = SECONDS) -> None:
        """Until the job says so, as a user would wait."""
        try:
            limit = f"--timeout={seconds:.0f}s"
            self.kubectl.run("wait", f"--for=condition={condition}", f"dtj/{self.name}", limit, seconds=seconds + 30)
        except Refused as error:
            raise AssertionError(f"{error}\n{yaml.safe_dump(self.status())}\n{self._pods()}") from error

    def training(self) -> "Drill":
        """Until every rank trains (a consumer pod is ready from then on) and all else is ready, too."""
        self.wait("Ready")
        return self

    def pod(self, role: str, index: int = 0, *, number: int = 1) -> str:
        """Name of the newest pod of that place, once its attempt or ordinal is at least `number`."""

        def newest() -> str:
            pods = {
                int(labels["eyas.dev/attempt"]): str(pod["metadata"]["name"])
                for pod in self.pods(role)
                if (labels := pod["metadata"]["labels"])["eyas.dev/replica-index"] == str(index)
            }
            return pods[max(pods)] if pods and max(pods) >= number else ""

        return seen(newest, f"pod {number} of {role} {index}")

    def hit(self, pod: str, name: str) -> str:
        """Send the children of a pod's supervisor a signal; their names, or nothing where none could be reached."""
        try:
            return self.kubectl.run("exec", pod, "--", "python", "-c", _CHILDREN, name).strip()
        except Refused:
            return ""

    def signal(self, pod: str, name: str = "SIGKILL") -> str:
        """The same, as soon as there are any."""
        return seen(lambda: self.hit(pod, name), f"{pod} has a child")

    def delete(self, pod: str, *flags: str) -> None:
        """Begin to delete a pod, without waiting for its end."""
        self.kubectl.run("delete", "pod", pod, "--wait=false", *flags)

    def force_delete(self, pod: str) -> None:
        """The object goes at once, whatever still runs."""
        self.delete(pod, "--force", "--grace-period=0")

    def evict(self, pod: str) -> None:
        """As a drain does, budgets respected."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        namespace = self.kubectl.get("pod", pod)["metadata"]["namespace"]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        self.kubectl.run("create", "--raw", path, "-f", "-", given=json.dumps(body))

    def attempt(self, number: int) -> None:
        """Until the gang's attempt is at least `number`."""
        seen(lambda: int(self.status().get("attempt", 0)) >= number, f"attempt {number} of {self.name}")

    def incidents(self, unit: str) -> list[dict[str, Any]]:
        """What the operator wrote down about a unit's ends."""
        return [it for it in self.status().get("incidents", []) if (it["unit"], it["source"]) == (unit, "Operator")]

    def failed(self) -> dict[str, Any]:
        """Until the job failed for good: its condition, with every pod gone (and with it every GPU)."""
        self.wait("Failed")
        self.no_pods()
        return self.condition("Failed")

    def no_pods(self) -> None:
        """Until none is left."""
        seen(lambda: not self.all_pods(), f"the end of all pods of {self.name}")

    def all_pods(self) -> list[dict[str, Any]]:
        """The job's own pods: labelled and owned by it."""
        pods = self.kubectl.items("pods", "-l", f"eyas.dev/job-name={self.name}")
        kinds = [[owner["kind"] for owner in pod["metadata"].get("ownerReferences", ())] for pod in pods]
        return [pod for pod, owners in zip(pods, kinds, strict=True) if "DisaggTrainingJob" in owners]

    def recovered(self, weights: str) -> dict[str, Any]:
        """It completed with these weights, exactly, each sample once, and left nothing; its status then."""
        status = self.complete(SECONDS * 2)
        assert status["result"]["weightsSha256"] == weights
        assert (status["result"]["exact"], self.condition("Exact")["status"]) == (True, "True")
        result = status["result"]
        assert (result["steps"], result["samplesTrained"], result["samplesDead"]) == (STEPS, 4 * STEPS, 0)
        assert self.condition("Complete")["reason"] == "TrainingComplete", "the store was not swept"
        assert all(it["outcome"] for it in status["incidents"]), "an incident that never ends"
        self.no_pods()
        return status


def replaced(status: dict[str, Any], unit: str, klass: str) -> dict[str, Any]:
    """The one incident of that unit and class, with its times in order and work seen after it."""
    found = [it for it in status["incidents"] if (it["unit"], it["class"]) == (unit, klass)]
    assert len(found) == 1, f"{klass} of {unit}: {status['incidents']}"
    incident: dict[str, Any] = found[0]
    assert incident["outcome"] == "Recovered", incident
    times = [incident[f"{name}Time"] for name in ("detected", "replaced", "firstStep")]
    assert all(times), incident
    assert times == sorted(times), incident
    return incident


@contextmanager
def drilled(kubectl: Kubectl, body: dict[str, Any]) -> Iterator[Drill]:
    """The job while a test hurts it."""
    with applied(kubectl, body) as job:
        yield Drill(kubectl, job.name)


@contextmanager
def gated(kubectl: Kubectl, name: str, role: str, **changes: object) -> Iterator[tuple[Drill, Callable[[], None]]]:
    """A job whose pods of `role` fit on no node until the drill calls the second value."""
    label = f"{GATE}-{name}"
    body = drill(name, **changes)
    template = json.loads(json.dumps(body["spec"][role]["template"]))
    template["spec"]["nodeSelector"] = {label: "open"}
    body["spec"][role]["template"] = template
    try:
        with drilled(kubectl, body) as job:
            yield job, lambda: _label(kubectl, f"{label}=open")
    finally:
        _label(kubectl, f"{label}-")


def _label(kubectl: Kubectl, change: str) -> None:
    kubectl.run("label", "nodes", "--all", change, "--overwrite")
