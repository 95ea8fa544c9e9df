"""The pod's log: whole and in order while it moves, bounded and honest about its losses while it does not."""

import os

import pytest

from eyas_runtime.supervisor.log_writer import LogWriter


def read_exactly(descriptor: int, count: int) -> bytes:
    text = b""
    while len(text) < count:
        text += os.read(descriptor, count - len(text))
    return text


@pytest.mark.parametrize("blocking", [True, False])
def test_all_that_fits_is_written_in_order(blocking: bool) -> None:
    read, write = os.pipe()
    os.set_blocking(write, blocking)
    log = LogWriter(write, bytes_max=1 << 20)
    texts = [bytes([n]) * 40_000 for n in range(20)]
    for text in texts:
        log.write(text)
    assert read_exactly(read, 800_000) == b"".join(texts)
    log.flush()


def test_log_that_stands_still_loses_the_newest_and_says_how_much() -> None:
    read, write = os.pipe()
    log = LogWriter(write, bytes_max=300_000)
    for _ in range(10):
        log.write(b"z" * 100_000)
    log.flush(0.0)
    note = b"\nsupervisor: 700000 bytes of stderr are lost: the log did not take them\n"
    assert read_exactly(read, 300_000 + len(note)) == b"z" * 300_000 + note
    log.write(b"again\n")
    assert read_exactly(read, 6) == b"again\n"


def test_log_without_a_reader_ends_nothing() -> None:
    read, write = os.pipe()
    os.close(read)
    log = LogWriter(write)
    log.write(b"nobody hears this")
    log.flush(60.0)
