"""What a process's stderr tells of its own end, in words that may stand in a status and an event. Pure.

A process that is killed by a signal leaves no termination line: NCCL, CUDA, the C and C++ runtimes and the dynamic
loader say on stderr why they gave up, and nowhere else. Only lines of that kind are taken. Everything else stays in the
log: our own log records, source lines, and texts of errors that a library words around the data it was given (a
tokenizer's panic quotes the prompt), so that neither prompts nor captured text can come into a status. Of a Python
traceback the error's name is taken, and its text only where the interpreter, the system or the device speaks by it.
"""

import re
from collections.abc import Sequence
from typing import Final

from eyas_runtime.supervisor.redaction import redact

WORDS_CHARACTERS_MAX: Final = 800
"""All lines together; with what else is in a termination message they stay under its bounds."""
LINE_CHARACTERS_MAX: Final = 300
SEPARATOR: Final = " | "
"""Between lines; the operator's patterns do not reach over it."""
_LOOKED_AT_MAX: Final = 2000
_BEFORE_MATCH: Final = 80
_RECORD: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
"""How our log records begin."""
_RAISED: Final = re.compile(r"(?P<name>(?:\s*what\(\): +)?(?:[A-Za-z_]\w*\.)*\w*(?:Error|Exception|Interrupt))(?::|$)")
_DEVICE_ERRORS: Final = re.compile(
    r"(?:\s*what\(\): +)?(?:\w+\.)*(?:RuntimeError|ImportError|ModuleNotFoundError|OSError|MemoryError"
    r"|OutOfMemoryError|AcceleratorError|nccl\w+Error|Dist\w*Error)$"
)
_NATIVE: Final = re.compile(
    # C++, C and the kernel's names of signals
    r"^terminate called|^\s*what\(\): |^libc\+\+abi|pure virtual method called|\bstd::bad_alloc"
    r"|^(?:free|malloc|calloc|realloc|munmap_chunk|malloc_consolidate|tcache\w*)\(\): "
    r"|^double free or corruption|^corrupted (?:size|double-linked|unsorted)"
    r"|^\*\*\* .{0,60} \*\*\*|Assertion .{0,400}failed|device-side assert|^Fatal (?:Python error|glibc error)"
    r"|^(?:Segmentation fault|Bus error|Illegal instruction|Floating point exception|Aborted)(?: \(core dumped\))?$"
    r"|error while loading shared libraries|symbol lookup error|cannot open shared object|^\S*Error: No module named "
    # devices and their libraries
    r"|\bnccl[A-Z]\w*Error\b|\bNCCL\b.{0,400}(?:error|WARN|fail|time(?:out|d out))"
    r"|watchdog.{0,200}(?:exception|timeout)"
    r"|\bCUDA\b.{0,100}(?:error|failure|failed)|\bCU(?:DA|BLAS|DNN)_(?:ERROR|STATUS)_\w+|\bCuda failure\b"
    r"|\bXid\b|\bECC\b|\bNVLink\b|\bNVRM\b|\bibv_\w+|\bmlx5|\bRDMA\b.{0,200}(?:error|fail)|fallen off the bus"
)
_BESIDE: Final = re.compile(
    r"^CUDA kernel errors might be|^For debugging consider|^Compile with `|^Exception raised from|^\s*frame #\d"
    r'|^ {4}|^ +(?:\||File ")'
)
"""What torch adds to every one of its errors, and the source lines and groups of Python's tracebacks."""


def native_words(text: bytes, secrets: Sequence[str]) -> str:
    """The last telling lines of `text`, oldest first, each once, without `secrets`; empty where there is none."""
    found: dict[str, str] = {}
    for line in redact(text.decode("utf-8", "replace"), secrets).splitlines():
        telling = _telling(line)
        if telling:
            # A failed assertion is said by each thread of a device, with other numbers.
            kind = re.sub(r"\d+", "0", telling)
            found.pop(kind, None)
            found[kind] = telling
    words: list[str] = []
    room = WORDS_CHARACTERS_MAX
    for telling in reversed(found.values()):
        room -= len(telling) + len(SEPARATOR)
        if room < 0:
            break
        words.insert(0, telling)
    return SEPARATOR.join(words)


def _telling(line: str) -> str:
    """What of a line may be shown; empty: nothing."""
    if _RECORD.match(line) or _BESIDE.match(line):
        return ""
    if len(line) > _LOOKED_AT_MAX:
        # Nobody ends a line before a fatal error: it stands at the end of whatever was under way.
        line = f"{line[: _LOOKED_AT_MAX // 2]} {line[-_LOOKED_AT_MAX // 2 :]}"
    raised, native = _RAISED.match(line), _NATIVE.search(line)
    if raised is not None and (native is None or not _DEVICE_ERRORS.match(raised["name"])):
        return raised["name"].strip()
    if native is None:
        return ""
    begin = max(0, native.start() - _BEFORE_MATCH) if len(line) > LINE_CHARACTERS_MAX else 0
    return line[begin : begin + LINE_CHARACTERS_MAX].strip()
