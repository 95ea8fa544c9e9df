"""The trainer of the plain arm of `eyas bench cluster`: a gang of pods that Kubernetes alone restarts. Torch-free.

It does what any such trainer does: ranks meet by a file on the shared folder, rank 0 loads the newest checkpoint there
and hands it to the others, every step is a collective, and a lost peer ends the process. A step takes a fixed time.
Rank 0 prints `LIFE STEP` for each step, and once at the start for the step that it goes on from.

Environment: JOB_COMPLETION_INDEX (rank), GANG_SIZE, GANG_FOLDER, GANG_STEP_SECONDS, GANG_EVERY_STEPS,
GANG_ADDRESS (of this pod), GANG_PORT (of rank 0).
"""

import hashlib
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Final

from eyas_contract.errors import Closed
from eyas_contract.ids import Incarnation
from eyas_runtime.files import publish_bytes
from eyas_runtime.train.group import HubGroup, hub_groups

MEET_SECONDS: Final = 2.0
"""After this time the file is read again: it may be that of a rank 0 which is gone."""
POLL_SECONDS: Final = 0.05
STATE_BYTES: Final = 32
STEP_DIGITS: Final = 16


def main() -> None:
    """Train until somebody ends it; exits with 1 when a peer is lost."""
    rank, size = int(os.environ["JOB_COMPLETION_INDEX"]), int(os.environ["GANG_SIZE"])
    folder = Path(os.environ["GANG_FOLDER"])
    try:
        life, group = _meet(rank, size, folder)
        _train(group, folder, life)
    except Closed as error:
        sys.exit(f"rank {rank}: {error}")


def _meet(rank: int, size: int, folder: Path) -> tuple[str, HubGroup]:
    if rank == 0:
        life = secrets.token_hex(4)
        publish_bytes(folder / "rendezvous", f"{life} {os.environ['GANG_ADDRESS']}".encode())
        return life, _group(0, size, life, "0.0.0.0", 300.0)  # noqa: S104 - every address of the pod
    while True:
        try:
            life, address = (folder / "rendezvous").read_text().split()
            return life, _group(rank, size, life, address, MEET_SECONDS)
        except (Closed, FileNotFoundError):
            time.sleep(POLL_SECONDS)


def _group(rank: int, size: int, life: str, host: str, seconds: float) -> HubGroup:
    return hub_groups(
        rank=rank, world_size=size, address=(host, int(os.environ["GANG_PORT"])), incarnation=Incarnation(life),
        channels=("plain",), timeout_seconds=seconds,
    )[0]  # fmt: skip


def _train(group: HubGroup, folder: Path, life: str) -> None:
    pause, every = float(os.environ["GANG_STEP_SECONDS"]), int(os.environ["GANG_EVERY_STEPS"])
    newest = group.broadcast(_newest(folder) if group.rank == 0 else None)
    step, state = int(newest[:STEP_DIGITS]), newest[STEP_DIGITS:]
    _say(group, life, step)
    while True:
        time.sleep(pause)
        state = hashlib.sha256(b"".join(group.all_gather(state))).digest()
        step += 1
        if group.rank == 0 and step % every == 0:
            publish_bytes(folder / "checkpoint", f"{step:0{STEP_DIGITS}d}".encode() + state)
        _say(group, life, step)


def _newest(folder: Path) -> bytes:
    try:
        return (folder / "checkpoint").read_bytes()
    except FileNotFoundError:
        return b"0" * STEP_DIGITS + bytes(STATE_BYTES)


def _say(group: HubGroup, life: str, step: int) -> None:
    if group.rank == 0:
        sys.stdout.write(f"{life} {step}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
