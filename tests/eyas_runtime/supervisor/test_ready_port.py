"""Claims about readiness as a port, as a kubelet's TCP probe meets it."""

import os
import socket
from pathlib import Path

from eyas_contract import env
from support.metadata_service import free_port
from support.supervised import supervised
from support.waiting import kill, wait_until

READY_WHEN_ASKED = """
while not (folder / f"go-{restart}").exists():
    time.sleep(0.01)
mark_ready()
while True: signal.pause()
"""


def answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5.0):
            return True
    except ConnectionRefusedError:
        return False


def test_the_port_is_open_exactly_while_the_pod_is_ready(tmp_path: Path) -> None:
    port = free_port()
    variables = {env.READY_PORT: str(port), env.HOST_ADDRESS: "127.0.0.1"}
    with supervised(tmp_path, "import time\n" + READY_WHEN_ASKED, variables=variables) as pod:
        [child] = pod.child()
        assert not answers(port)
        (tmp_path / "go-0").touch()
        wait_until(lambda: answers(port), "the port to open")
        kill(child)
        wait_until(lambda: not answers(port), "the port to close with the process that was ready")
        pod.child(restart=1)
        assert not answers(port)
        (tmp_path / "go-1").touch()
        wait_until(lambda: answers(port), "the port to open again")


def test_probes_that_come_for_ever_are_all_answered(tmp_path: Path) -> None:
    port = free_port()
    variables = {env.READY_PORT: str(port), env.HOST_ADDRESS: "127.0.0.1"}
    with supervised(tmp_path, "mark_ready()\nwhile True: signal.pause()\n", variables=variables) as pod:
        wait_until(lambda: answers(port), "the port to open")
        # Many more than wait in a listener's queue: nobody may be left there, and no descriptor.
        assert all(answers(port) for _ in range(300))
        wait_until(lambda: answers(port) and len(os.listdir(f"/proc/{pod.process.pid}/fd")) < 30, "no leak")


def test_a_taken_port_is_said_and_does_not_end_the_pod(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        variables = {env.READY_PORT: str(port), env.HOST_ADDRESS: "127.0.0.1"}
        with supervised(tmp_path, "mark_ready()\nwhile True: signal.pause()\n", variables=variables) as pod:
            wait_until(lambda: "to say that the pod is ready: Address already in use" in pod.log(), "the sentence")
            assert pod.process.poll() is None
