"""The chart is upgraded, removed, installed again, and its key rotated under a running job, which goes on.

All of these disturb the one operator of the cluster: run no other test beside them.
"""

from typing import Any

import pytest

from support.cluster_drill import (
    Weights,
    condition,
    drill,
    quick,
    uid_of,
    wait_for,
)
from support.cluster_job import applied
from support.cluster_operator import OPERATOR, assert_undisturbed, helm, running, uninstalled, upgrade
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]


def pods_of(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Names of the job's live pods with their UIDs."""
    found = kubectl.items("pods", "-l", f"eyas.dev/job-name={name}")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def test_a_chart_upgrade_with_other_values_touches_no_pod_of_a_running_job(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "oper-upgrade"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        running(job)
        before = pods_of(kubectl, name)
        try:
            # Settings of passes and of new pods alike: an image for roles without a template, and another log level.
            upgrade("settings.resyncSeconds=7", "logLevel=DEBUG", "runtimeImage.digest=sha256:" + "0" * 64)
            found = {it["name"]: it.get("value") for it in operator_env(kubectl)}
            assert found["EYAS_OPERATOR_LOG_LEVEL"] == "DEBUG"
            assert pods_of(kubectl, name) == before
        finally:
            upgrade("settings.resyncSeconds=5", "logLevel=INFO", "runtimeImage.digest=")
        status = job.complete(300)
    assert_undisturbed(status, pods, weights)


def operator_env(kubectl: Kubectl) -> list[dict[str, Any]]:
    """Environment of the operator's container."""
    container = kubectl.get("deployment", OPERATOR)["spec"]["template"]["spec"]["containers"][0]
    found: list[dict[str, Any]] = container["env"]
    return found


def test_a_job_goes_on_while_the_chart_is_uninstalled_and_ends_after_it_is_installed_again(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "oper-uninstall"
    weights = undisturbed(quick())
    with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
        running(job)
        before, job_uid = pods_of(kubectl, name), uid_of(kubectl, name)
        with uninstalled():
            assert "deployed" not in helm("list", "--output", "json")
            assert pods_of(kubectl, name) == before
            assert uid_of(kubectl, name) == job_uid
        status = job.complete(300)
    assert_undisturbed(status, pods, weights)


def test_hazard_31_a_rotated_operator_key_loses_no_status_of_a_running_job(
    kubectl: Kubectl, undisturbed: Weights
) -> None:
    name = "hazard-31"
    weights = undisturbed(quick())
    noted = kubectl.get("secret", f"{OPERATOR}-key")["metadata"]["annotations"]["eyas.dev/key-rotation"]
    with applied(kubectl, drill(name, seconds=0.4)) as job, pod_history(kubectl, name) as pods:
        running(job)
        upgrade(f"operatorKey.rotation={int(noted) + 1}")
        step = job.status()["progress"]["step"]
        later = wait_for(job, "progress after the rotation", lambda it: it["progress"]["step"] > step)
        assert condition(later, "StoreReady")["status"] == "True"
        status = job.complete(300)
    assert_undisturbed(status, pods, weights)
