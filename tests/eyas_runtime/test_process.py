"""What processes of every role share."""

import subprocess
import sys

RESIDENT = """
import sys
from pathlib import Path
from eyas_runtime.process import give_back_memory

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

blocks = [bytearray(100_000) for _ in range(2000)]
last = bytearray(100_000)  # Above the others in the heap: what is freed below it stays with the process.
blocks.clear()
held = resident()
if "give back" in sys.argv:
    give_back_memory()
print(held - resident())
"""


def test_freed_memory_goes_back_to_the_system() -> None:
    def given_back(*words: str) -> int:
        command = [sys.executable, "-c", RESIDENT, *words]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert given_back() < 50_000_000 < given_back("give back")
