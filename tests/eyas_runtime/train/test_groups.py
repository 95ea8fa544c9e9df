"""What ranks tell each other: the same bytes on every rank, sums in rank order, nobody from another life."""

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import Closed
from eyas_contract.ids import Incarnation
from eyas_runtime.train.group import HubGroup, SoloGroup, add_floats, hub_groups, merge_codes

NONCE = Incarnation("ab" * 16)


def free_address() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return "127.0.0.1", int(probe.getsockname()[1])


def gang(
    world_size: int, act: Callable[[HubGroup], object], *, nonces: Sequence[Incarnation] | None = None
) -> list[object]:
    """What `act` gives on every rank, or the error that it raised."""
    address = free_address()
    results: list[object] = [None] * world_size

    def one(rank: int) -> None:
        try:
            group, _ = hub_groups(
                rank=rank,
                world_size=world_size,
                address=address,
                incarnation=(nonces or [NONCE] * world_size)[rank],
                channels=("a", "b"),
                timeout_seconds=5.0 if nonces is None else 0.5,
            )
            # A process that ends lets go of its sockets.
            with closing(group):
                results[rank] = act(group)
        except Closed as error:
            results[rank] = error

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_every_rank_gets_the_bytes_of_rank_zero_and_of_each_other(world_size: int) -> None:
    def act(group: HubGroup) -> object:
        said = group.broadcast(b"order" * 9000 if group.rank == 0 else None)
        return said, group.all_gather(bytes([group.rank]) * 3), group.broadcast(b"" if group.rank == 0 else None)

    expected = (b"order" * 9000, [bytes([rank]) * 3 for rank in range(world_size)], b"")
    assert gang(world_size, act) == [expected] * world_size


def test_a_rank_of_another_incarnation_meets_nobody() -> None:
    results = gang(2, lambda group: "met", nonces=[NONCE, Incarnation("cd" * 16)])
    assert all(isinstance(result, Closed) for result in results)


def test_a_lost_rank_closes_the_others() -> None:
    def act(group: HubGroup) -> object:
        if group.rank == 2:
            return "gone"
        group.all_gather(b"x")
        return "met"

    assert [type(result) for result in gang(3, act)] == [Closed, Closed, str]


def test_a_single_rank_talks_to_itself() -> None:
    group = SoloGroup()
    assert group.broadcast(b"x") == b"x"
    assert group.all_gather(b"y") == [b"y"]


@given(st.lists(st.lists(st.integers(0, 255), min_size=4, max_size=4).map(bytes), min_size=1, max_size=5))
def test_codes_merge_by_their_maximum(parts: list[bytes]) -> None:
    assert list(merge_codes(parts)) == [max(column) for column in zip(*parts, strict=True)]


def test_sums_are_taken_in_rank_order() -> None:
    parts = [(1e16,), (1.0,), (-1e16,)]
    assert add_floats(parts) == ((1e16 + 1.0) - 1e16,)
    assert add_floats(parts[::-1]) == ((-1e16 + 1.0) + 1e16,)
