"""A claim that a job only names is looked at on the API server before any pod is made for it."""

from pathlib import Path
from typing import Any

import pytest

from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_stage import STARTED, Stage, play

pytestmark = pytest.mark.apiserver
VOLUMES = {
    "models": {"claimName": "models"},
    "data": {"claimName": "data"},
    "checkpoints": {"claimName": "theirs"},
}


def make(stage: Stage, mode: str) -> None:
    claim: dict[str, Any] = {"metadata": {"name": "theirs"}, "spec": {"accessModes": [mode]}}
    claim["spec"]["resources"] = {"requests": {"storage": "1Gi"}}
    stage.server.must("POST", stage.kubelet.path("persistentvolumeclaims"), claim)


def test_claim_of_one_node_is_refused_until_another_one_has_its_name(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        make(stage, "ReadWriteOnce")
        for _ in range(3):
            await stage.one_pass()
        told = stage.condition("Accepted")
        assert (told["status"], told["reason"]) == ("False", "CheckpointsNotShared")
        assert "theirs is ReadWriteOnce, and 2 consumers need ReadWriteMany" in told["message"]
        await stage.process.cluster.relist(stage.job.namespace)
        for _ in range(3):
            await stage.one_pass()
            assert stage.condition("Accepted") == told, "a glimpse shows no claim, and lifts no refusal"
        assert stage.hostnames() == []
        # Nobody else is here who would let it go.
        path = stage.kubelet.path("persistentvolumeclaims", "theirs")
        stage.server.must("PATCH", path, {"metadata": {"finalizers": None}}, content=MERGE)
        stage.server.must("DELETE", path)
        make(stage, "ReadWriteMany")
        await stage.settle()
        assert stage.condition("Accepted")["status"] == "True"
        assert stage.hostnames() == STARTED

    play(jobs, tmp_path, scene, volumes=VOLUMES)


def test_job_at_rest_does_not_ask_for_its_claim_again(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        make(stage, "ReadWriteMany")
        await stage.settle()
        await stage.process.cluster.relist(stage.job.namespace)
        asked = sum(stage.process.requests.values())
        for _ in range(5):
            await stage.one_pass()
        assert sum(stage.process.requests.values()) == asked

    play(jobs, tmp_path, scene, volumes=VOLUMES)
