"""Which lines of a dying process's stderr may be shown: those of native code, and none that could quote user data."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.process import MESSAGE_CHARACTERS_MAX
from eyas_runtime.supervisor.native_words import LINE_CHARACTERS_MAX, WORDS_CHARACTERS_MAX, native_words

WATCHDOG = (
    "terminate called after throwing an instance of 'c10::DistBackendError'\n"
    "  what():  [PG ID 0 PG GUID 0(default_pg) Rank 1] Process group watchdog thread terminated with exception: "
    "CUDA error: uncorrectable ECC error encountered\n"
    "CUDA kernel errors might be asynchronously reported at some other API call\n"
    "For debugging consider passing CUDA_LAUNCH_BLOCKING=1\n"
    "Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.\n\n"
    "Exception raised from c10_cuda_check_implementation at CUDAException.cpp:43 (most recent call first):\n"
    + "".join(f"frame #{n}: c10::Error::Error(c10::SourceLocation, std::string) + 0x96\n" for n in range(40))
    + 'Fatal Python error: Aborted\n\nThread 0x00007f (most recent call first):\n  File "x.py", line 1 in prompt\n'
)


def words(text: str, *secrets: str) -> str:
    return native_words(text.encode(), secrets)


def test_stack_of_a_native_error_does_not_push_out_what_it_is_about() -> None:
    first, second, third = words(WATCHDOG).split(" | ")
    assert first == "terminate called after throwing an instance of 'c10::DistBackendError'"
    assert second.endswith("CUDA error: uncorrectable ECC error encountered")
    assert third == "Fatal Python error: Aborted"


@pytest.mark.parametrize(
    "line",
    [
        "ncclUnhandledCudaError: Call to CUDA function failed.",
        "node1:77:99 [0] NCCL WARN NET/IB : mlx5_0:1 Got async event : port error",
        "Cuda failure 'uncorrectable ECC error'",
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.distributed.DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:1970, unhandled system error",
        "Indexing.cu:1284: index: block: [1,0,0], thread: [3,0,0] Assertion `index < size` failed.",
        "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.",
        "malloc(): corrupted top size",
        "free(): invalid pointer",
        "*** stack smashing detected ***: terminated",
        "pure virtual method called",
        "Fatal Python error: Segmentation fault",
        "mooncake_master: error while loading shared libraries: libnuma.so.1: cannot open shared object file",
        "ModuleNotFoundError: No module named 'torch'",
    ],
)
def test_what_native_code_says_of_its_end_is_shown(line: str) -> None:
    assert words(f"noise\n{line}\nmore noise\n") == line


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        pytest.param("thread 'x' panicked: byte index 5 of `What is the prompt`", "", id="panic that quotes"),
        pytest.param("KeyError: 'What is the prompt about CUDA error'", "KeyError", id="data error"),
        pytest.param("  what():  ValueError: NCCL error in a prompt", "what():  ValueError", id="data error in C++"),
        pytest.param("my.module.PromptError: text | NCCL error", "my.module.PromptError", id="unknown error"),
        pytest.param("What is the prompt", "", id="text"),
        pytest.param("    raise ValueError('NCCL error in a prompt')", "", id="source line"),
        pytest.param('  File "prompt.py", line 3 in nccl_error: NCCL error', "", id="frame"),
        pytest.param("  | ValueError: NCCL error in a prompt", "", id="group of errors"),
        pytest.param("2026-01-02 03:04:05,678 WARNING eyas.capture: NCCL error", "", id="log record"),
        pytest.param("NCCL version 2.27.7+cuda12.9", "", id="greeting"),
    ],
)
def test_text_that_may_quote_user_data_or_say_nothing_is_not_shown(line: str, shown: str) -> None:
    assert words(line) == shown


def test_same_assertion_of_many_threads_is_shown_once() -> None:
    text = "".join(f"a.cu:1: block: [{n},0,0] Assertion `i < n` failed.\n" for n in range(500))
    assert words(f"NCCL error\n{text}") == "NCCL error | a.cu:1: block: [499,0,0] Assertion `i < n` failed."


def test_the_last_lines_are_shown_when_there_are_too_many() -> None:
    shown = words("".join(f"NCCL error {chr(97 + n) * 150}\n" for n in range(20)))
    assert shown.endswith("t" * 150)
    assert len(shown) <= WORDS_CHARACTERS_MAX


def test_a_line_that_is_too_long_is_shown_from_where_it_tells() -> None:
    shown = words(f"{'x' * 5000}terminate called{'y' * 100} NCCL error {'z' * 500}")
    assert "NCCL error" in shown
    assert len(shown) == LINE_CHARACTERS_MAX


def test_carriage_returns_end_lines_as_progress_bars_use_them() -> None:
    assert words("loading 10%\rloading 20%\rterminate called without an active exception") == (
        "terminate called without an active exception"
    )


@given(st.binary(max_size=3000))
def test_any_bytes_give_a_bounded_text(data: bytes) -> None:
    assert len(native_words(data + b"\nNCCL error", ["secretsecret"])) <= WORDS_CHARACTERS_MAX < MESSAGE_CHARACTERS_MAX


@given(st.text(max_size=40), st.text(max_size=40), st.text("abcdef0123456789", min_size=8, max_size=64))
def test_no_secret_is_ever_shown(before: str, after: str, secret: str) -> None:
    assert secret not in words(f"NCCL error {before}{secret}{after}", secret).replace("[redacted]", " ")
