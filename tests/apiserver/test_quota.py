"""The sample quota on a real API server: the quickstart runs under it, and who asks for more is told so."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from eyas_operator.api.load import load_yaml
from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_operator import JOBS
from support.kube_stage import Stage, play

pytestmark = pytest.mark.apiserver
EXAMPLES: Final = Path(__file__).parents[2] / "examples"
QUICKSTART: Final = load_yaml((EXAMPLES / "quickstart.yaml").read_text())


def governed(stage: Stage) -> None:
    """Put the sample into the namespace, and count for the controller, which is not here: nothing is used yet."""
    root = f"/api/v1/namespaces/{stage.job.namespace}"
    for manifest in yaml.safe_load_all((EXAMPLES / "policies" / "quota.yaml").read_text()):
        stage.server.must("POST", f"{root}/{manifest['kind'].lower()}s?fieldValidation=Strict", manifest)
    hard = stage.server.must("GET", f"{root}/resourcequotas/eyas-jobs")["spec"]["hard"]
    # The job was there before its quota.
    used = dict.fromkeys(hard, "0") | {"count/disaggtrainingjobs.eyas.dev": "1"}
    status = {"status": {"hard": hard, "used": used}}
    stage.server.must("PATCH", f"{root}/resourcequotas/eyas-jobs/status", status, content=MERGE)


def used(stage: Stage) -> dict[str, Decimal]:
    path = f"/api/v1/namespaces/{stage.job.namespace}/resourcequotas/eyas-jobs"
    return {key: parse_quantity(value) for key, value in stage.server.must("GET", path)["status"]["used"].items()}


def test_the_quickstart_runs_under_the_sample_and_its_pods_may_be_made_again(
    jobs: KubeApiServer, tmp_path: Path
) -> None:
    async def scene(stage: Stage) -> None:
        governed(stage)
        await stage.settle()
        assert stage.condition("Accepted")["status"] == "True"
        pods = stage.kubelet.pods()
        assert len(pods) == 6
        assert used(stage)["pods"] == 6
        assert used(stage)["requests.memory"] == parse_quantity("5.5Gi")
        for pod in pods:
            # Nobody counts down here: as if every predecessor still ended.
            stage.kubelet.kill(pod["spec"]["hostname"])
        await stage.settle()
        assert len(stage.kubelet.pods()) == 6
        assert used(stage)["pods"] == 12
        assert stage.condition("Accepted")["status"] == "True"

    play(jobs, tmp_path, scene, **QUICKSTART["spec"])


def larger() -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"memory": "12Gi"}}}]}}
    return QUICKSTART["spec"] | {"consumers": {"replicas": 1, "template": template}}


def test_a_job_that_asks_for_more_is_told_by_the_quotas_own_sentence(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        governed(stage)
        for _ in range(8):
            await stage.one_pass()
            stage.kubelet.work()
        told = stage.condition("Accepted")
        assert (told["status"], told["reason"]) == ("False", "ClusterRefused")
        assert "exceeded quota: eyas-jobs, requested: requests.memory=12Gi" in told["message"]

    play(jobs, tmp_path, scene, **larger())


def test_a_second_job_is_refused_to_whoever_creates_it(jobs: KubeApiServer, tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        governed(stage)
        body = QUICKSTART | {"metadata": {"name": "second"}}
        answer = stage.server.ask("POST", JOBS.format(stage.job.namespace), body)
        assert answer.status == 403
        assert "exceeded quota: eyas-jobs, requested: count/disaggtrainingjobs.eyas.dev=1" in answer.message

    play(jobs, tmp_path, scene)
