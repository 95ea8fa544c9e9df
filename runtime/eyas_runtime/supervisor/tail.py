"""The last text of one process: bounded in bytes and in age, and never begun in the middle of a word."""

import re
import time
from collections import deque
from collections.abc import Callable
from typing import Final

TAIL_BYTES_MAX: Final = 64 << 10
"""Kept of each process. The stacks that follow a native error are some ten KiB."""
TAIL_SECONDS: Final = 120.0
"""Older text is no last word: a warning from the start must not explain a death hours later."""
_PIECE_SECONDS: Final = 1.0
_FIRST_LINE: Final = re.compile(rb"[^\n]*\n|\S*\s|.*", re.DOTALL)


class Tail:
    """What a process wrote last."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pieces: deque[tuple[float, bytearray]] = deque()
        """Text, and since when it came."""
        self._bytes = 0
        self._whole = True

    def add(self, text: bytes) -> None:
        """Keep `text`, and for it less of what came before."""
        now = self._clock()
        if not self._pieces or now - self._pieces[-1][0] > _PIECE_SECONDS:
            self._pieces.append((now, bytearray()))
        self._pieces[-1][1].extend(text)
        self._bytes += len(text)
        while self._bytes > TAIL_BYTES_MAX:
            self._drop(self._bytes - TAIL_BYTES_MAX)

    def text(self) -> bytes:
        """All that is kept and not too old; from the beginning of a line, or else of a word, where more came before."""
        now = self._clock()
        while self._pieces and now - self._pieces[0][0] > TAIL_SECONDS:
            self._drop(len(self._pieces[0][1]))
        kept = b"".join(piece for _since, piece in self._pieces)
        # Half a token could not be recognised, and the rest of a log record would be taken for something else.
        return kept if self._whole else _FIRST_LINE.sub(b"", kept, count=1)

    def _drop(self, count: int) -> None:
        """Forget up to `count` bytes of the oldest piece."""
        piece = self._pieces[0][1]
        count = min(count, len(piece))
        del piece[:count]
        self._bytes -= count
        self._whole = False
        if not piece:
            self._pieces.popleft()
