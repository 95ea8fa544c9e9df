"""Consumer supervisors against a real metadata service: one gang, restarted as a whole, drained, fenced."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest

from eyas_contract import env, wire
from eyas_contract.config import RecoveryConfig
from eyas_contract.exits import Exit
from support.metadata_service import (
    FINGERPRINT,
    HOLDER,
    ServiceThread,
    client_of,
    job_config,
    prepared_inputs,
    running_service,
)
from support.supervised import Supervised, supervised
from support.waiting import kill, wait_dead, wait_until

RANK = """
from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import read_config
from eyas_contract.errors import Fenced
config = read_config(os.environ[env.CONFIG_FILE])
client = MetadataClient(config.endpoints.metadata_url, os.environ[env.TOKEN_DIRECTORY] + "/consumer.token")
rank, attempt, process = int(os.environ["RANK"]), int(os.environ[env.ATTEMPT]), os.environ[env.PROCESS]

def main():
    if rank == 0:
        facts = wire.Fingerprint(facts={"device": "cpu"}, digest="f" * 16)
        incarnation = client.reconcile(wire.ReconcileRequest(
            attempt=attempt, world_size=int(os.environ["WORLD_SIZE"]), process=process, fingerprint=facts,
            checkpoint=None)).incarnation
    else:
        incarnation = None
        while incarnation is None:
            request = wire.JoinRequest(attempt=attempt, rank=rank, process=process, wait_seconds=5.0)
            incarnation = client.join(request).incarnation
    (folder / f"joined.{process}").write_text(incarnation)
    mark_ready()
    if (folder / f"exit-once-{rank}").exists():
        code = int((folder / f"exit-once-{rank}").read_text())
        (folder / f"exit-once-{rank}").unlink()
        return code
    if (folder / f"exit-{rank}").exists():
        return int((folder / f"exit-{rank}").read_text())
    ordinal = 0
    while rank == 0:
        order = client.order(wire.OrderRequest(incarnation=incarnation, ordinal=ordinal, wait_seconds=5.0)).order
        if order is not None and order.kind == "stop":
            (folder / "stopped").write_text(order.reason)
            return 75 if order.reason == "drain" else 0
    while not (folder / "stopped").exists():
        time.sleep(0.01)
    return 75

