"""What a process freed goes back to the system, once it is worth the trouble."""

import subprocess
import sys

GROWN = """
import sys
from eyas_runtime.memory import FreedMemory, resident_bytes

freed = FreedMemory(growth_bytes=int(sys.argv[1]))
freed.give_back()
blocks = [bytearray(100_000) for _ in range(2000)]
last = bytearray(100_000)  # Above the others in the heap: what is freed below it stays with the process.
blocks.clear()
held = resident_bytes()
freed.give_back()
print(held - resident_bytes())
"""


def given_back(*, growth_bytes: int) -> int:
    """Bytes that a process which grew by 200 MB and freed them returns, if that much growth is worth it."""
    command = [sys.executable, "-c", GROWN, str(growth_bytes)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_freed_memory_goes_back_to_the_system() -> None:
    assert given_back(growth_bytes=100_000_000) > 150_000_000


def test_a_process_that_hardly_grew_is_left_alone() -> None:
    assert given_back(growth_bytes=400_000_000) < 50_000_000
