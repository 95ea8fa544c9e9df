"""The children's stderr: passed on to the pod's log as it comes, with its end kept for what it tells of their ends.

Each child gets a pipe of its own, read by one thread that waits for nothing else, so that no child waits for the log.
What a dead child wrote is in its pipe when it is reaped: exactly that is taken, and nobody waits for the end of the
pipe, which a grandchild may hold open for as long as it likes.
"""

import fcntl
import os
import select
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from typing import Final

from eyas_runtime.supervisor.log_writer import LogWriter
from eyas_runtime.supervisor.tail import Tail

_READ_BYTES: Final = 64 << 10
"""A pipe's capacity: what is read at once ends where a write ended, so that lines of several children stay whole."""


class _Stream:
    """One child's pipe, until all who could write to it are gone, and what came through it last."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.open = True
        self.tail = Tail()


class ChildStderr:
    """Starts processes whose stderr it reads. `launch` is called from one thread only: it becomes the parent."""

    def __init__(self, log: LogWriter) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._readable = select.epoll()
        self._by_descriptor: dict[int, _Stream] = {}
        self._by_pid: dict[int, _Stream] = {}

    def start(self) -> None:
        """Begin to pass on what comes."""
        threading.Thread(target=self._run, name="stderr", daemon=True).start()

    def launch(self, command: Sequence[str], environment: Mapping[str, str], *, stdin: int | None = None) -> int:
        """Start a process; its pid. Whoever launches reaps it by that number. Raises `OSError` when it cannot start."""
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            process = subprocess.Popen(command, env=environment, stdin=stdin, stderr=write)  # noqa: S603
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        # Reaped by number in one place; Popen must not try it too when it is collected.
        process.returncode = 0
        self._follow(process.pid, read)
        return process.pid

    def take(self, pid: int) -> bytes:
        """The last that a process wrote which was reaped. To be called once for each."""
        with self._lock:
            stream = self._by_pid.pop(pid)
            waiting = _waiting_bytes(stream.descriptor) if stream.open else 0
            while waiting > 0 and stream.open:
                waiting -= self._read(stream, min(waiting, _READ_BYTES))
            return stream.tail.text()

    def _follow(self, pid: int, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        stream = _Stream(descriptor)
        with self._lock:
            self._by_pid[pid] = self._by_descriptor[descriptor] = stream
            self._readable.register(descriptor, select.EPOLLIN)

    def _run(self) -> None:
        while True:
            for descriptor, _event in self._readable.poll():
                with self._lock:
                    stream = self._by_descriptor.get(descriptor)
                    if stream is not None:
                        self._read(stream, _READ_BYTES)

    def _read(self, stream: _Stream, bytes_max: int) -> int:
        try:
            text = os.read(stream.descriptor, bytes_max)
        except BlockingIOError:
            return 0
        if text:
            stream.tail.add(text)
            self._log.write(text)
            return len(text)
        stream.open = False
        self._readable.unregister(stream.descriptor)
        del self._by_descriptor[stream.descriptor]
        os.close(stream.descriptor)
        return 0


def _waiting_bytes(descriptor: int) -> int:
    (count,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(struct.calcsize("i"))))
    return int(count)
