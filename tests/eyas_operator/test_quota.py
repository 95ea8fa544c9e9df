"""The sample quota fits the quickstart, and every pod of any job says what a quota asks of it."""

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from eyas_operator import names
from eyas_operator.api.load import load_yaml
from eyas_operator.render import render
from support.operator_world import ENVIRONMENT, SETTINGS, a_body

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
QUOTA, LIMITS = yaml.safe_load_all((EXAMPLES / "policies" / "quota.yaml").read_text())
JOBS: Final = {
    "own pool": a_body(),
    "shared directory": a_body(store={"backend": "SharedDirectory"}),
    "one process": a_body(mode="Colocated", store={"backend": "Memory"}),
    "shared pool": a_body(
        store={
            "backend": "Mooncake",
            "mooncake": {"external": {"masterAddress": "pool:1", "masterMetricsAddress": "pool:2"}},
        }
    ),
}


def quickstart() -> list[dict[str, Any]]:
    return list(render(load_yaml((EXAMPLES / "quickstart.yaml").read_text()), ENVIRONMENT, SETTINGS))


def container(pod: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod["spec"]["containers"][0]["resources"]
    return found


def held(manifests: list[dict[str, Any]]) -> Counter[str]:
    """What a quota counts of these objects."""
    total: Counter[str] = Counter()
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            total["pods"] += 1
            for resource, amount in container(manifest)["requests"].items():
                total[f"requests.{resource}"] += parse_quantity(str(amount))  # type: ignore[assignment]
        elif manifest["kind"] == "PersistentVolumeClaim":
            total["persistentvolumeclaims"] += 1
            storage = manifest["spec"]["resources"]["requests"]["storage"]
            total["requests.storage"] += parse_quantity(storage)  # type: ignore[assignment]
    return total


def test_the_sample_holds_every_pod_of_the_quickstart_twice_and_no_more() -> None:
    counted, hard = held(quickstart()), QUOTA["spec"]["hard"]
    pods = ("pods", "requests.cpu", "requests.memory")
    assert {key: 2 * counted[key] for key in pods} == {key: parse_quantity(str(hard[key])) for key in pods}
    users_claims = 2
    assert counted["persistentvolumeclaims"] + users_claims < Decimal(hard["persistentvolumeclaims"])
    assert counted["requests.storage"] < parse_quantity(hard["requests.storage"])


def test_the_sample_takes_every_container_and_claim_of_the_quickstart() -> None:
    largest = {entry["type"]: entry["max"] for entry in LIMITS["spec"]["limits"]}
    for manifest in quickstart():
        if manifest["kind"] == "Pod":
            limit = parse_quantity(container(manifest)["limits"]["memory"])
            assert limit <= parse_quantity(largest["Container"]["memory"])
        elif manifest["kind"] == "PersistentVolumeClaim":
            storage = parse_quantity(manifest["spec"]["resources"]["requests"]["storage"])
            assert storage <= parse_quantity(largest["PersistentVolumeClaim"]["storage"])


@pytest.mark.parametrize("body", JOBS.values(), ids=JOBS)
def test_every_pod_says_what_a_quota_asks_of_it(body: dict[str, Any]) -> None:
    pods = [it for it in render(body, ENVIRONMENT, SETTINGS) if it["kind"] == "Pod"]
    assert pods
    for pod in pods:
        told = container(pod)
        assert {"cpu", "memory"} <= told["requests"].keys(), pod["metadata"]["labels"][names.LABEL_ROLE]
        assert "memory" in told["limits"]
        assert parse_quantity(told["requests"]["memory"]) <= parse_quantity(told["limits"]["memory"])
