"""Programs of a private control plane: where they are, and how one is started so that it never outlives us."""

import os
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError

VARIABLE: Final = "EYAS_KUBE_TOOLS"
_DIE_WITH_PARENT: Final = ("setpriv", "--pdeathsig", "KILL", "--")
_KEPT: Final = ("PATH", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH")
END_SECONDS: Final = 30


def program(name: str) -> Path:
    """The program `name` (`etcd`, `kube`). Raises `UserError` with a sentence that says how to get it."""
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{name} is not there: run tools/kube_tools.sh, or set {VARIABLE} to a folder that has it")


def _folders() -> list[Path]:
    """The named folder alone, else every version that `tools/kube_tools.sh` left in the cache, the newest first."""
    if named := os.environ.get(VARIABLE):
        return [Path(named)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    found = (Path(os.environ.get("EYAS_CACHE") or home / "eyas") / "kube-tools").glob("*/bin")
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)


@contextmanager
def running(
    command: list[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that writes into `log` and is gone after the block; no proxy and no configuration of the user's."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 a program that `program` found, or our own module
            [*_DIE_WITH_PARENT, *command],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            env=kept | {"HOME": str(log.parent)} | dict(environment or {}),
        )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.wait(END_SECONDS)


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in sockets]
