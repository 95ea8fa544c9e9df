"""The last sweep of a pool: everything of one job goes, nothing of others, through a pool that is away for a while."""

from collections.abc import Iterable

import pytest

from eyas_contract.errors import Transient, UserError
from eyas_contract.ids import JobUid, object_key
from eyas_runtime.features.blobs.memory import MemoryBlobStore
from eyas_runtime.features.blobs.port import StoredBlob
from eyas_runtime.metadata.discard import discard

MINE, OTHER = JobUid("a" * 32), JobUid("b" * 32)
ROUNDS_MAX = 20


def keys(job: JobUid, count: int, *, epoch: int = 1) -> list[str]:
    return [object_key(job, epoch, index + 1, f"{index:032x}") for index in range(count)]


class Pool(MemoryBlobStore):
    """A pool that is away `away` times, and whose readers hold each key `held` times."""

    def __init__(self, *, away: int = 0, held: int = 0) -> None:
        super().__init__()
        self.away = away
        self.held = held
        self.holds: dict[str, int] = {}
        self.swept_temporary = False

    def list(self, prefix: str) -> Iterable[StoredBlob]:
        if self.away:
            self.away -= 1
            raise Transient("the pool is away")
        return super().list(prefix)

    def delete(self, key: str) -> bool:
        self.holds[key] = self.holds.get(key, 0) + 1
        return self.holds[key] > self.held and super().delete(key)

    def sweep_temporary(self, *, writers_are_gone: bool = False) -> int:
        self.swept_temporary = self.swept_temporary or writers_are_gone
        return super().sweep_temporary(writers_are_gone=writers_are_gone)


def sweep(pool: Pool) -> tuple[int, int]:
    """Objects deleted, and pauses made."""
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1
        assert pauses < ROUNDS_MAX, "it never ends"

    return discard(pool, MINE, pause=pause), pauses


@pytest.mark.parametrize(("away", "held"), [(0, 0), (3, 0), (0, 2), (1, 1)])
def test_all_of_this_job_and_nothing_of_others_goes(away: int, held: int) -> None:
    pool = Pool(away=away, held=held)
    mine = [*keys(MINE, 5), *keys(MINE, 5, epoch=3)]
    for key in [*mine, *keys(OTHER, 4)]:
        pool.put(key, b"x")
    deleted, pauses = sweep(pool)
    assert deleted == len(mine)
    assert [blob.key for blob in pool.list("eyas.")] == keys(OTHER, 4)
    assert pauses >= away + held
    assert pool.swept_temporary


def test_it_ends_only_after_a_look_that_shows_nothing() -> None:
    class Late(Pool):
        """A put that was under way arrives after the first look."""

        arrived = False

        def delete(self, key: str) -> bool:
            gone = super().delete(key)
            if not self.arrived:
                self.arrived = True
                self.put(object_key(MINE, 1, 99, "f" * 32), b"late")
            return gone

    pool = Late()
    pool.put(keys(MINE, 1)[0], b"x")
    assert sweep(pool)[0] == 2
    assert list(pool.list("eyas.")) == []


def test_an_empty_pool_is_left_at_once() -> None:
    assert sweep(Pool()) == (0, 0)


def test_a_mistake_is_told_and_not_repeated() -> None:
    class Wrong(Pool):
        def list(self, prefix: str) -> Iterable[StoredBlob]:
            raise UserError("store.masterAddress is missing")

    with pytest.raises(UserError):
        sweep(Wrong())
