"""The plain arm's trainer: a fair opponent loses what lies behind its newest checkpoint, and nothing more."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from support.metadata_service import free_port

GANG, EVERY = 3, 4
Ranks = list[subprocess.Popen[str]]


@contextmanager
def gang(folder: Path) -> Iterator[Ranks]:
    port = free_port()
    settings = {
        "GANG_SIZE": str(GANG), "GANG_FOLDER": str(folder), "GANG_STEP_SECONDS": "0.01", "GANG_EVERY_STEPS": str(EVERY),
        "GANG_ADDRESS": "127.0.0.1", "GANG_PORT": str(port),
    }  # fmt: skip
    with ExitStack() as stack:
        ranks = []
        for rank in range(GANG):
            environment = os.environ | settings | {"JOB_COMPLETION_INDEX": str(rank)}
            command = [sys.executable, "-m", "eyas_runtime.bench.plain_gang"]
            process = subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            ranks.append(process)
        yield ranks


def said(rank: subprocess.Popen[str]) -> tuple[str, int]:
    assert rank.stdout is not None
    life, step = rank.stdout.readline().split()
    return life, int(step)


def test_a_lost_rank_ends_the_others_and_the_next_gang_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    with gang(tmp_path) as ranks:
        first, step = said(ranks[0])
        assert step == 0
        while step < 2 * EVERY + 1:
            life, step = said(ranks[0])
            assert life == first
        ranks[1].send_signal(signal.SIGKILL)
        assert [ranks[0].wait(30), ranks[2].wait(30)] == [1, 1]
        rest = ranks[0].stdout.read().split() if ranks[0].stdout is not None else []
        last = int(rest[-1]) if rest else step
    with gang(tmp_path) as ranks:
        second, resumed = said(ranks[0])
    assert second != first
    assert resumed == last - last % EVERY
