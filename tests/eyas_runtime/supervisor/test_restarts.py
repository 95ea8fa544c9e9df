"""A supervisor around real processes: restarts in place, exit codes, budget, signals, orphans."""

import os
import signal
import sys
from pathlib import Path

import pytest

from eyas_contract import env
from eyas_contract.exits import Exit
from support.supervised import recovery, supervised
from support.waiting import alive, kill, wait_dead, wait_until

FOREVER = "mark_ready()\nwhile True: signal.pause()\n"


def test_a_killed_child_is_started_again_in_place(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER) as pod:
        [first] = pod.child()
        kill(first)
        [second] = pod.child(restart=1)
        assert second != first
        assert pod.process.poll() is None
        wait_dead(first)


def test_every_process_gets_a_nonce_of_its_own(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER, processes=2) as pod:
        pod.child(count=2)
        first = {str(child["process"]) for child in pod.children()}
        kill(int(str(pod.children()[0]["pid"])))
        pod.child(restart=1, count=2)
        second = {str(child["process"]) for child in pod.children()}
        assert len(first | second) == 4
        assert all(len(nonce) == 32 for nonce in first | second)


def test_siblings_are_restarted_together(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER, processes=3) as pod:
        before = pod.child(count=3)
        kill(before[1])
        after = pod.child(restart=1, count=3)
        assert not set(before) & set(after)
        for pid in before:
            wait_dead(pid)


@pytest.mark.parametrize("code", [0, 65, 75, 78, 86])
def test_codes_that_nobody_repairs_in_place_end_the_pod(tmp_path: Path, code: int) -> None:
    with supervised(tmp_path, f"sys.exit({code})") as pod:
        assert pod.end() == code
    assert (tmp_path / "pod" / "restarts").read_text() == "0"


def test_the_pod_leaves_with_the_childs_code_when_the_budget_is_spent(tmp_path: Path) -> None:
    variables = recovery(tmp_path, restarts_in_place=2, backoff_base_seconds=0.01, backoff_max_seconds=0.01)
    with supervised(tmp_path, "sys.exit(3)", variables=variables) as pod:
        assert pod.end() == 3
    assert (tmp_path / "pod" / "restarts").read_text() == "2"
    assert pod.termination()["exit_code"] == 3
    assert "2 restarts in place without progress" in str(pod.termination()["message"])


def test_the_childs_own_sentence_becomes_the_pods_termination_message(tmp_path: Path) -> None:
    script = """
from eyas_contract.errors import UserError
def main():
    raise UserError("spec.data.prompts[0]: there is no file /x")
run_role(main)
"""
    with supervised(tmp_path, script) as pod:
        assert pod.end() == Exit.CONFIG
    told = pod.termination()
    assert (told["exit_code"], told["klass"]) == (78, "UserError")
    assert told["message"] == "spec.data.prompts[0]: there is no file /x"
    assert "spec.data.prompts[0]: there is no file /x" in pod.log()


def test_an_old_sentence_does_not_explain_a_new_death(tmp_path: Path) -> None:
    variables = recovery(tmp_path, restarts_in_place=1)
    script = """
from eyas_contract.errors import Corrupt
def main():
    if restart == 0:
        raise Corrupt("an old story")
    os.kill(os.getpid(), signal.SIGKILL)
run_role(main)
"""
    with supervised(tmp_path, script, variables=variables) as pod:
        assert pod.end() == 137
    assert "SIGKILL" in str(pod.termination()["message"])


def test_sigterm_is_forwarded_and_nothing_restarts(tmp_path: Path) -> None:
    script = """
def stop(*_):
    (folder / "told").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
mark_ready()
while True: signal.pause()
"""
    with supervised(tmp_path, script) as pod:
        wait_until((tmp_path / "pod" / env.READY_FILE).exists, "readiness")
        kill(pod.process.pid, signal.SIGTERM)
        assert pod.end() == Exit.TEMPORARY
    assert (tmp_path / "told").exists()


