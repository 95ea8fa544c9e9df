"""Starts rank processes by forking a warm interpreter: a life costs milliseconds instead of a second of imports.

Run as a program. Every line of standard input is a JSON object of environment variables for one rank; every line of
standard output says `{"started": token, "pid": n}` or `{"pid": n, "code": c}`. It has no threads, so forking is safe.
"""

import json
import os
import select
import signal
import sys
from typing import NoReturn


def _rank(environment: dict[str, str]) -> NoReturn:
    from eyas_runtime import failpoints
    from eyas_runtime.process import run_role
    from eyas_runtime.train import consume

    log = os.open(environment["RANK_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.environ.update(environment)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    failpoints.arm(environment.get(failpoints.ENV_SPEC, ""), log_path=environment.get(failpoints.ENV_LOG))
    run_role(consume.main)


def _say(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def main(kind: str) -> None:
    """Fork ranks until standard input ends, then kill what is left."""
    import eyas_runtime.train.consume
    import eyas_runtime.train.fake_engine

    assert eyas_runtime.train.fake_engine
    if kind == "eagle3":
        import eyas_runtime.train.draft_engine

        assert eyas_runtime.train.draft_engine
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: list[int] = []
    pending = b""
    _say({"ready": True})
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
            _reap()
        if 0 not in ready:
            continue
        data = os.read(0, 1 << 16)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            environment = json.loads(line)
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                _rank(environment)
            children.append(pid)
            _say({"started": environment["EYAS_PROCESS"], "pid": pid})
    for pid in children:
        try:
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                os.kill(pid, signal.SIGKILL)
        except (ChildProcessError, ProcessLookupError):
            continue


if __name__ == "__main__":
    main(sys.argv[1])
