"""Jobs on the test cluster: the quickstart, made small, and what becomes of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import yaml

from support.kubectl import Kubectl, Refused

QUICKSTART: Final = Path(__file__).parents[2] / "examples" / "quickstart.yaml"
END_SECONDS: Final = 900.0


def quickstart(name: str, **changes: object) -> dict[str, Any]:
    """The example under another name; `changes` are spec overrides with dotted paths, None takes a field away.

    Checkpoints lie in the class that all nodes share: no job of these tests may be bound to one node by its volume.
    """
    body: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text())
    body["metadata"]["name"] = name
    for path, value in ({"volumes.checkpoints.storageClassName": "shared"} | changes).items():
        place = body["spec"]
        *parents, last = path.split(".")
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = deepcopy(value)  # Bodies share no part: the next dotted path changes this one alone.
    return body


def fake(name: str, *, seconds: float = 0.0, **changes: object) -> dict[str, Any]:
    """A job of the fake trainer and the fake capture (`seconds` a sample) in the torch-free image: over in a moment."""
    drill = [{"name": "EYAS_TRAINER", "value": "fake"}, {"name": "EYAS_CAPTURE", "value": f"fake:{seconds:g}"}]
    container = {
        "name": "main",
        "image": "eyas-runtime:0.1.0",
        "env": drill,
        "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}},
    }
    template = {"spec": {"containers": [container]}}
    small: dict[str, object] = {
        "evaluation": None,
        "producers.template": template,
        "consumers.template": deepcopy(template),
    }
    return quickstart(name, **(small | changes))


class ClusterJob:
    """One job on the cluster."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self.kubectl, self.name = kubectl, name

    def status(self) -> dict[str, Any]:
        """The job's status as the API server has it; empty before the operator's first write."""
        status: dict[str, Any] = self.kubectl.get("dtj", self.name).get("status", {})
        return status

    def pods(self, role: str) -> list[dict[str, Any]]:
        """Its pods of one role."""
        return self.kubectl.items("pods", "-l", f"eyas.dev/job-name={self.name},eyas.dev/role={role}")

    def wait_for_step(self, step: int, seconds: float = END_SECONDS) -> None:
        """Until a durable checkpoint of at least `step` is in the status."""
        # kubectl waits for values that are equal, so each step on the way is one bounded wait of the API server's own.
        for _ in range(int(seconds)):
            if int(self.status().get("progress", {}).get("step", 0)) >= step:
                return
            try:
                self.kubectl.run("wait", "--for=condition=Complete", f"dtj/{self.name}", "--timeout=1s", seconds=10)
            except Refused:
                continue
            return
        raise AssertionError(f"{self.name} never reached step {step}: {self.status()}")

    def complete(self, seconds: float = END_SECONDS) -> dict[str, Any]:
        """Wait for the condition `Complete` as a user would; the status then."""
        try:
            self.kubectl.run(
                "wait",
                "--for=condition=Complete",
                f"dtj/{self.name}",
                f"--timeout={seconds:.0f}s",
                seconds=seconds + 30,
            )
        except Refused as error:
            raise AssertionError(f"{error}\n{yaml.safe_dump(self.status())}\n{self._pods()}") from error
        return self.status()

    def _pods(self) -> str:
        return self.kubectl.run("get", "pods", "-l", f"eyas.dev/job-name={self.name}", "-o", "wide")


@contextmanager
def applied(kubectl: Kubectl, body: dict[str, Any]) -> Iterator[ClusterJob]:
    """The job while a test looks at it; afterwards it and its checkpoints are gone."""
    name = body["metadata"]["name"]
    kubectl.apply(body)
    try:
        yield ClusterJob(kubectl, name)
    finally:
        kubectl.run("delete", "dtj", name, "--wait=true", "--timeout=120s", "--ignore-not-found", seconds=150)
        kubectl.run("delete", "pvc", "-l", f"eyas.dev/job-name={name}", "--wait=false", "--ignore-not-found")
