"""The kernel's counter of kills for memory: only what happened since the last look, and nothing where there is none."""

from pathlib import Path

import pytest

from eyas_runtime.supervisor.memory_kills import MemoryKills

TEXT = "low 0\nhigh 0\nmax 71\noom 9\noom_kill {}\noom_group_kill 5\n"


def test_kill_is_told_once(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text(TEXT.format(3))
    kills = MemoryKills(events)
    assert not kills.more(), "before our time"
    events.write_text(TEXT.format(5))
    assert kills.more()
    assert not kills.more()
    events.write_text(TEXT.format(6))
    assert kills.more()


@pytest.mark.parametrize("text", [None, "", "oom_kill\n", "oom_kill many\n", "oom 4\n", "\xff"])
def test_without_a_counter_nobody_was_killed_for_memory(tmp_path: Path, text: str | None) -> None:
    events = tmp_path / "memory.events"
    if text is not None:
        events.write_bytes(text.encode("latin-1"))
    assert not MemoryKills(events).more()
