"""What children write to stderr is in the log byte for byte, holds up nobody, and tells why a child died."""

import os
from pathlib import Path

import pytest

from eyas_contract import env
from support.supervised import Supervised, recovery, supervised

NCCL = "[rank0]: NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled cuda error, NCCL version 2.27.7"
CORRUPT = "double free or corruption (!prev)"
SAY = f"""
def say(text):
    data = text if isinstance(text, bytes) else text.encode()
    while data:
        data = data[os.write(2, data):]
nccl, corrupt = {NCCL!r}, {CORRUPT!r}
"""
TOKEN = "0123456789abcdef" * 4


def ended(folder: Path, script: str, **variables: str) -> Supervised:
    """A pod whose only child ran `script` once."""
    values = recovery(folder, restarts_in_place=0) | variables
    with supervised(folder, SAY + script, variables=values) as pod:
        pod.end()
    return pod


def message(pod: Supervised) -> str:
    return str(pod.termination()["message"]).removeprefix("0 restarts in place without progress; last: ")


@pytest.mark.parametrize(
    ("death", "code", "how"),
    [
        pytest.param("os.abort()", 134, "SIGABRT", id="abort"),
        pytest.param("import ctypes; ctypes.CDLL(None).abort()", 134, "SIGABRT", id="abort in C"),
        pytest.param("os.kill(os.getpid(), signal.SIGSEGV)", 139, "SIGSEGV", id="segmentation fault"),
        pytest.param("os._exit(3)", 3, "exit code 3", id="exit without a message"),
    ],
)
def test_last_native_words_of_a_child_are_in_the_message_of_its_pod(
    tmp_path: Path, death: str, code: int, how: str
) -> None:
    pod = ended(tmp_path, f"say('some noise\\n' + nccl + '\\n' + corrupt + '\\n')\n{death}")
    assert (pod.termination()["exit_code"], pod.termination()["klass"]) == (code, "Crash")
    assert message(pod) == f"{how}: {NCCL} | {CORRUPT}"


def test_child_with_a_message_of_its_own_speaks_by_that_alone(tmp_path: Path) -> None:
    script = """
from eyas_contract.errors import Corrupt
def main():
    say(nccl + "\\n")
    raise Corrupt("the manifest is damaged")
run_role(main)
"""
    assert message(ended(tmp_path, script)) == "the manifest is damaged"


def test_child_that_was_killed_has_no_words_about_it(tmp_path: Path) -> None:
    pod = ended(tmp_path, "say(nccl + '\\n')\nos.kill(os.getpid(), signal.SIGKILL)")
    assert message(pod) == "SIGKILL"


def test_words_of_one_life_do_not_explain_the_next(tmp_path: Path) -> None:
    script = "if restart == 0: say(nccl + '\\n')\nos.abort()"
    with supervised(tmp_path, SAY + script, variables=recovery(tmp_path, restarts_in_place=1)) as pod:
        pod.end()
    assert message(pod).endswith("last: SIGABRT")


def test_stderr_is_in_the_log_byte_for_byte_whatever_it_is(tmp_path: Path) -> None:
    odd = bytes(range(256)) * 64 + b"\xff\xfe\x00" + "\u2028".encode()
    pod = ended(tmp_path, f"say(bytes.fromhex({odd.hex()!r}) + b'\\n' + corrupt.encode())\nos.abort()")
    assert odd + b"\n" + CORRUPT.encode() in (tmp_path / "log").read_bytes()
    assert message(pod) == f"SIGABRT: {CORRUPT}"


def test_very_much_without_any_newline_is_passed_on_and_its_end_is_understood(tmp_path: Path) -> None:
    count = 6 << 20
    pod = ended(tmp_path, f"say(b'x' * {count} + nccl.encode())\nos.abort()")
    assert b"x" * count + NCCL.encode() in (tmp_path / "log").read_bytes()
    assert message(pod) == f"SIGABRT: {NCCL.removeprefix('[rank0]: ')}", "what may be half a word is left out"


def test_lines_of_children_that_write_at_once_stay_whole(tmp_path: Path) -> None:
    script = "for n in range(3000): say(f'<{os.getpid()} {n:04} {chr(97 + n % 26) * 90}>\\n')\n"
    with supervised(tmp_path, SAY + script, processes=3) as pod:
        assert pod.end() == 0
    told: dict[str, list[str]] = {}
    for line in pod.log().splitlines():
        if not line.startswith("supervisor "):
            told.setdefault(line.partition(" ")[0], []).append(line.partition(" ")[2])
    whole = [f"{n:04} {chr(97 + n % 26) * 90}>" for n in range(3000)]
    assert list(told.values()) == [whole] * 3


@pytest.mark.parametrize("act", ["signal.pause()", "while True: say(b'still here\\n' * 300)"])
def test_grandchild_that_keeps_stderr_open_holds_up_no_end(tmp_path: Path, act: str) -> None:
    script = f"""
if os.fork() == 0:
    os.setsid()
    {act}
say(nccl + "\\n")
os.abort()
"""
    pod = ended(tmp_path, script)
    assert pod.termination()["exit_code"] == 134


def test_child_that_closed_its_stderr_is_judged_by_its_code(tmp_path: Path) -> None:
    assert message(ended(tmp_path, "say(corrupt + '\\n')\nos.close(2)\nos.abort()")) == f"SIGABRT: {CORRUPT}"


def test_log_that_nobody_reads_neither_stops_a_child_nor_the_pod(tmp_path: Path) -> None:
    read, write = os.pipe()
    script = f"say(b'y' * {24 << 20})\nsay('\\n' + nccl + '\\n')\nos.abort()"
    try:
        with supervised(tmp_path, SAY + script, variables=recovery(tmp_path, restarts_in_place=0), stderr=write) as pod:
            assert pod.end() == 134
    finally:
        os.close(read)
        os.close(write)
    assert message(pod) == f"SIGABRT: {NCCL}"


def test_log_whose_reader_is_gone_neither_stops_a_child_nor_the_pod(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    script = "say(nccl + '\\n')\nos.abort()"
    try:
        with supervised(tmp_path, SAY + script, variables=recovery(tmp_path, restarts_in_place=0), stderr=write) as pod:
            assert pod.end() == 134
    finally:
        os.close(write)
    assert message(pod) == f"SIGABRT: {NCCL}"


def test_no_token_and_no_secret_variable_comes_into_a_message(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.mkdir()
    (tokens / env.TOKEN_PRODUCER).write_text(TOKEN + "\n")
    script = """
secret = os.environ["HF_TOKEN"]
token = pathlib.Path(os.environ["EYAS_TOKEN_DIRECTORY"], "producer.token").read_text().strip()
say(f"NCCL error {token} and {secret}\\n")
os.abort()
"""
    pod = ended(tmp_path, script, HF_TOKEN="hf_SomeSecretValue", **{env.TOKEN_DIRECTORY: str(tokens)})  # noqa: S106
    assert message(pod) == "SIGABRT: NCCL error [redacted] and [redacted]"


def test_of_a_traceback_without_a_role_around_it_the_name_of_the_error_is_told(tmp_path: Path) -> None:
    pod = ended(tmp_path, "raise ValueError('the prompt of a user')")
    assert message(pod) == "exit code 1: ValueError"
    assert "the prompt of a user" in pod.log()


def test_records_of_our_own_log_are_no_last_words(tmp_path: Path) -> None:
    script = """
import logging
logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
logging.getLogger("eyas").error("NCCL error of a peer")
os.abort()
"""
    assert message(ended(tmp_path, script)) == "SIGABRT"
