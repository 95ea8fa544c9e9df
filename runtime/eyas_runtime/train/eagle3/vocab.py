"""Which of the target's tokens the draft can say. Torch-free, so that the prepare step can use it.

The D most frequent tokens at supervised positions are kept, ties going to the lower id, and the lowest unused ids
fill up. `d2t` holds offsets, as the serving engines expect: target id = draft id + d2t[draft id].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from eyas_contract.errors import Corrupt, UserError

Int64Array = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class VocabMap:
    """d2t: int64 [D] offsets. t2d: bool [V], true where the target's token is in the draft's vocabulary."""

    d2t: Int64Array
    t2d: BoolArray

    def target_ids(self) -> Int64Array:
        """int64 [D], ascending: the target's token of each draft token."""
        return self.d2t + np.arange(len(self.d2t), dtype=np.int64)


def build_vocab_map(counts: Int64Array | Sequence[int], draft_vocab_size: int) -> VocabMap:
    """Keep the `draft_vocab_size` most frequent tokens of `counts` (int64 [V]); pure and deterministic.

    Raises `UserError` if D is not within 1..V or a count is negative.
    """
    array = np.asarray(counts, dtype=np.int64)
    if array.ndim != 1 or not 1 <= draft_vocab_size <= array.size:
        raise UserError(f"draft.vocabSize {draft_vocab_size} is outside 1..{array.size}")
    if (array < 0).any():
        raise UserError("a token count is negative")
    # A stable sort by descending count breaks ties by the lower id and leaves unused ids in ascending order,
    # which is exactly the order in which they fill up.
    kept = np.sort(np.argsort(-array, kind="stable")[:draft_vocab_size])
    t2d = np.zeros(array.size, dtype=np.bool_)
    t2d[kept] = True
    return VocabMap(d2t=kept - np.arange(draft_vocab_size, dtype=np.int64), t2d=t2d)


def check_vocab_map(vocab: VocabMap, *, vocab_size: int, draft_vocab_size: int) -> None:
    """Raise `Corrupt` unless shapes fit and the true positions of t2d equal d2t + 0..D-1."""
    if vocab.t2d.shape != (vocab_size,) or vocab.d2t.shape != (draft_vocab_size,):
        raise Corrupt(
            f"the vocabulary map is {vocab.d2t.shape} of {vocab.t2d.shape}, "
            f"the draft needs {draft_vocab_size} of {vocab_size}"
        )
    if not np.array_equal(np.flatnonzero(vocab.t2d), vocab.target_ids()):
        raise Corrupt("the vocabulary map contradicts itself: t2d does not mark d2t + 0..D-1")
