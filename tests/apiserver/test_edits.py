"""What somebody edits by hand in a job's objects is put back by the next pass; what others add of their own stays."""

from pathlib import Path
from typing import Any, Final

import pytest

from eyas_operator import names
from eyas_operator.edits import PUT_BACK_SECONDS
from eyas_operator.world import seconds_of
from support.kube_apiserver import APPLY, MERGE, KubeApiServer
from support.kube_operator import operator
from support.kube_stage import Stage, play

pytestmark = pytest.mark.apiserver
ROOTS: Final = {
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
}
MINE: Final = {"metadata": {"labels": {"team": "a"}, "annotations": {"note": "seen"}}}
"""What a person adds, and the operator leaves alone."""
OTHER: Final = "00000000-1111-2222-3333-444444444444"
STOLEN: Final[dict[str, Any]] = {"metadata": {"labels": {names.LABEL_JOB_UID: None}}}
EDITS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "a service leads to other pods": ("services", "metadata", {"spec": {"selector": {"app": "mine"}}}),
    "a service leads to older pods": ("services", "metadata", {"spec": {"selector": {names.LABEL_ORDINAL: "7"}}}),
    "a service is opened": ("services", "metadata", {"spec": {"type": "NodePort"}}),
    "a port is renamed": (
        "services",
        "store-master",
        {"spec": {"ports": [{"name": "x", "port": 1, "protocol": "TCP"}]}},
    ),
    "peers wait to be ready": ("services", "peers", {"spec": {"publishNotReadyAddresses": False}}),
    "a policy lets everybody in": ("networkpolicies", "metadata", {"spec": {"ingress": [{}]}}),
    "a policy governs one way": ("networkpolicies", "consumer", {"spec": {"policyTypes": ["Ingress"]}}),
    "a policy governs nobody": ("networkpolicies", "producer", {"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}),
    "a budget forbids all": ("poddisruptionbudgets", "producer", {"spec": {"minAvailable": 2}}),
    "a budget counts by percent": (
        "poddisruptionbudgets",
        "consumer",
        {"spec": {"minAvailable": None, "maxUnavailable": "50%"}},
    ),
    "a label says another job": ("services", "metadata", {"metadata": {"labels": {names.LABEL_JOB_UID: OTHER}}}),
    "a label is gone": ("networkpolicies", "metadata", {"metadata": {"labels": {names.LABEL_JOB_NAME: None}}}),
    "the owner is gone": ("poddisruptionbudgets", "producer", {"metadata": {"ownerReferences": []}}),
    "a service is hidden": ("services", "metadata", STOLEN),
    "a policy is hidden": ("networkpolicies", "metadata", STOLEN),
    "a configuration is labelled otherwise": (
        "configmaps",
        "config-e1-a1",
        {"metadata": {"labels": {names.LABEL_JOB_NAME: "another", "app.kubernetes.io/name": None}}},
    ),
    "a configuration is hidden": ("configmaps", "config-e1-a1", STOLEN),
    "the digest is another": (
        "services",
        "peers",
        {"metadata": {"annotations": {names.ANNOTATION_DIGEST: "0"}}, "spec": {"publishNotReadyAddresses": False}},
    ),
}


def path_of(stage: Stage, plural: str, purpose: str) -> str:
    return f"{ROOTS[plural]}/namespaces/{stage.job.namespace}/{plural}/{stage.job.stem}-{purpose}"


def written(found: dict[str, Any]) -> dict[str, Any]:
    """All of an object but what each write changes."""
    varying = ("resourceVersion", "managedFields", "generation")
    meta = {key: value for key, value in found["metadata"].items() if key not in varying}
    return {key: value for key, value in found.items() if key != "status"} | {"metadata": meta}


def edited(stage: Stage, plural: str, purpose: str, change: dict[str, Any]) -> dict[str, Any]:
    """Somebody's edit, and the object as it is then."""
    found: dict[str, Any] = stage.server.must("PATCH", path_of(stage, plural, purpose), change, content=MERGE)
    return found


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_put_back_within_a_pass_and_then_nothing_more_is_asked(
    jobs: KubeApiServer, tmp_path: Path, edit: str
) -> None:
    plural, purpose, change = EDITS[edit]

    async def scene(stage: Stage) -> None:
        path = path_of(stage, plural, purpose)
        await stage.settle()
        before = written(edited(stage, plural, purpose, MINE))
        assert written(edited(stage, plural, purpose, change)) != before
        await stage.process.cluster.relist(stage.job.namespace)
        await stage.one_pass()
        after = written(stage.server.must("GET", path))
        for part in ("metadata", "spec", "data"):
            assert superset(after.get(part), before.get(part)), part
        await stage.one_pass()
        await stage.process.cluster.relist(stage.job.namespace)
        asked = sum(stage.process.requests.values())
        for _ in range(3):
            await stage.one_pass()
        assert sum(stage.process.requests.values()) == asked

    play(jobs, tmp_path, scene)


def superset(found: Any, wanted: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether `found` says all that `wanted` says; the server keeps what it once filled in, and what others added."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and superset(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(found, list) and all(any(superset(part, item) for part in found) for item in wanted)
    return bool(found == wanted)


def test_an_edit_made_while_no_operator_ran_is_put_back_by_the_next_one(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        edited(stage, "networkpolicies", "metadata", {"spec": {"ingress": [{}]}})
        async with operator(stage.server, tmp_path, stage.clock) as successor:
            await successor.rest(stage.job, stage.kubelet, stage.clock)
            assert successor.requests["PATCH"] == 1
        found = stage.server.must("GET", path_of(stage, "networkpolicies", "metadata"))
        assert {} not in found["spec"]["ingress"]

    play(jobs, tmp_path, scene)


def test_two_who_apply_the_same_fields_make_no_storm(jobs: KubeApiServer, tmp_path: Path) -> None:
    """Another controller that wants a field otherwise gets it for some seconds, time and again."""

    async def scene(stage: Stage) -> None:
        await stage.settle()
        path = f"{path_of(stage, 'services', 'peers')}?fieldManager=mesh&force=true"
        other = {"apiVersion": "v1", "kind": "Service", "spec": {"publishNotReadyAddresses": False}}
        entries = stage.server.must("PATCH", path, other, content=APPLY)["metadata"]["managedFields"]
        applied = next(it["time"] for it in entries if it["manager"] == names.FIELD_MANAGER)
        written = stage.process.writes()
        stage.clock.now = seconds_of(applied)
        await stage.one_pass()
        assert stage.process.writes() == written
        for behind in (-3600.0, PUT_BACK_SECONDS):
            stage.clock.now = seconds_of(applied) + behind
            await stage.one_pass()
            assert stage.process.writes() == written + 1, "a clock that is behind waits for nothing"
            written += 1
            stage.server.must("PATCH", path, other, content=APPLY)

    play(jobs, tmp_path, scene)


def test_an_edit_that_cannot_be_put_back_is_told_and_holds_up_nothing(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.settle()
        # Ours would be a second port of that name.
        ports = [{"name": "http", "port": 1, "protocol": "TCP"}]
        edited(stage, "services", "metadata", {"spec": {"ports": ports}})
        stage.kubelet.kill("producer-0-o1")
        for _ in range(4):
            await stage.one_pass()
        assert "producer-0-o2" in stage.hostnames()
        told = stage.condition("Accepted")
        assert (told["status"], told["reason"]) == ("False", "ClusterRefused")
        assert "Duplicate value" in told["message"]
        edited(stage, "services", "metadata", {"spec": {"ports": [{"name": "mine", "port": 1, "protocol": "TCP"}]}})
        for _ in range(4):
            stage.clock.now += 60
            await stage.settle()
        assert stage.condition("Accepted")["status"] == "True"

    play(jobs, tmp_path, scene)


def test_a_configuration_that_somebody_else_owns_is_not_made_ours(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        name = f"{stage.job.stem}-config-e1-a1"
        stage.server.must("POST", stage.kubelet.path("configmaps"), {"metadata": {"name": name}, "data": {"a": "b"}})
        for _ in range(6):
            await stage.one_pass()
        assert "belongs to somebody else" in stage.condition("Accepted")["message"]
        found = stage.server.must("GET", stage.kubelet.path("configmaps", name))
        assert "labels" not in found["metadata"]

    play(jobs, tmp_path, scene)
