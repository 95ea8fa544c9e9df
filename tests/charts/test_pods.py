"""Every pod of the chart passes Pod Security *restricted*, and our own rules beyond it."""

from typing import Any

import pytest

from support.helm import MONITORING, POOL, of_kind, pods, rendered
from support.restricted import violations

pytestmark = pytest.mark.chart
RDMA = {"mooncakePool": {"enabled": True, "protocol": "RDMA"}}


@pytest.mark.parametrize("values", [{}, POOL | MONITORING, {"watchNamespaces": ["*"]}], ids=["default", "pool", "all"])
def test_every_pod_is_restricted(values: dict[str, Any]) -> None:
    found = pods(rendered(values))
    assert len(found) == (4 if values == POOL | MONITORING else 2)
    for name, pod in found.items():
        assert violations(pod, speaks_to_the_api=name == "Deployment/eyas-operator") == [], name


def test_only_the_operator_has_an_account() -> None:
    accounts = {name: pod["spec"].get("serviceAccountName") for name, pod in pods(rendered(POOL)).items()}
    assert {name for name, account in accounts.items() if account} == {"Deployment/eyas-operator"}


def test_lock_memory_is_asked_for_with_rdma_only_and_by_store_nodes_only() -> None:
    for name, pod in pods(rendered(RDMA)).items():
        allowed = frozenset({"IPC_LOCK"}) if name == "Deployment/eyas-pool-node" else frozenset()
        api = name == "Deployment/eyas-operator"
        assert violations(pod, capabilities=allowed, speaks_to_the_api=api) == [], name
    (container,) = of_kind(rendered(RDMA), "Deployment")["eyas-pool-node"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["rdma/hca"] == 1
    assert container["securityContext"]["capabilities"]["add"] == ["IPC_LOCK"]


def test_no_secret_is_in_an_environment_or_a_command_line() -> None:
    for name, pod in pods(rendered(POOL)).items():
        for container in pod["spec"]["containers"]:
            for entry in container.get("env", []):
                assert "secretKeyRef" not in entry.get("valueFrom", {}), name
