"""From a real process that aborts in native code to the incident and the strike: nothing between them is played."""

from pathlib import Path

import pytest

from support.model_cluster import ModelCluster
from support.supervised import recovery, supervised

NCCL = (
    "terminate called after throwing an instance of 'c10::DistBackendError'\\n"
    "  what():  [Rank 1] NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error\\n"
    "ncclUnhandledCudaError: Call to CUDA function failed.\\n"
)


def gang_after(folder: Path, script: str) -> ModelCluster:
    """A gang whose second member ended as a supervisor does whose child ran `script`."""
    with supervised(folder, script, variables=recovery(folder, restarts_in_place=0)) as pod:
        code = pod.end()
    cluster = ModelCluster().started()
    cluster.end("consumer-1-a1", code, message=(folder / "termination.json").read_text())
    cluster.reconcile()
    assert cluster.status.attempt == 2
    return cluster


@pytest.mark.parametrize("death", ["os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)", "os._exit(1)"])
def test_rank_that_dies_of_its_device_strikes_the_node_and_the_incident_says_why(tmp_path: Path, death: str) -> None:
    cluster = gang_after(tmp_path, f'os.write(2, b"{NCCL}")\n{death}')
    (incident,) = cluster.status.incidents
    assert (incident.klass, incident.counted) == ("Hardware", True)
    assert "what():  [Rank 1] NCCL error in:".replace("  ", " ") in incident.message
    assert "ncclUnhandledCudaError: Call to CUDA function failed." in incident.message
    assert [entry.strikes for entry in cluster.status.strikes] == [1]


@pytest.mark.parametrize("script", ["raise ValueError('a NCCL error in a prompt')", "os.abort()", f"print({NCCL!r})"])
def test_rank_that_dies_of_itself_strikes_no_node(tmp_path: Path, script: str) -> None:
    cluster = gang_after(tmp_path, f"{script}\nsys.exit(1)")
    (incident,) = cluster.status.incidents
    assert incident.klass == "Crash"
    assert cluster.status.strikes == ()