def test_a_child_that_ignores_sigterm_is_killed_before_the_grace_ends(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOREVER
    with supervised(tmp_path, script, variables={env.GRACE_SECONDS: "0"}) as pod:
        wait_until((tmp_path / "pod" / env.READY_FILE).exists, "readiness")
        kill(pod.process.pid, signal.SIGTERM)
        assert pod.end() == 137


def test_a_stop_during_the_pause_leaves_at_once(tmp_path: Path) -> None:
    variables = recovery(tmp_path, backoff_base_seconds=3600.0, backoff_max_seconds=3600.0)
    with supervised(tmp_path, "sys.exit(1)", variables=variables) as pod:
        wait_until(lambda: "in 3600 s" in pod.log(), "the second restart's pause")
        kill(pod.process.pid, signal.SIGTERM)
        assert pod.end() == Exit.TEMPORARY


def test_readiness_goes_with_the_process_that_claimed_it(tmp_path: Path) -> None:
    ready = tmp_path / "pod" / env.READY_FILE
    script = "if restart == 0:\n    mark_ready()\nwhile True: signal.pause()\n"
    with supervised(tmp_path, script) as pod:
        wait_until(ready.exists, "readiness")
        kill(pod.child()[0])
        pod.child(restart=1)
        assert not ready.exists()


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER, processes=2) as pod:
        pids = pod.child(count=2)
        kill(pod.process.pid)
        for pid in pids:
            wait_dead(pid, "after its supervisor was killed")


def test_a_foreign_program_dies_with_a_killed_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eyas_runtime.process", "--", "sleep", "1000"]
    with supervised(tmp_path, "", command=command) as pod:
        pid = int(str(wait_until(pod.children, "the child")[0]["pid"]))
        wait_until(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sleep", "the program")
        kill(pod.process.pid)
        wait_dead(pid)


def test_a_missing_program_is_one_sentence_and_a_config_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eyas_runtime.process", "--", "no-such-program-of-ours"]
    with supervised(tmp_path, "", command=command) as pod:
        assert pod.end() == Exit.CONFIG
    assert "there is no such program on PATH" in str(pod.termination()["message"])


def test_orphans_do_not_outlive_the_life_they_belong_to(tmp_path: Path) -> None:
    script = """
import subprocess
helper = subprocess.Popen(["sleep", "1000"])
(folder / f"helper.{restart}").write_text(str(helper.pid))
while True: signal.pause()
"""
    with supervised(tmp_path, script) as pod:
        [first] = pod.child()
        mark = tmp_path / "helper.0"
        helper = int(wait_until(lambda: mark.read_text() if mark.exists() else "", "the helper"))
        kill(first)
        pod.child(restart=1)
        assert not alive(helper)


def test_adopted_zombies_are_reaped(tmp_path: Path) -> None:
    script = """
if os.fork() == 0:
    grandchild = os.fork()
    if grandchild == 0:
        time.sleep(0.05)
        os._exit(0)
    (folder / "grandchild").write_text(str(grandchild))
    os._exit(0)
os.wait()
while True: signal.pause()
"""
    with supervised(tmp_path, script) as pod:
        pod.child()
        mark = tmp_path / "grandchild"
        grandchild = int(wait_until(lambda: mark.read_text() if mark.exists() else "", "the grandchild"))
        wait_until(lambda: not Path(f"/proc/{grandchild}").exists(), "the reaping of the grandchild")
        assert pod.process.poll() is None


def test_restart_numbers_go_on_when_the_supervisor_itself_was_killed(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER) as pod:
        kill(pod.child()[0])
        pod.child(restart=1)
        kill(pod.process.pid)
    with supervised(tmp_path, FOREVER) as pod:
        pod.child(restart=2)


def test_the_list_of_children_names_exactly_the_live_ones(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER, processes=2) as pod:
        pids = pod.child(count=2)
        assert [child["pid"] for child in pod.children()] == pids
        kill(pod.process.pid, signal.SIGTERM)
        assert pod.end() == 143
    assert pod.children() == []


def test_no_token_reaches_a_command_line_or_the_environment_of_a_child(tmp_path: Path) -> None:
    token = "a-very-secret-token"  # noqa: S105
    (tmp_path / env.TOKEN_PRODUCER).write_text(token)
    with supervised(tmp_path, FOREVER, variables={env.TOKEN_DIRECTORY: str(tmp_path)}) as pod:
        for pid in (*pod.child(), pod.process.pid):
            assert token.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            assert token.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_supervisor_imports_no_tensor_library(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER) as pod:
        pod.child()
        maps = Path(f"/proc/{pod.process.pid}/maps").read_text()
    assert not any(name in maps for name in ("torch", "numpy", "mooncake"))


def test_a_supervisor_whose_parent_is_gone_before_it_starts_does_not_run(tmp_path: Path) -> None:
    with supervised(tmp_path, FOREVER, variables={env.PARENT_PID: str(os.getpid() + 1_000_000)}) as pod:
        assert pod.end() == -signal.SIGKILL
    assert pod.children() == []