run_role(main)
"""


class Pods:
    """Consumer pods of one attempt beside one service."""

    def __init__(self, folder: Path, service: ServiceThread, pods: list[Supervised], per_pod: int) -> None:
        self.folder, self.service, self.pods, self.per_pod = folder, service, pods, per_pod

    def joined(self, *, restart: int, pod: int = 0) -> str:
        """The incarnation that all ranks of that life joined, once they did."""

        def incarnation() -> str:
            listed = [child for child in self.pods[pod].children() if child["restart"] == restart]
            marks = [self.pods[pod].folder / f"joined.{child['process']}" for child in listed]
            if len(listed) != self.per_pod or not all(mark.exists() and mark.read_text() for mark in marks):
                return ""
            return marks[0].read_text()

        return wait_until(incarnation, lambda: f"life {restart} of pod {pod} to join; {self.pods[pod].log()}")

    def status(self) -> wire.StatusReply:
        return client_of(self.folder, self.service.port, "reader").status()


@contextmanager
def consumers(
    folder: Path,
    *,
    pods: int = 1,
    per_pod: int = 2,
    attempt: int = 1,
    recovery: RecoveryConfig | None = None,
    grace_seconds: int = 30,
) -> Iterator[Pods]:
    config = msgspec.structs.replace(
        job_config(folder, recovery=recovery or RecoveryConfig()), world_size=pods * per_pod
    )
    with running_service(folder, config) as service, ExitStack() as stack:
        started = []
        for index in range(pods):
            place = folder / f"consumer-{index}"
            place.mkdir(exist_ok=True)
            variables = {
                env.CONFIG_FILE: str(folder / "job.json"),
                env.TOKEN_DIRECTORY: str(folder / "secrets"),
                env.REPLICA_INDEX: str(index),
                env.ATTEMPT: str(attempt),
                env.GRACE_SECONDS: str(grace_seconds),
            }
            pod = supervised(place, RANK, role="consumer", processes=per_pod, variables=variables)
            started.append(stack.enter_context(pod))
        yield Pods(folder, service, started, per_pod)


def test_a_dead_rank_restarts_every_rank_of_every_pod_in_a_new_incarnation(tmp_path: Path) -> None:
    with consumers(tmp_path, pods=2) as gang:
        first = gang.joined(restart=0)
        assert gang.joined(restart=0, pod=1) == first
        others = gang.pods[1].child(count=2)
        kill(gang.pods[0].child(count=2)[1])
        second = gang.joined(restart=1)
        assert second != first
        assert gang.joined(restart=1, pod=1) == second
        for pid in others:
            wait_dead(pid, "after its incarnation was closed")
        incidents = gang.status().incidents
    assert [incident.klass for incident in incidents] == ["ChildExited"]
    assert incidents[0].message == "rank 1 ended with SIGKILL"


def test_the_exit_is_known_to_the_service_before_the_next_life_begins(tmp_path: Path) -> None:
    with consumers(tmp_path) as gang:
        first = gang.joined(restart=0)
        gang.service.stop()
        kill(gang.pods[0].child(count=2)[0])
        wait_until(lambda: gang.pods[0].children() == [], "the end of the first life")
        wait_until(lambda: "process 0 ended: SIGKILL" in gang.pods[0].log(), "the supervisor to see it")
        assert (gang.pods[0].pod / "restarts").read_text() == "0"
        again = ServiceThread(gang.service.settings)
        try:
            assert gang.joined(restart=1) != first
            incidents = client_of(tmp_path, again.port, "reader").status().incidents
        finally:
            again.stop()
    assert "ChildExited" in [incident.klass for incident in incidents]


def prepare(gang: Pods) -> None:
    """Hand in the inputs, as the first producer does: from then on there is something to train."""
    producer = client_of(gang.folder, gang.service.port, "producer")
    producer.register(wire.RegisterRequest(holder=HOLDER, fingerprint=FINGERPRINT))
    producer.prepare(wire.PrepareRequest(holder=HOLDER))
    producer.prepare_commit(wire.PrepareCommitRequest(holder=HOLDER, prepared=prepared_inputs([8] * 8)))


def test_sigterm_drains_the_gang_and_leaves_with_75(tmp_path: Path) -> None:
    with consumers(tmp_path) as gang:
        prepare(gang)
        gang.joined(restart=0)
        kill(gang.pods[0].process.pid, signal.SIGTERM)
        assert gang.pods[0].end() == Exit.TEMPORARY
        assert (gang.pods[0].folder / "stopped").read_text() == "drain"
        assert gang.status().incidents == ()


def test_a_gang_without_anything_to_save_is_not_waited_for(tmp_path: Path) -> None:
    with consumers(tmp_path, grace_seconds=3600) as gang:
        gang.joined(restart=0)
        kill(gang.pods[0].process.pid, signal.SIGTERM)
        assert gang.pods[0].end() == 143


def test_ranks_that_do_not_drain_are_killed_before_the_grace_ends(tmp_path: Path) -> None:
    with consumers(tmp_path, grace_seconds=3) as gang:
        prepare(gang)
        gang.joined(restart=0)
        pids = gang.pods[0].child(count=2)
        for pid in pids:
            kill(pid, signal.SIGSTOP)
        kill(gang.pods[0].process.pid, signal.SIGTERM)
        assert gang.pods[0].end() == 137
        for pid in pids:
            wait_dead(pid)


def test_a_stopped_rank_of_a_closed_incarnation_is_killed_and_replaced(tmp_path: Path) -> None:
    with consumers(tmp_path, pods=2) as gang:
        gang.joined(restart=0)
        gang.joined(restart=0, pod=1)
        [stopped, _other] = gang.pods[1].child(count=2)
        kill(stopped, signal.SIGSTOP)
        kill(gang.pods[0].child(count=2)[0])
        gang.joined(restart=1, pod=1)
        wait_dead(stopped)


def test_a_pod_of_an_older_attempt_leaves_with_86(tmp_path: Path) -> None:
    with consumers(tmp_path, per_pod=1) as gang:
        gang.joined(restart=0)
        request = wire.ReconcileRequest(
            attempt=2, world_size=1, process="e" * 32, fingerprint=FINGERPRINT, checkpoint=None
        )
        client_of(tmp_path, gang.service.port, "consumer").reconcile(request)
        assert gang.pods[0].end() == Exit.FENCED
        told = gang.pods[0].termination()
    assert (told["exit_code"], told["klass"]) == (86, "Fenced")


def test_a_rank_that_says_fenced_stays_in_the_pod_while_its_attempt_is_the_newest(tmp_path: Path) -> None:
    (tmp_path / "consumer-0").mkdir()
    (tmp_path / "consumer-0" / "exit-once-0").write_text("86")
    with consumers(tmp_path, per_pod=1) as gang:
        gang.joined(restart=1)
        assert "process 0 ended: exit code 86" in gang.pods[0].log()
        assert gang.pods[0].process.poll() is None


def test_the_budget_of_a_gang_that_never_advances_is_spent(tmp_path: Path) -> None:
    (tmp_path / "consumer-0").mkdir()
    (tmp_path / "consumer-0" / "exit-1").write_text("9")
    recovery = RecoveryConfig(restarts_in_place=2, backoff_base_seconds=0.01, backoff_max_seconds=0.01)
    with consumers(tmp_path, recovery=recovery) as gang:
        assert gang.pods[0].end() == 9
        told = gang.pods[0].termination()
    assert "2 restarts in place without progress" in str(told["message"])


@pytest.mark.parametrize("code", [0, 78])
def test_the_whole_pod_leaves_with_the_word_of_its_ranks(tmp_path: Path, code: int) -> None:
    (tmp_path / "consumer-0").mkdir()
    for rank in (0, 1):
        (tmp_path / "consumer-0" / f"exit-{rank}").write_text(str(code))
    with consumers(tmp_path) as gang:
        assert gang.pods[0].end() == code


def test_a_wrong_token_is_a_configuration_error(tmp_path: Path) -> None:
    wrong, place = tmp_path / "wrong", tmp_path / "consumer"
    for folder in (wrong, place):
        folder.mkdir()
    (wrong / env.TOKEN_CONSUMER).write_text("w" * 43)
    with running_service(tmp_path):
        variables = {
            env.CONFIG_FILE: str(tmp_path / "job.json"),
            env.TOKEN_DIRECTORY: str(wrong),
            env.ATTEMPT: "1",
        }
        script = "while True: signal.pause()\n"
        with supervised(place, script, role="consumer", variables=variables) as pod:
            assert pod.end() == Exit.CONFIG
            assert pod.termination()["klass"] == "Unauthenticated"
