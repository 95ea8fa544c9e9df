"""The operator itself is killed, restarted, upgraded, removed: jobs neither notice nor end with other weights.

All of these disturb the one operator of the cluster: run no other test beside them.
"""

from collections import Counter

import pytest

from support.cluster_drill import (
    Weights,
    assert_recovered,
    drill,
    exact,
    quick,
    wait_until,
)
from support.cluster_job import applied
from support.cluster_nodes import signal_container
from support.cluster_operator import OPERATOR, assert_undisturbed, leader, no_operator, ready, running
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]


def test_a_consumer_killed_while_no_operator_lives_is_replaced_when_one_comes_back(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "oper-none"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        running(job)
        with no_operator(kubectl):
            (victim,) = job.pods("consumer")
            kubectl.run("delete", "pod", victim["metadata"]["name"], "--force", "--grace-period=0")
            wait_until("no consumer", lambda: not job.pods("consumer"))
            assert job.status()["attempt"] == 1, "somebody is at work"
        status = job.complete(300)
    assert status["result"]["weightsSha256"] == weights
    assert (status["attempt"], status["restarts"], exact(status)) == (2, 1, ("True", "NoDeviation"))
    (incident,) = [it for it in status["incidents"] if it["unit"] == "consumers" and it["source"] == "Operator"]
    assert incident["class"] == "PodDeleted"
    assert_recovered(incident)
    assert set(Counter(pods.uids().values()).values()) == {1}, "a pod was made twice under one name"


def test_a_leader_killed_in_the_middle_of_a_recovery_makes_no_second_attempt(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "oper-leader"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        running(job)
        first = leader(kubectl)
        (victim,) = job.pods("consumer")
        kubectl.run("delete", "pod", victim["metadata"]["name"], "--force", "--grace-period=0")
        signal_container(kubectl, first, "KILL")
        status = job.complete(300)
        ready(kubectl)
        restarts = kubectl.get("pod", first)["status"]["containerStatuses"][0]["restartCount"]
    assert restarts >= 1, "the leader was not killed"
    assert status["result"]["weightsSha256"] == weights
    assert (status["attempt"], status["restarts"], exact(status)) == (2, 1, ("True", "NoDeviation"))
    made = Counter(pods.uids("consumer").values())
    assert sorted(it.rpartition("-")[2] for it in made) == ["a1", "a2"]
    assert set(made.values()) == {1}
    (incident,) = [it for it in status["incidents"] if it["unit"] == "consumers" and it["source"] == "Operator"]
    assert_recovered(incident)


def test_a_rollout_restart_of_the_operator_touches_no_pod_of_a_running_job(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "oper-rollout"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        running(job)
        kubectl.run("rollout", "restart", f"deployment/{OPERATOR}")
        ready(kubectl)
        status = job.complete(300)
    assert_undisturbed(status, pods, weights)
