"""Whole local runs: real process groups, a real metadata service, kills from outside."""

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from eyas_contract.env import METADATA_PORT
from eyas_operator.backends.local import processes
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.names import Role
from support.local_runs import LocalRun, interrupt, local_run_of, prepare, read
from support.waiting import alive, wait_dead, wait_until


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    prepare(tmp_path)
    return tmp_path


def live_pids(run: LocalRun) -> set[int]:
    return set(processes.marked(run.uid()))


@pytest.mark.slow
def test_a_killed_runner_leaves_no_process(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        pids = live_pids(run)
        assert len(pids) >= 7
        run.kill()
        for pid in pids:
            wait_dead(pid, "after the runner was killed")


@pytest.mark.slow
def test_processes_json_names_every_live_process_and_no_other(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        wait_until(lambda: {it["pid"] for it in run.processes()} == live_pids(run), "the list to be the truth")
        roles = sorted((it["role"], it["index"]) for it in run.processes())
        assert roles == [
            ("consumer", 0),
            ("consumer", 1),
            ("consumer-supervisor", 0),
            ("metadata", 0),
            ("metadata-supervisor", 0),
            ("producer", 0),
            ("producer-supervisor", 0),
        ]
        before = run.of("producer")
        os.kill(before["pid"], signal.SIGKILL)
        after = run.another("producer", before)
        assert alive(after["pid"])
        assert after["attempt"] == before["attempt"]
        assert run.of("producer-supervisor")["pid"] in live_pids(run)


@pytest.mark.slow
def test_a_killed_pod_is_replaced_under_a_higher_number(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        supervisor, child = run.of("producer-supervisor"), run.of("producer")
        os.kill(supervisor["pid"], signal.SIGKILL)
        wait_dead(child["pid"], "with its supervisor")
        again = run.another("producer", child)
        assert again["attempt"] == child["attempt"] + 1
        assert again["address"] == child["address"]


@pytest.mark.slow
def test_the_next_runner_goes_on_where_a_killed_one_stopped(run_folder: Path) -> None:
    with local_run_of(run_folder) as first:
        first.all_ready()
        uid, attempt = first.uid(), first.of("consumer")["attempt"]
        tokens = {path: path.read_bytes() for path in (first.dir / "secrets").glob("*/*.token")}
        claim = (first.dir / "claims" / "metadata-e1" / ".eyas-claim.json").read_bytes()
        first.kill()
    assert len(tokens) >= 3
    with local_run_of(run_folder) as second:
        again = wait_until(
            lambda: (it := second.find("consumer")) and it["attempt"] > attempt and it, "the gang's next attempt"
        )
        assert again["attempt"] == attempt + 1
        second.all_ready()
        assert second.uid() == uid
        assert {path: path.read_bytes() for path in tokens} == tokens
        assert (second.dir / "claims" / "metadata-e1" / ".eyas-claim.json").read_bytes() == claim
        status = second.status()
        assert status["storeEpoch"] == 1
        assert {incident["class"] for incident in status["incidents"]} == {"Disrupted"}
        assert not any(unit["restartsWithoutProgress"] for unit in status["units"])


@pytest.mark.slow
def test_a_second_runner_of_one_folder_is_refused(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.of("metadata")
        with local_run_of_again(run_folder) as second:
            assert second.wait(timeout=60) == 75
        assert f"is in use by another runner, process {run.runner.pid}" in run.output()
        assert run.runner.poll() is None


def local_run_of_again(folder: Path) -> "subprocess.Popen[bytes]":
    with open(folder / "runner.log", "ab") as log:
        command = [sys.executable, str(folder / "runner.py"), str(folder / "job.yaml"), str(folder / "run")]
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


@pytest.mark.slow
def test_a_taken_port_is_one_sentence_with_address_and_port(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        wait_until(run.uid, "the run's identity")
        run.kill()
        uid = run.uid()
    address = address_of(uid.replace("-", ""), Role.METADATA, 0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((address, METADATA_PORT))
        other.listen()
        with local_run_of(run_folder) as run:
            assert run.runner.wait(timeout=120) == 78
        assert f"{address}:{METADATA_PORT} is taken by process {os.getpid()}" in run.output()
    assert processes.marked(uid) == []


@pytest.mark.slow
def test_a_deleted_metadata_claim_begins_the_next_store_epoch(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        before = run.of("metadata")
        shutil.rmtree(run.dir / "claims" / "metadata-e1")
        run.another("metadata", before)
        wait_until(lambda: run.status()["storeEpoch"] == 2, "the next store epoch")
        assert (run.dir / "claims" / "metadata-e2" / ".eyas-claim.json").exists()
        assert not (run.dir / "claims" / "metadata-e1").exists()
        run.all_ready()


@pytest.mark.slow
def test_a_pod_over_its_memory_limit_is_oom_killed_and_the_second_time_fails_the_job(tmp_path: Path) -> None:
    limit = "{containers: [{resources: {limits: {memory: 200Mi}}}]}"
    prepare(tmp_path, producers=f"{{replicas: 1, template: {{spec: {limit}}}}}")
    (tmp_path / "eat-producer").touch()
    with local_run_of(tmp_path) as run:
        assert run.runner.wait(timeout=120) == 1
        status = run.status()
        result = read(run.dir / "result.json")
    assert [incident["class"] for incident in status["incidents"] if incident["unit"] == "producer-0"] == [
        "OutOfMemory",
        "OutOfMemory",
    ]
    assert result["state"] == "Failed"
    assert result["reason"].startswith("OutOfMemory: ")
    assert read(run.dir / "processes.json") == []


@pytest.mark.slow
def test_two_runs_side_by_side_do_not_meet(tmp_path: Path) -> None:
    for name in ("one", "two"):
        prepare(tmp_path / name, name=name)
    with local_run_of(tmp_path / "one") as one, local_run_of(tmp_path / "two") as two:
        one.all_ready()
        two.all_ready()
        assert not {it["address"] for it in one.processes()} & {it["address"] for it in two.processes()}
        gone = live_pids(one)
        one.kill()
        for pid in gone:
            wait_dead(pid)
        two.all_ready()
        assert two.runner.poll() is None


@pytest.mark.slow
def test_a_second_signal_ends_everything_at_once_and_the_run_can_be_resumed(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        pids = live_pids(run)
        interrupt(run)
        assert run.runner.wait(timeout=60) == 75
        assert not any(alive(pid) for pid in pids)
        assert run.processes() == []
    with local_run_of(run_folder) as run:
        run.all_ready()


@pytest.mark.slow
def test_a_leftover_of_an_earlier_runner_is_killed_and_a_stranger_is_not(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        wait_until(run.uid, "the run's identity")
        run.kill()
        uid = run.uid()
    leftover = subprocess.Popen(["sleep", "1000"], env=os.environ | {processes.RUN_MARKER: uid})
    stranger = subprocess.Popen(["sleep", "1000"], env=os.environ | {processes.RUN_MARKER: f"{uid}0"})
    try:
        with local_run_of(run_folder) as run:
            assert leftover.wait(timeout=60) == -signal.SIGKILL
            run.of("metadata")
            assert stranger.poll() is None
    finally:
        for process in (leftover, stranger):
            process.kill()
            process.wait()


@pytest.mark.slow
def test_tokens_are_files_of_this_user_and_each_role_has_only_its_own(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        run.all_ready()
        for path in (run.dir / "secrets").rglob("*"):
            if path.is_file():
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        pods = {path.name.split("-", 2)[2].rsplit("-", 1)[0]: path for path in (run.dir / "pods").iterdir()}
        held = {name: {token.name for token in (path / "tokens").iterdir()} for name, path in pods.items()}
    assert held["producer-0"] == {"producer.token", "store.token"}
    assert held["consumer-0"] == {"consumer.token", "store.token"}
    assert {"receipt.key", "reader.token"} <= held["metadata-e1"]


@pytest.mark.parametrize(("reason", "code"), [("ConfigError", 78), ("RestartBudgetExhausted", 1)])
def test_a_mistake_that_only_a_pod_could_find_is_code_78(run_folder: Path, reason: str, code: int) -> None:
    with local_run_of(run_folder) as run:
        wait_until(run.uid, "the run's identity")
        run.kill()
    shutil.rmtree(run.dir / "pods")
    failed = {"type": "Failed", "status": "True", "reason": reason, "message": "producer-0: no prompts",
              "lastTransitionTime": "", "observedGeneration": 1}  # fmt: skip
    (run.dir / "status.json").write_text(json.dumps({"stage": "Ended", "state": "Failed", "conditions": [failed]}))
    with local_run_of(run_folder) as run:
        assert run.runner.wait(timeout=60) == code
    assert read(run.dir / "result.json")["reason"] == f"{reason}: producer-0: no prompts"


def test_an_ended_run_says_so_and_starts_nothing(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        wait_until(run.uid, "the run's identity")
        run.kill()
    shutil.rmtree(run.dir / "pods")
    ended = {
        "stage": "Ended",
        "state": "Complete",
        "conditions": [
            {"type": kind, "status": "True", "reason": "Yes", "message": "", "lastTransitionTime": "",
             "observedGeneration": 1}
            for kind in ("Complete", "Exact")
        ],
        "result": {"steps": 3, "samplesTrained": 12, "samplesEvaluated": 6, "samplesDead": 1,
                   "checkpointDirectory": "c", "weightsSha256": "ab", "exact": True, "incidents": 0, "restarts": 0},
    }  # fmt: skip
    (run.dir / "status.json").write_text(json.dumps(ended))
    with local_run_of(run_folder) as run:
        assert run.runner.wait(timeout=60) == 0
    result = read(run.dir / "result.json")
    assert {key: result[key] for key in ("state", "exact", "steps", "weightsSha256", "samplesTrained")} == {
        "state": "Complete", "exact": True, "steps": 3, "weightsSha256": "ab", "samplesTrained": 12,
    }  # fmt: skip
    assert (result["samplesDeadLettered"], result["samplesEvaluated"]) == (1, 6)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(("model: model", "model: nowhere"), "spec.target.model: there is no ", id="no model"),
        pytest.param(("[prompts.jsonl]", "[no.jsonl]"), "spec.data.prompts[0]: there is no ", id="no prompts"),
        pytest.param(("replicas: 1}", "replicas: 0}"), "spec.producers.replicas: must be at least 1", id="bad field"),
        pytest.param(
            ("  consumers:", "  volumes: {models: {claimName: m}}\n  consumers:"),
            "spec.volumes.models: no folder is given for it; add --volume models=FOLDER",
            id="no volume",
        ),
    ],
)
def test_a_job_that_cannot_work_here_is_refused_with_field_and_code_78(
    run_folder: Path, change: tuple[str, str], sentence: str
) -> None:
    job = run_folder / "job.yaml"
    job.write_text(job.read_text().replace(*change))
    with local_run_of(run_folder) as run:
        assert run.runner.wait(timeout=60) == 78
    assert sentence in run.output()
    assert run.processes() == []


def test_a_folder_holds_the_run_of_one_job_only(run_folder: Path) -> None:
    with local_run_of(run_folder) as run:
        wait_until(run.uid, "the run's identity")
        run.kill()
    prepare(run_folder, name="other")
    with local_run_of(run_folder) as run:
        assert run.runner.wait(timeout=60) == 78
    assert "holds the run of job job; use another folder for other" in run.output()
