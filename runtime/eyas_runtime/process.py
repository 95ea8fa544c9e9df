"""What every process of ours does first and last: die with its parent, and end with a code and one sentence.

A child sets the parent-death signal itself, because nobody can set it for another process; the kernel sends it when
the parent *thread* ends, so whoever starts children does so from a thread that lives as long as it does. Foreign
binaries, which know nothing of this, are started through `python -m eyas_runtime.process -- COMMAND ...`.

`run_role` is the top frame of every role: it turns the error tree into exit codes, so that supervisors and the
operator decide from a number, and leaves the reason as one JSON line in the termination file. Torch-free.
"""

import ctypes
import logging
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from eyas_contract import env
from eyas_contract.errors import EyasError, UserError
from eyas_contract.exits import Exit
from eyas_contract.wire import Termination, encode

TERMINATION_BYTES_MAX: Final = 4096
"""The kubelet keeps no more of a termination message."""
MESSAGE_CHARACTERS_MAX: Final = 900
"""Four bytes each at worst and the other fields stay under `TERMINATION_BYTES_MAX`."""
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def die_with_parent() -> None:
    """Have the kernel send SIGKILL to this process when its parent dies; return only if the parent is alive.

    Does nothing where `EYAS_PARENT_PID` is not set (PID 1 of a container). The variable is consumed: a grandchild must
    not take it for its own parent's.
    """
    expected = os.environ.pop(env.PARENT_PID, "")
    if not expected:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the call above; then nobody would ever send the signal.
    if str(os.getppid()) != expected:
        os.kill(os.getpid(), signal.SIGKILL)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, as PID 1 of a container is by nature."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *map(ctypes.c_ulong, (argument, 0, 0, 0))) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"prctl({option}): {os.strerror(code)}")


def mark_ready() -> None:
    """Say that this role can make progress from now on; its supervisor takes the mark away when the process ends."""
    folder = os.environ.get(env.POD_DIRECTORY)
    if folder:
        Path(folder, env.READY_FILE).touch()


def write_termination(path: Path | str, termination: Termination) -> None:
    """Write the termination line in place (the kubelet bind-mounts the file, it cannot be replaced)."""
    line = encode(termination)[:TERMINATION_BYTES_MAX]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


def one_sentence(text: str) -> str:
    """`text` as one bounded line of printable characters, so that its JSON is bounded too."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text).split())
    return line if len(line) <= MESSAGE_CHARACTERS_MAX else f"{line[: MESSAGE_CHARACTERS_MAX - 3]}..."


def run_role(main: Callable[[], int | None]) -> NoReturn:
    """Run `main` as a role's top frame and end the process with its exit code (None: 0).

    The process leaves by `_exit` once `main` has unwound: a thread of a library that waits for a dead peer must not
    keep a failed process alive.
    """
    code = role_exit_code(main)
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)


def role_exit_code(main: Callable[[], int | None]) -> int:
    """`run_role` without the end: the exit code, after errors were told on stderr and in the termination file."""
    try:
        die_with_parent()
        return int(main() or 0)
    except EyasError as error:
        return _give_up(int(error.exit_code), type(error).__name__, str(error))
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001 - the top frame
        traceback.print_exc()
        return _give_up(int(Exit.CRASH), type(error).__name__, f"{type(error).__name__}: {error}")


def _give_up(code: int, klass: str, message: str) -> int:
    sentence = one_sentence(message)
    role = os.environ.get(env.ROLE, "eyas")
    sys.stderr.write(f"{role}: {sentence}\n")
    path = os.environ.get(env.TERMINATION_LOG)
    if path:
        try:
            write_termination(path, Termination(exit_code=code, klass=klass, message=sentence))
        except OSError as error:
            sys.stderr.write(f"{role}: cannot write {path}: {error.strerror}\n")
    return code


def exec_foreign(command: Sequence[str]) -> NoReturn:
    """Become `command`, which then dies with our parent. Raises `UserError` when it cannot be started."""
    program = shutil.which(command[0]) if command else None
    if program is None:
        raise UserError(f"cannot start {command[0] if command else 'nothing'}: there is no such program on PATH")
    # Python ignores these two; a foreign program expects the defaults.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execv(program, list(command))  # noqa: S606
    except OSError as error:
        raise UserError(f"cannot start {program}: {error.strerror}") from error


def _main() -> NoReturn:
    arguments = sys.argv[1:]
    exec_foreign(arguments[1:] if arguments[:1] == ["--"] else arguments)


if __name__ == "__main__":
    run_role(_main)
