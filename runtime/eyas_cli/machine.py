"""What the machine refuses (a full disk, a missing permission) as one sentence and an exit code. Pure.

I/O that may heal by itself or by making room is 75; a place where we may not write is 78, as a wrong flag is.
"""

import errno
import os
from typing import Final

from eyas_contract.exits import Exit

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_HEALS: Final = _NO_ROOM | {errno.EIO, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE}
_ADVICE: Final = {
    **dict.fromkeys(_NO_ROOM, "make room there and run the same command again"),
    errno.EROFS: "it is mounted read-only; use a folder that can be written",
    errno.EACCES: "give this user the permission, or use another folder",
    errno.EPERM: "give this user the permission, or use another folder",
}


def of_machine(error: OSError) -> tuple[str, Exit]:
    """The sentence and the exit code for an error of the operating system."""
    number = error.errno or 0
    what = error.strerror or (os.strerror(number) if number else str(error) or type(error).__name__)
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    advice = f"; {_ADVICE[number]}" if number in _ADVICE else ""
    return f"{where}{what}{advice}", Exit.TEMPORARY if number in _HEALS else Exit.CONFIG
