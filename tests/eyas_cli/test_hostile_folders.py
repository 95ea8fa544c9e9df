"""Commands on what is no run, or a damaged one: one clear sentence, the exit code of the table, never a traceback."""

import errno
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from eyas_cli.checks import Check
from eyas_cli.doctor import run_folder
from eyas_cli.machine import of_machine
from eyas_cli.main import main
from eyas_cli.runs import Run
from eyas_contract.exits import Exit
from eyas_operator.api.status import JobStatus, Stage, dump_status
from eyas_runtime.checkpoint.names import MANIFEST, RECEIPT
from eyas_runtime.checkpoint.store import CheckpointRoot
from support.checkpoints import JOB, make_root
from support.drafts import exported, save_draft, tiny_draft
from support.tiny_target import make_tiny_target, write_tiny_prompts

RESULT = {"state": "Complete", "steps": 3, "weightsSha256": "ab" * 32}
Command = Callable[[Path], list[str]]
COMMANDS: dict[str, Command] = {
    "export": lambda folder: ["export", str(folder), str(folder.with_name("out"))],
    "audit": lambda folder: ["audit", str(folder)],
    "status": lambda folder: ["local", "status", str(folder)],
    "logs": lambda folder: ["local", "logs", str(folder)],
    "plot": lambda folder: ["local", "plot", str(folder)],
    "kill": lambda folder: ["local", "kill", str(folder), "producer"],
}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_target(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that ended, as its files have it."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "job.yaml").write_text("kind: DisaggTrainingJob\n")
    (folder / "identity.json").write_text(json.dumps({"name": "tiny"}))
    (folder / "status.json").write_text(json.dumps(dump_status(JobStatus(stage=Stage.ENDED))))
    (folder / "result.json").write_text(json.dumps(RESULT))
    (folder / "processes.json").write_text("[]")
    return folder


def said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    return int(end.value.code or 0), capsys.readouterr().err.strip()


def assert_one_sentence(text: str) -> None:
    assert text
    assert "\n" not in text, "more than a line"
    assert "Traceback" not in text


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["an empty folder", "a file", "nothing"])
def test_what_is_no_run_is_refused_by_its_name(
    command: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "place"
    if kind == "an empty folder":
        place.mkdir()
    elif kind == "a file":
        place.write_text("hello")
    code, sentence = said(capsys, COMMANDS[command](place))
    assert code == Exit.CONFIG
    assert str(place) in sentence
    assert_one_sentence(sentence)


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"status"}))
def test_a_run_that_never_started_has_nothing_to_show(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "job.yaml").write_text("kind: DisaggTrainingJob\n")
    code, sentence = said(capsys, COMMANDS[command](tmp_path / "run"))
    assert code == Exit.CONFIG
    assert_one_sentence(sentence)


@pytest.mark.parametrize("bytes_", [b"", b"{", b"null", b"[1]", b"\xff\xfe", b'{"state": 7}'])
@pytest.mark.parametrize("name", ["result.json", "status.json", "processes.json", "identity.json"])
def test_a_damaged_record_is_named(name: str, bytes_: bytes, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    harmless = {"processes.json": (b"[]",), "identity.json": (b'{"state": 7}',)}
    (run / name).write_bytes(bytes_)
    code, sentence = said(capsys, ["local", "status", str(run)])
    if bytes_ in harmless.get(name, ()):
        return
    assert code == Exit.CRASH
    assert sentence.startswith(f"{run / name} is damaged")
    assert_one_sentence(sentence)
    if name != "identity.json":
        assert [check for check in run_folder(run) if check.level == "error" and str(run / name) in check.text]


def test_doctor_finds_the_damaged_checkpoint_and_believes_the_sound_one(run: Path, target: Path) -> None:
    root, sound, damaged = _checkpoints(run, target)
    shard = next(damaged.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1])
    found = {check.text.split()[0]: check for check in run_folder(run) if check.name == "checkpoint"}
    assert found[sound.name] == Check("checkpoint", "ok", f"{sound.name} is sound")
    assert found[str(damaged)].level == "error"
    assert shard.name in found[str(damaged)].text
    assert root.listed() == (sound.name, damaged.name), "doctor changes nothing"


@pytest.mark.parametrize(
    ("what", "word"),
    [("shard cut", "bytes"), ("shard gone", "missing"), ("manifest", MANIFEST), ("receipt", RECEIPT)],
)
def test_export_names_the_damaged_checkpoint(
    what: str, word: str, run: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _root, _sound, damaged = _checkpoints(run, target)
    shard = next(damaged.glob("*.safetensors"))
    if what == "shard cut":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif what == "shard gone":
        shard.unlink()
    else:
        (damaged / (MANIFEST if what == "manifest" else RECEIPT)).write_text("{")
    code, sentence = said(capsys, ["export", str(run), str(run / "out")])
    assert code == Exit.CRASH
    assert sentence.startswith(f"{damaged} is damaged: ")
    assert word in sentence
    assert_one_sentence(sentence)
    assert not (run / "out").exists()


@pytest.mark.parametrize("kind", ["an empty folder", "a file", "a run", "cut weights"])
def test_eval_refuses_what_is_no_draft(
    kind: str, run: Path, target: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = tmp_path / "draft"
    if kind == "an empty folder":
        draft.mkdir()
    elif kind == "a file":
        draft.write_text("hello")
    elif kind == "a run":
        draft = run
    else:
        exported(make_root(tmp_path), tiny_draft(target), draft, target)
        (draft / "model.safetensors").write_bytes(b"\0" * 100)
    prompts = write_tiny_prompts(tmp_path / "prompts.jsonl", 1)
    arguments = ["--draft", str(draft), "--target", str(target), "--prompts", str(prompts), "--tokens", "2"]
    code, sentence = said(capsys, ["eval", *arguments])
    assert code == (Exit.CRASH if kind == "cut weights" else Exit.CONFIG)
    assert str(draft) in sentence
    assert_one_sentence(sentence)


def test_a_process_that_ended_since_it_was_listed_is_not_reported_as_killed(run: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    entry = {"role": "producer", "index": 0, "attempt": 1, "incarnation": "", "pid": gone.pid, "address": "127.9.9.9"}
    (run / "processes.json").write_text(json.dumps([entry]))
    assert Run(run).kill("producer", None, signal.SIGCONT) == []


def test_what_the_machine_refuses_is_a_sentence(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "metrics.jsonl").write_text('{"step": 1, "values": {"loss": 1.0}}\n')
    code, sentence = said(capsys, ["local", "plot", str(run), "--output", "/proc/plot.png"])
    assert (code, sentence) == (Exit.CONFIG, "/proc/plot.png: No such file or directory")


def test_a_full_disk_heals_and_a_forbidden_one_does_not() -> None:
    full = of_machine(OSError(errno.ENOSPC, "No space left on device", "/w/status.json"))
    assert full == ("/w/status.json: No space left on device; make room there and run the same command again", 75)
    assert of_machine(OSError(errno.EROFS, "Read-only file system", "/w"))[1] == Exit.CONFIG


def _checkpoints(run: Path, target: Path) -> tuple[CheckpointRoot, Path, Path]:
    """A sound checkpoint of step 3 and a newer one to hurt."""
    root = CheckpointRoot(run / "claims" / "checkpoints" / "tiny", JOB)
    root.write_marker()
    draft = tiny_draft(target)
    return root, save_draft(root, draft, 3), save_draft(root, draft, 4)
