"""Bugs that recur in operators of training jobs, where a real kubelet, API server and second operator show them.

The others of that list have their tests beside the pods, nodes and ends that they are about; each is also played
against the plan alone. Each test names, after "Catches:", the change of ours that it exists to notice.
"""

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import pytest

from eyas_operator.status import CONDITIONS
from support.cluster_drill import roles, wait_for
from support.cluster_nodes import signal_container
from support.cluster_operator import OPERATOR
from support.kubectl import Kubectl, Refused
from support.pod_drill import Drill, drill, drilled, replaced, seen
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e
Weights = Callable[[dict[str, Any]], str]


@pytest.fixture(scope="session")
def weights(undisturbed: Weights) -> str:
    """What every drill must end with."""
    return undisturbed(drill("undisturbed"))


def test_the_first_container_that_ends_is_enough_although_its_peer_never_would(kubectl: Kubectl, weights: str) -> None:
    """Catches: late detection, which waits until all of the gang ended or until somebody above them says so.

    The peer is stopped with its supervisor: it ends when somebody deletes its pod, and for no other reason.
    """
    name = "bug-late"
    with drilled(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        dies, stuck = job.training().pod("consumer", 0), job.pod("consumer", 1)
        signal_container(kubectl, stuck, "STOP")
        signal_container(kubectl, dies, "KILL")
        job.attempt(2)
        status = job.recovered(weights)
    incident = replaced(status, "consumers", "Crash")
    assert (incident["serial"], incident["counted"], status["attempt"]) == (1, True, 2)
    told = [pod for _, pod in pods.versions("consumer") if pod["metadata"]["name"] == stuck]
    asked = next(pod for pod in told if "deletionTimestamp" in pod["metadata"])
    assert "running" in asked["status"]["containerStatuses"][0]["state"], "it had ended before anybody decided"
    assert pods.exit_codes("consumer")[stuck] == 137, "it was not stopped"


def test_a_job_cannot_be_scaled_to_zero_and_goes_from_none_to_two(kubectl: Kubectl, weights: str) -> None:
    """Catches: a deadlock at zero: producers that nobody can ask back, and a scale that is read only while pods run."""
    name = "bug-zero"
    with drilled(kubectl, drill(name, suspend=True)) as job:
        job.wait("Suspended")
        with pytest.raises(Refused) as refused:
            kubectl.run("scale", "dtj", name, "--replicas=0")
        assert "spec.producers.replicas" in str(refused.value)
        assert "greater than or equal to 1" in str(refused.value)
        assert kubectl.get("dtj", name)["spec"]["producers"]["replicas"] == 1
        kubectl.run("scale", "dtj", name, "--replicas=2")
        scale = kubectl.get("dtj", name, "--subresource=scale")
        assert (scale["spec"]["replicas"], scale["status"]["replicas"]) == (2, 0)
        kubectl.run("patch", "dtj", name, "--type=merge", "-p", '{"spec": {"suspend": false}}')
        wait_for(job, "two producers", lambda it: roles(it)["producer"] == (2, 2))
        job.recovered(weights)


def test_a_stranger_that_writes_the_status_during_a_recovery_loses_no_condition_of_ours(
    kubectl: Kubectl, weights: str
) -> None:
    """Catches: two writers and a lost condition: a status that is read, changed and written without its version.

    Two operators run. The stranger adds a condition, puts its own in the place of all, puts back those of before the
    failure, and sends whole objects that are no longer the newest.
    """
    name = "bug-writers"
    assert kubectl.get("deployment", OPERATOR)["status"]["readyReplicas"] == 2
    with drilled(kubectl, drill(name, seconds=0.3)) as job:
        job.training()
        with _stranger(job) as (done, refused):
            job.force_delete(job.pod("consumer", 1))
            job.attempt(2)
            seen(lambda: job.incidents("consumers")[0]["outcome"] == "Recovered", "work after the failure")
            seen(lambda: min(done[kind] for kind in WRITES) >= 2, "every kind of write")
        stale = [why for kind, why in refused if kind == "stale"]
        assert len(stale) == done["stale"], "an object that was not the newest was taken"
        assert all("the object has been modified" in why for why in stale), stale
        # What is added is there already until we took it away; nothing else may be refused.
        assert all(kind == "stale" or "Duplicate" in why for kind, why in refused), refused
        seen(lambda: _conditions(job) == list(CONDITIONS), "our conditions, and no other one")
        status = job.recovered(weights)
    assert [it["type"] for it in status["conditions"]] == list(CONDITIONS)
    replaced(status, "consumers", "PodDeleted")
    assert (status["attempt"], status["restarts"]) == (2, 1)
    assert job_truths(status) == {"Accepted", "Exact", "Complete"}


def job_truths(status: dict[str, Any]) -> set[str]:
    """Conditions that are True."""
    return {it["type"] for it in status["conditions"] if it["status"] == "True"}


def _conditions(job: Drill) -> list[str]:
    return [it["type"] for it in job.status()["conditions"]]


NOSY = {
    "type": "Nosy", "status": "True", "reason": "WroteThis", "message": "a stranger was here",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}  # fmt: skip
WRITES = ("added", "alone", "before", "stale")


@contextmanager
def _stranger(job: Drill) -> Iterator[tuple[Counter[str], list[tuple[str, str]]]]:
    """Writes the job's status all the time while the block runs: how often, by kind; what was refused, and why."""
    first = job.kubectl.get("dtj", job.name)
    done: Counter[str] = Counter()
    refused: list[tuple[str, str]] = []
    over = threading.Event()

    def write() -> None:
        for kind in cycle(WRITES):
            if over.is_set():
                return
            done[kind] += 1
            try:
                _write(job, kind, first)
            except Refused as error:
                refused.append((kind, str(error)))

    thread = threading.Thread(target=write, name="stranger", daemon=True)
    thread.start()
    try:
        yield done, refused
    finally:
        over.set()
        thread.join()


def _write(job: Drill, kind: str, first: dict[str, Any]) -> None:
    path = ("patch", "dtj", job.name, "--subresource=status")
    if kind == "added":
        change: object = [{"op": "add", "path": "/status/conditions/-", "value": NOSY}]
        job.kubectl.run(*path, "--type=json", "-p", json.dumps(change))
    elif kind == "stale":
        job.kubectl.run("replace", "--subresource=status", "-f", "-", given=json.dumps(first))
    else:
        conditions = [NOSY] if kind == "alone" else first["status"]["conditions"]
        job.kubectl.run(*path, "--type=merge", "-p", json.dumps({"status": {"conditions": conditions}}))
