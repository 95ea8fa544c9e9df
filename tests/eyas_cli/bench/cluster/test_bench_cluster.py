"""`eyas bench cluster`: what can be said of it without a cluster."""

from pathlib import Path

import pytest

from eyas_cli.bench.cluster.plain import job_manifest
from eyas_cli.bench.cluster.run import benchmark_cluster, compared
from eyas_contract.errors import UserError
from support.restricted import violations

DRILL = Path(__file__).parents[4] / "examples" / "drill.yaml"


def arm(*, process: float, gang: float) -> dict[str, object]:
    def median(seconds: float) -> dict[str, object]:
        return {"typical": {"nextStepSeconds": seconds, "allRunningSeconds": seconds, "stepsLost": 0}}

    return {"process": median(process), "pod": median(2.0), "gang": median(gang)}


def test_pods_of_the_plain_arm_pass_the_restricted_level() -> None:
    pod = job_manifest("eyas-runtime:0.1.0", step_seconds=0.2, every_steps=10)["spec"]["template"]
    assert violations(pod) == []


def test_the_ratio_is_that_of_a_killed_process_and_nothing_is_divided_by_zero() -> None:
    figures = compared(arm(process=2.0, gang=3.0), arm(process=8.0, gang=12.0))
    assert (figures["ratio"], figures["ratios"]["gang.allRunningSeconds"]) == (0.25, 0.25)
    assert "pod.stepsLost" not in figures["ratios"]


def test_a_job_without_a_gang_of_three_is_refused_by_its_field(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(DRILL.read_text().replace("replicas: 3", "replicas: 2"))
    with pytest.raises(UserError, match=r"spec\.consumers\.replicas"):
        benchmark_cluster(job)
    with pytest.raises(UserError, match="--job"):
        benchmark_cluster(None)
