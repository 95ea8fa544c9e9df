"""The fake trainer: milliseconds a step, torch-free, and as strict about history as the real one.

Its weights are a hash of (weights before, step, digest of every live sample by place), its optimizer counts updates
and remembers the last one. So any window that is lost, doubled, reordered, or trained with other bytes gives other
weights for ever, whatever the number of ranks. Shipped for crash suites: the loop around it is the real one.
A sample whose bytes contain `POISON` has bad content; one that contains `POISON_LOSS` shows it only in its loss.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

from eyas_contract.client import MetadataClient
from eyas_contract.errors import Corrupt
from eyas_contract.ids import Incarnation
from eyas_contract.refs import SampleRef
from eyas_runtime import digests
from eyas_runtime.checkpoint.pieces import Piece, whole
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.weights import WEIGHTS
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.train.group import Group
from eyas_runtime.train.ports import Code, MicroBatch
from eyas_runtime.train.service_source import ServiceSource

STATE_ROWS: Final = 16
ROW_BYTES: Final = 4
POISON: Final = b"<poison>"
POISON_LOSS: Final = b"<poison-loss>"
_DIGEST_BYTES: Final = 32


class BlobSource(ServiceSource):
    """`FeatureSource` of raw verified blobs."""

    def __init__(self, blobs: BlobStore, client: MetadataClient, incarnation: Incarnation) -> None:
        super().__init__(client, incarnation)
        self._blobs = blobs

    def get(self, ref: SampleRef) -> bytes:
        """The blob's bytes, compared with the ref's digest."""
        data = self._blobs.get(ref.key, ref.length)
        digests.check(digests.digest_of([data], digests.algorithm_of(ref.digest)), ref.digest, ref.sample_id)
        return bytes(data)

    def close(self) -> None:
        """Close the blob store."""
        self._blobs.close()


class FakeTrainer:
    """`Trainer[bytes]`."""

    kind = "fake"

    def __init__(self, group: Group, *, seed: int) -> None:
        self._group, self._seed = group, seed
        self._weights = b""
        self._moment = b""
        self._updates = 0
        self._seen = bytearray()
        self._losses = 0

    def describe(self) -> dict[str, int | float | str | bool]:
        """See `Trainer`."""
        return {"seed": self._seed}

    def initialise(self) -> None:
        """See `Trainer`."""
        self._weights = hashlib.shake_256(f"initial {self._seed}".encode()).digest(STATE_ROWS * ROW_BYTES)
        self._moment = bytes(STATE_ROWS * ROW_BYTES)
        self._updates = 0

    def load(self, reader: CheckpointReader) -> None:
        """See `Trainer`."""
        if reader.tensor(f"{WEIGHTS}state").shape != (STATE_ROWS, ROW_BYTES):
            raise Corrupt("the checkpoint's state has another shape")
        self._weights = reader.read(f"{WEIGHTS}state").tobytes()
        self._moment = reader.read("optimizer/moment").tobytes()
        self._updates = int.from_bytes(reader.read("optimizer/updates").tobytes(), "little")

    def inspect(self, ref: SampleRef, sample: bytes) -> Code:
        """See `Trainer`."""
        return Code.NOT_FINITE if POISON in sample else Code.FINE

    def begin(self, step: int, places: int) -> None:
        """See `Trainer`."""
        self._seen = bytearray(places * _DIGEST_BYTES)
        self._losses = 0

    def accumulate(self, batch: MicroBatch[bytes], denominator: float) -> tuple[int, ...]:
        """See `Trainer`."""
        bad = []
        for place, sample in zip(batch.places, batch.samples, strict=True):
            if place is None or sample is None:
                continue
            if POISON_LOSS in sample:
                bad.append(place)
            begin = place * _DIGEST_BYTES
            self._seen[begin : begin + _DIGEST_BYTES] = hashlib.sha256(sample).digest()
        return tuple(bad)

    def begin_evaluation(self, places: int) -> None:
        """See `Trainer`."""
        self._seen = bytearray(places * _DIGEST_BYTES)
        self._losses = 0

    def evaluate(self, batch: MicroBatch[bytes], denominator: float) -> tuple[int, ...]:
        """See `Trainer`: the loss of a sample is a number below 2 ** 32 that hangs on the weights and its bytes."""
        for sample in batch.samples:
            if sample is not None:
                mixed = hashlib.sha256(self._weights + hashlib.sha256(sample).digest()).digest()
                self._losses += int.from_bytes(mixed[:4], "little")
        return self.accumulate(batch, denominator)

    def totals(self) -> tuple[float, ...]:
        """See `Trainer`."""
        seen = range(0, len(self._seen), _DIGEST_BYTES)
        return float(sum(any(self._seen[i : i + _DIGEST_BYTES]) for i in seen)), float(self._losses)

    def metrics(self, totals: Sequence[float], denominator: float) -> dict[str, float]:
        """See `Trainer`."""
        if totals[1]:
            return {"loss": totals[1] / totals[0] / 2**32, "denominator": denominator, "measured": totals[0]}
        return {"loss": 1.0 / (1.0 + self._updates), "denominator": denominator, "trained": totals[0]}

    def healthy(self) -> bool:
        """See `Trainer`."""
        return True

    def apply(self, step: int) -> dict[str, float]:
        """See `Trainer`."""
        parts = self._group.all_gather(bytes(self._seen))
        union = bytes(map(max, zip(*parts, strict=True)))
        update = hashlib.shake_256(self._weights + step.to_bytes(8, "little") + union).digest(STATE_ROWS * ROW_BYTES)
        self._moment = hashlib.shake_256(self._moment + update).digest(STATE_ROWS * ROW_BYTES)
        self._weights = bytes(a ^ b for a, b in zip(update, self._moment, strict=True))
        self._updates += 1
        return {"learning_rate": 1e-4, "grad_norm": 1.0}

    def pieces(self) -> Sequence[Piece]:
        """Rows are dealt to ranks in runs, as FSDP deals them, so that layouts and resharding are exercised."""
        pieces = [
            piece
            for name, data in ((f"{WEIGHTS}state", self._weights), ("optimizer/moment", self._moment))
            for piece in self._rows(name, data)
        ]
        if self._group.rank == 0:
            pieces.append(whole("optimizer/updates", "int64", (), self._updates.to_bytes(8, "little")))
        return pieces

    def _rows(self, name: str, data: bytes) -> list[Piece]:
        chunk = -(-STATE_ROWS // self._group.world_size)
        first = min(self._group.rank * chunk, STATE_ROWS)
        last = min(first + chunk, STATE_ROWS)
        if first == last:
            return []
        return [
            Piece(
                name=name,
                dtype="uint8",
                shape=(STATE_ROWS, ROW_BYTES),
                offset=(first, 0),
                extent=(last - first, ROW_BYTES),
                data=memoryview(data)[first * ROW_BYTES : last * ROW_BYTES],
            )
        ]
