"""Every restart of a child in its pod is told to the metadata service, whatever dies and however often."""

from pathlib import Path

import msgspec
import pytest

from eyas_contract import env, wire
from eyas_contract.config import RecoveryConfig
from eyas_runtime.supervisor.settings import read_settings
from support.metadata_service import ServiceThread, client_of, job_config, running_service
from support.supervised import Supervised, supervised
from support.waiting import kill, wait_until

READY_CHILD = """
mark_ready()
while True:
    signal.pause()
"""
READY_WHEN_TOLD = """
while not (folder / f"go-{restart}").exists():
    time.sleep(0.01)
mark_ready()
while True:
    signal.pause()
"""
QUICK = RecoveryConfig(backoff_base_seconds=0.01, backoff_max_seconds=0.01, restarts_in_place=9)


def variables(folder: Path, *, index: int = 0, ordinal: int = 4) -> dict[str, str]:
    return {
        env.CONFIG_FILE: str(folder / "job.json"),
        env.TOKEN_DIRECTORY: str(folder / "secrets"),
        env.REPLICA_INDEX: str(index),
        env.ORDINAL: str(ordinal),
    }


def incidents(folder: Path, service: ServiceThread) -> tuple[wire.Incident, ...]:
    return client_of(folder, service.port, "reader").status().incidents


def next_life(pod: Supervised, restart: int) -> int:
    return pod.child(restart=restart)[0]


@pytest.mark.parametrize(
    ("role", "index", "unit"),
    [("store-master", 0, "store-master"), ("store-node", 1, "store-node-1"), ("producer", 2, "producer-2")],
)
def test_each_kill_of_a_role_is_one_incident_with_cause_and_successor(
    tmp_path: Path, role: str, index: int, unit: str
) -> None:
    with (
        running_service(tmp_path, job_config(tmp_path, recovery=QUICK)) as service,
        supervised(tmp_path, READY_CHILD, role=role, variables=variables(tmp_path, index=index)) as pod,
    ):
        for restart in range(3):
            kill(next_life(pod, restart))
        next_life(pod, 3)
        wait_until(
            lambda: [bool(it.replaced) for it in incidents(tmp_path, service)] == [True] * 3,
            lambda: f"three incidents with a successor; {incidents(tmp_path, service)}",
        )
        found = incidents(tmp_path, service)
    assert {(it.klass, it.unit, it.serial) for it in found} == {("ChildExited", unit, 4)}
    assert all("SIGKILL" in it.message for it in found)
    assert all(it.detected <= it.replaced for it in found)


def test_a_child_that_dies_before_it_was_ready_is_an_incident_of_its_own(tmp_path: Path) -> None:
    with (
        running_service(tmp_path, job_config(tmp_path, recovery=QUICK)) as service,
        supervised(tmp_path, READY_WHEN_TOLD, role="store-master", variables=variables(tmp_path)) as pod,
    ):
        kill(next_life(pod, 0))
        kill(next_life(pod, 1))
        next_life(pod, 2)
        wait_until(lambda: len(incidents(tmp_path, service)) == 2, "both incidents")
        assert [it.replaced for it in incidents(tmp_path, service)] == [0.0, 0.0], "nobody is ready yet"
        (tmp_path / "go-2").touch()
        wait_until(lambda: all(it.replaced for it in incidents(tmp_path, service)), "the successor of both")


def test_what_happened_while_the_service_was_away_is_told_when_it_is_back(tmp_path: Path) -> None:
    with (
        running_service(tmp_path, job_config(tmp_path, recovery=QUICK)) as service,
        supervised(tmp_path, READY_CHILD, role="metadata", variables=variables(tmp_path)) as pod,
    ):
        service.stop()
        kill(next_life(pod, 0))
        kill(next_life(pod, 1))
        next_life(pod, 2)
        again = ServiceThread(service.settings)
        try:
            wait_until(
                lambda: [bool(it.replaced) for it in incidents(tmp_path, again)] == [True, True],
                lambda: f"both incidents; {incidents(tmp_path, again)}",
            )
            assert {it.unit for it in incidents(tmp_path, again)} == {"metadata"}
        finally:
            again.stop()


def test_a_pod_that_leaves_tells_nothing_because_its_end_is_the_incident(tmp_path: Path) -> None:
    once = RecoveryConfig(backoff_base_seconds=0.01, backoff_max_seconds=0.01, restarts_in_place=1)
    with running_service(tmp_path, job_config(tmp_path, recovery=once)) as service:
        with supervised(tmp_path, READY_CHILD, role="producer", variables=variables(tmp_path)) as pod:
            kill(next_life(pod, 0))
            wait_until(lambda: [bool(it.replaced) for it in incidents(tmp_path, service)] == [True], "the restart")
            kill(next_life(pod, 1))
            assert pod.end() == 137
        assert len(incidents(tmp_path, service)) == 1


def test_ranks_and_pods_without_a_job_have_nobody_to_tell(tmp_path: Path) -> None:
    config = job_config(tmp_path)
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(config))
    environment = variables(tmp_path) | {env.POD_DIRECTORY: str(tmp_path)}
    assert read_settings(["--role", "consumer", "--", "true"], environment).reports is None
    del environment[env.CONFIG_FILE]
    assert read_settings(["--role", "producer", "--", "true"], environment).reports is None
