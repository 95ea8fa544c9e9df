"""The chart is upgraded, removed, installed again, and its key rotated under a running job, which goes on.

All of these disturb the one operator of the cluster: run no other test beside them.
"""

from pathlib import Path
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
from support.cluster_operator import (
    OPERATOR,
    assert_undisturbed,
    earlier_chart,
    helm,
    running,
    uninstalled,
    upgrade,
)
from support.kubectl import Kubectl
from support.pod_history import pod_history

pytestmark = [pytest.mark.e2e, pytest.mark.exclusive]


def pods_of(kubectl: Kubectl, name: str) -> dict[str, str]:
    """Names of the job's live pods with their UIDs."""
    found = kubectl.items("pods", "-l", f"eyas.dev/job-name={name}")
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in found}


def test_a_chart_upgrade_from_an_earlier_version_touches_no_pod_of_a_running_job(
    kubectl: Kubectl, undisturbed: Weights, tmp_path: Path
) -> None:
    """Catches: names, selectors and digests that hang on a version, and a definition that stays the old one.

    Images of the operator and of roles without a template change, and settings of passes.
    """
    name = "oper-upgrade"
    weights = undisturbed(quick())
    try:
        upgrade(chart=earlier_chart(kubectl, tmp_path, "0.0.9", lacks="ttlSecondsAfterFinished"))
        assert versions(kubectl) == ("eyas-operator:0.0.9", "eyas-0.0.9", False)
        with applied(kubectl, drill(name)) as job, pod_history(kubectl, name) as pods:
            running(job)
            before = pods_of(kubectl, name)
            upgrade("settings.resyncSeconds=7", "logLevel=DEBUG")
            assert versions(kubectl) == ("eyas-operator:0.1.0", "eyas-0.1.0", True)
            found = {it["name"]: it.get("value") for it in operator_env(kubectl)}
            assert found["EYAS_OPERATOR_LOG_LEVEL"] == "DEBUG"
            assert pods_of(kubectl, name) == before
            status = job.complete(300)
    finally:
        upgrade("settings.resyncSeconds=5", "logLevel=INFO")
    assert_undisturbed(status, pods, weights)
    (image,) = {pod["spec"]["containers"][0]["image"] for _, pod in pods.versions("metadata")}
    assert image == "eyas-runtime:0.0.9", "no role of the job had an image of the earlier version"


def versions(kubectl: Kubectl) -> tuple[str, str, bool]:
    """(operator's image, the chart's label, whether the definition has the field that the earlier version lacks)."""
    deployment, definition = kubectl.get("deployment", OPERATOR), kubectl.get("crd", "disaggtrainingjobs.eyas.dev")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image, deployment["metadata"]["labels"]["helm.sh/chart"], "ttlSecondsAfterFinished" in schema


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
