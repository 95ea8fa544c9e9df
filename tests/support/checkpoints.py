"""Checkpoints for tests: a gang of threads that saves together, and a committer that answers like the service."""

import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from eyas_contract import wire
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime.checkpoint.pieces import Piece, whole
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.checkpoint.writer import CheckpointWriter, Lineage, Save

JOB = JobUid("testjob01")
INCARNATION = Incarnation("a1" * 16)
WIDTH = 3


class ThreadGroup:
    """`Gather` between threads of one process."""

    def __init__(self, rank: int, world_size: int, boxes: list[list["queue.Queue[bytes]"]]) -> None:
        self.rank, self.world_size, self._boxes = rank, world_size, boxes

    def all_gather(self, data: bytes) -> list[bytes]:
        for box in self._boxes[self.rank]:
            box.put(data)
        return [self._boxes[peer][self.rank].get(timeout=30) for peer in range(self.world_size)]


def thread_groups(world_size: int) -> list[ThreadGroup]:
    """One group member per rank."""
    boxes: list[list[queue.Queue[bytes]]] = [[queue.Queue() for _ in range(world_size)] for _ in range(world_size)]
    return [ThreadGroup(rank, world_size, boxes) for rank in range(world_size)]


class RecordingCommitter:
    """Answers every commit with a receipt and the garbage it was told to name."""

    def __init__(self, garbage: Sequence[str] = (), before: Callable[[], None] = lambda: None) -> None:
        self.requests: list[wire.CheckpointCommitRequest] = []
        self._garbage, self._before = tuple(garbage), before

    def commit_checkpoint(self, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
        self._before()
        self.requests.append(request)
        return wire.CheckpointCommitReply(receipt=f"receipt-{request.step}", garbage=self._garbage)


def state_at(step: int, letters: Sequence[wire.DeadLetter] = ()) -> wire.CheckpointState:
    """The service's state as of `step`."""
    return wire.CheckpointState(
        job_uid=JOB,
        store_epoch=1,
        step=step,
        inputs=None,
        dead_letters=tuple(letters),
        capture_fingerprint="",
        inexact_reasons=(),
        generation_floor=7,
        attempt=1,
    )


def row_pieces(name: str, rows: int, seed: int, rank: int, world_size: int) -> list[Piece]:
    """This rank's run of rows of a float32 [rows, WIDTH] tensor whose bytes are a function of the seed."""
    data = bytes((seed * 31 + i * 7) % 256 for i in range(rows * WIDTH * 4))
    chunk = -(-rows // world_size)
    first, last = min(rank * chunk, rows), min(rank * chunk + chunk, rows)
    if first == last:
        return []
    view = memoryview(data)[first * WIDTH * 4 : last * WIDTH * 4]
    return [
        Piece(
            name=name,
            dtype="float32",
            shape=(rows, WIDTH),
            offset=(first, 0),
            extent=(last - first, WIDTH),
            data=view,
        )
    ]


def example_pieces(rank: int, world_size: int, *, seed: int = 1) -> list[Piece]:
    """Weights with uneven and tiny row counts, a moment, and a scalar that rank 0 holds."""
    pieces = [
        *row_pieces("weights/fc.weight", 7, seed, rank, world_size),
        *row_pieces("weights/b", 1, seed + 1, rank, world_size),
        *row_pieces("optimizer/exp_avg/fc.weight", 7, seed + 2, rank, world_size),
    ]
    if rank == 0:
        pieces.append(whole("optimizer/updates", "int64", (), (seed * 1000).to_bytes(8, "little")))
    return pieces


def lineage(*, attempt: int = 1, incarnation: Incarnation = INCARNATION, store_epoch: int = 1) -> Lineage:
    """Whose checkpoints a test writes."""
    return Lineage(
        attempt=attempt, incarnation=incarnation, store_epoch=store_epoch, trainer="fake", config={}, fingerprint="f"
    )


def save_checkpoint(
    root: CheckpointRoot,
    step: int,
    *,
    world_size: int = 1,
    seed: int = 1,
    of: Lineage | None = None,
    committer: RecordingCommitter | None = None,
    verdicts: Sequence[wire.Verdict] = (),
    letters: Sequence[wire.DeadLetter] = (),
    evaluation: wire.EvaluationState | None = None,
) -> wire.CheckpointCommitRequest:
    """Save one checkpoint with `world_size` threads; returns what rank 0 committed."""
    committer = committer or RecordingCommitter()
    failures: list[BaseException] = []

    def one(group: ThreadGroup) -> None:
        writer = CheckpointWriter(root, of or lineage(), group, committer if group.rank == 0 else None)
        pieces = example_pieces(group.rank, world_size, seed=seed)
        try:
            writer.save(
                Save(
                    step=step,
                    pieces=pieces,
                    state=state_at(step, letters),
                    verdicts=tuple(verdicts),
                    evaluation=evaluation,
                )
            )
        except BaseException as error:  # noqa: BLE001  handed to the caller
            failures.append(error)

    threads = [threading.Thread(target=one, args=(group,)) for group in thread_groups(world_size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return committer.requests[-1]


def make_root(path: Path) -> CheckpointRoot:
    """A marked folder."""
    root = CheckpointRoot(path / "checkpoints", JOB)
    root.write_marker()
    return root


def known(request: wire.CheckpointCommitRequest) -> wire.KnownCheckpoint:
    """What the service lists after that commit."""
    return wire.KnownCheckpoint(
        directory=request.directory,
        step=request.step,
        store_epoch=request.store_epoch,
        manifest_digest=request.manifest_digest,
        receipt=f"receipt-{request.step}",
    )
