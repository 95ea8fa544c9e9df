"""The last text of a process: bounded, not too old, and never from the middle of a word."""

from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.supervisor.tail import TAIL_BYTES_MAX, TAIL_SECONDS, Tail
from support.manual_clock import ManualClock


def test_text_that_came_is_kept_whole_and_in_order() -> None:
    clock = ManualClock()
    tail = Tail(clock.monotonic)
    for text in (b"one ", b"two\nth", b"ree"):
        tail.add(text)
        clock.advance(TAIL_SECONDS / 4)
    assert tail.text() == b"one two\nthree"


def test_old_text_is_forgotten_and_half_of_a_line_with_it() -> None:
    clock = ManualClock()
    tail = Tail(clock.monotonic)
    tail.add(b"NCCL WARN at the start\nand a beginning")
    clock.advance(TAIL_SECONDS + 1)
    tail.add(b" of a line\nlast words\n")
    assert tail.text() == b"last words\n"


def test_too_much_text_begins_with_the_first_whole_line() -> None:
    tail = Tail()
    tail.add(b"secret" * TAIL_BYTES_MAX + b"\nlast words")
    assert tail.text() == b"last words"


def test_too_much_text_without_a_line_begins_with_the_first_whole_word() -> None:
    tail = Tail()
    tail.add(b"secret" * TAIL_BYTES_MAX + b" last words")
    assert tail.text() == b"last words"


def test_one_endless_word_is_nothing() -> None:
    tail = Tail()
    tail.add(b"secret" * TAIL_BYTES_MAX)
    assert tail.text() == b""


@given(st.lists(st.binary(max_size=TAIL_BYTES_MAX), max_size=6))
def test_what_is_kept_is_always_the_end_and_within_the_bound(pieces: list[bytes]) -> None:
    tail = Tail()
    for piece in pieces:
        tail.add(piece)
    assert b"".join(pieces).endswith(tail.text())
    assert len(tail.text()) <= TAIL_BYTES_MAX
