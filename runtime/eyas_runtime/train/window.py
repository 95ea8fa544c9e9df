"""What one window asks of the ranks: who takes which place, and by what the loss is divided. Pure."""

from dataclasses import dataclass

from eyas_contract import wire
from eyas_contract.refs import SampleRef
from eyas_runtime.core import packing, windows
from eyas_runtime.train.eagle3.config import Normalisation, denominator
from eyas_runtime.train.ports import REASONS, Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """One rank's part of one window."""

    step: int
    version: int
    training_step: int
    """The optimizer step that a training window makes; of an evaluation window, how many were made before it."""
    entries: tuple[wire.WindowEntry, ...]
    batches: tuple[windows.MicroBatch, ...]
    """Indices into `entries`, or None for padding; the same number on every rank."""

    def mine(self) -> dict[int, SampleRef]:
        """Live refs of this rank by place."""
        return {
            place: ref
            for batch in self.batches
            for place in batch
            if place is not None and (ref := self.entries[place].ref) is not None
        }

    def live(self, codes: bytes) -> tuple[SampleRef, ...]:
        """Refs of all ranks' places that are no hole and have no verdict in `codes` (one byte a place)."""
        return tuple(
            entry.ref for entry, code in zip(self.entries, codes, strict=True) if entry.ref is not None and not code
        )

    def denominator(self, codes: bytes, normalisation: Normalisation) -> float:
        """From the refs of the live samples of all ranks, never from padded shapes; at least 1."""
        live = self.live(codes)
        return denominator(
            normalisation,
            num_tokens=sum(ref.num_tokens for ref in live),
            num_supervised=sum(ref.num_supervised for ref in live),
        )

    def verdicts(self, codes: bytes) -> tuple[wire.Verdict, ...]:
        """The agreed verdicts, in sequence order."""
        return tuple(
            wire.Verdict(sequence=entry.sequence, step=self.step, reason=REASONS[Code(code)])
            for entry, code in zip(self.entries, codes, strict=True)
            if code
        )


def data_place(*, rank: int, world_size: int, ranks_per_sample: int) -> tuple[int, int]:
    """(place, places) of `rank` among those that take different samples: neighbours split the same ones."""
    return rank // ranks_per_sample, world_size // ranks_per_sample


def share_of(
    order: wire.Order,
    *,
    rank: int,
    world_size: int,
    micro_batch_size: int,
    packing_tokens: int | None = None,
    training_step: int | None = None,
) -> Share:
    """The part of `rank` of a train order: a fixed number of samples a micro-batch, or packs of `packing_tokens`.

    Without `training_step`, every window is an optimizer step.
    """
    if packing_tokens is None:
        batches = windows.share(
            rank=rank, world=world_size, places=len(order.entries), micro_batch_size=micro_batch_size
        )
    else:
        tokens = [None if entry.ref is None else entry.ref.num_tokens for entry in order.entries]
        batches = packing.packs(tokens, world=world_size, max_tokens=packing_tokens)[rank]
    return Share(
        step=order.step,
        version=order.version,
        training_step=order.step if training_step is None else training_step,
        entries=order.entries,
        batches=batches,
    )


def mine_of_prefetch(
    order: wire.Order, *, window_size: int, rank: int, world_size: int, packing_tokens: int | None = None
) -> tuple[SampleRef, ...]:
    """Those of the refs of the window after `order` that `rank` will be given, as far as that is known yet.

    Unpacked, a sample's place is its position inside its window. Packed, one more sample may move any other to
    another rank, so nothing is known before the window is whole; a rank that is alone is given everything.
    """
    refs, first = order.prefetch, order.entries[-1].sequence + 1
    if packing_tokens is None or world_size == 1:
        return tuple(ref for ref in refs if (ref.sequence - first) % world_size == rank)
    if len(refs) < window_size:
        return ()
    mine = packing.packs([ref.num_tokens for ref in refs], world=world_size, max_tokens=packing_tokens)[rank]
    return tuple(refs[place] for pack in mine for place in pack if place is not None)
