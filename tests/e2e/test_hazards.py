"""Interleavings that broke an earlier design, where only a cluster shows them; by the numbers of the list they are on.

Others of that list are proven where they are cheapest: `grep -rn test_hazard_ tests`.
"""

import json
from typing import Any

import pytest

from support.cluster_drill import Weights, assert_recovered, children, drill, exact, quick, uid_of, wait_for, wait_until
from support.cluster_job import applied
from support.kubectl import NAMESPACE, Kubectl, Refused
from support.pod_drill import drilled
from support.pod_history import pod_history

pytestmark = pytest.mark.e2e
KILLS = 3


def test_hazard_01_a_metadata_claim_deleted_with_its_pod_begins_the_next_store_epoch_and_changes_no_bit(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "hazard-01"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        wait_for(job, "a checkpoint", lambda it: it["checkpoint"]["step"] >= 3)
        (pod,) = job.pods("metadata")
        claim = f"{pod['metadata']['name'].rsplit('-e1', 1)[0]}-e1"
        kubectl.run("delete", "pvc", claim, "--wait=false")
        kubectl.run("delete", "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
        seen = wait_for(job, "store epoch 2", lambda it: it["storeEpoch"] == 2)
        assert seen["checkpoint"]["step"] >= 3, "what was durable is forgotten"
        status = job.complete(300)
        uid = uid_of(kubectl, name)
        assert [it for it in children(kubectl, uid) if "-metadata-e" in it and it.startswith("Persistent")] == [
            f"PersistentVolumeClaim/{claim[:-1]}2"
        ]
    assert status["result"]["weightsSha256"] == weights
    assert (status["storeEpoch"], exact(status)) == (2, ("True", "NoDeviation"))
    (incident,) = [it for it in status["incidents"] if it["class"] == "MetadataLost"]
    assert incident["unit"] == "metadata-0" or incident["unit"].startswith("metadata")
    assert_recovered(incident)
    assert {it.rsplit("-", 2)[-2] for it in pods.uids("metadata").values()} == {"e1", "e2"}


def test_hazard_26_more_kills_than_the_budget_with_progress_between_them_neither_end_nor_pause_a_job(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    """Every restart but the first after progress would wait for a day, in the operator or in a kubelet."""
    name = "hazard-26"
    weights = undisturbed(quick())
    day = 86_400
    strict: dict[str, Any] = {"recovery.maxRestartsWithoutProgress": 1, "recovery.restartsInPlace": 0}
    strict["recovery.backoff"] = {"baseSeconds": day, "maxSeconds": day}
    with drilled(kubectl, drill(name, seconds=0.4, **strict)) as job, pod_history(kubectl, name) as pods:
        for attempt in range(1, KILLS + 1):
            # One of its own: what an attempt wrote last may be seen only after its end, and is no progress of the next.
            mine = f".a{attempt}."
            wait_for(job, "a checkpoint of its own", lambda it, mine=mine: mine in it["checkpoint"]["directory"])
            job.signal(job.pod("consumer", number=attempt))
            job.attempt(attempt + 1)
        status = job.recovered(weights)
    crashes = [it for it in status["incidents"] if it["source"] == "Operator"]
    assert [(it["class"], it["counted"], it["outcome"]) for it in crashes] == [("Crash", True, "Recovered")] * KILLS
    assert (status["attempt"], status["restarts"]) == (KILLS + 1, KILLS)
    (gang,) = [unit for unit in status["units"] if unit["role"] == "consumer"]
    assert (gang["restartsWithoutProgress"], gang["notBeforeTime"]) == (0, "")
    counts = {it["restartCount"] for _, pod in pods.versions() for it in pod["status"].get("containerStatuses", ())}
    assert counts == {0}, "a kubelet restarted a container, and would pause before the next time"


def test_hazard_27_budgets_count_the_pods_of_their_own_role_and_let_one_go(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "hazard-27"
    weights = undisturbed(quick())
    wide: dict[str, Any] = {"producers.replicas": 3, "consumers.replicas": 2}
    wide["volumes.checkpoints.accessMode"] = "ReadWriteMany"
    with applied(kubectl, drill(name, **wide)) as job:
        wait_for(job, "every role", lambda it: all(role["ready"] == role["desired"] for role in it["roles"]))
        budgets = wait_until("healthy budgets", lambda: healthy(kubectl, uid_of(kubectl, name)))
        # A percentage would be taken of the scale subresource, the three producers, for consumers as well.
        assert budgets == {"producer": (2, 3, 1), "consumer": (1, 2, 1)}
        evict(kubectl, job.pods("consumer")[0]["metadata"]["name"])
        wait_for(job, "attempt 2", lambda it: it["attempt"] == 2)
        evict(kubectl, job.pods("producer")[0]["metadata"]["name"])
        status = job.complete(300)
    assert (status["result"]["weightsSha256"], status["attempt"], exact(status)[0]) == (weights, 2, "True")


def healthy(kubectl: Kubectl, job_uid: str) -> dict[str, tuple[int, int, int]]:
    """Role to (wanted healthy, expected, may go now), once the disruption controller sees all pods healthy."""
    found = {}
    for budget in kubectl.items("poddisruptionbudgets", "-l", f"eyas.dev/job-uid={job_uid}"):
        status = budget.get("status", {})
        if not status.get("disruptionsAllowed"):
            return {}
        role = budget["spec"]["selector"]["matchLabels"]["eyas.dev/role"]
        found[role] = (status["desiredHealthy"], status["expectedPods"], status["disruptionsAllowed"])
    return found


def evict(kubectl: Kubectl, pod: str) -> None:
    """As `kubectl drain` does."""
    body = {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": NAMESPACE},
    }  # fmt: skip
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod}/eviction"

    def accepted() -> bool:
        try:
            kubectl.run("create", "--raw", path, "-f", "-", given=json.dumps(body))
        except Refused as error:
            if "disruption budget" not in str(error):
                raise
            return False
        return True

    wait_until("the eviction is accepted", accepted)
