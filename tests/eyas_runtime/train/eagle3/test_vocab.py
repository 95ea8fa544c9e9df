"""The vocabulary map: properties over any counts, and the engines' offset convention."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import Corrupt, UserError
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map, check_vocab_map

counts_and_size = st.lists(st.integers(0, 5), min_size=1, max_size=40).flatmap(
    lambda counts: st.tuples(st.just(counts), st.integers(1, len(counts)))
)


@given(counts_and_size)
def test_the_map_keeps_the_most_frequent_tokens_and_fills_with_the_lowest(case: tuple[list[int], int]) -> None:
    counts, size = case
    vocab = build_vocab_map(counts, size)
    check_vocab_map(vocab, vocab_size=len(counts), draft_vocab_size=size)
    kept = vocab.target_ids().tolist()
    ranking = sorted(range(len(counts)), key=lambda token: (-counts[token], token))
    assert kept == sorted(ranking[:size])
    assert np.flatnonzero(vocab.t2d).tolist() == kept
    assert (np.diff(vocab.d2t) >= 0).all()


def test_d2t_holds_offsets_as_engines_read_them() -> None:
    vocab = build_vocab_map([0, 9, 0, 9, 0, 0, 9], 4)
    assert vocab.target_ids().tolist() == [0, 1, 3, 6]
    assert vocab.d2t.tolist() == [0, 0, 1, 3]
    assert vocab.d2t.dtype == np.int64
    assert vocab.t2d.dtype == np.bool_


@pytest.mark.parametrize(
    ("d2t", "t2d"),
    [([0, 1], [1, 1, 0]), ([0, 0], [1, 1, 1]), ([0], [1, 1, 0]), ([0, 0], [1, 1])],
    ids=["other-token", "one-too-many", "too-short", "vocabulary-too-small"],
)
def test_a_map_that_contradicts_itself_or_the_draft_is_corrupt(d2t: list[int], t2d: list[int]) -> None:
    vocab = VocabMap(d2t=np.array(d2t, dtype=np.int64), t2d=np.array(t2d, dtype=np.bool_))
    with pytest.raises(Corrupt):
        check_vocab_map(vocab, vocab_size=3, draft_vocab_size=2)


@pytest.mark.parametrize("size", [0, 4])
def test_a_draft_vocabulary_outside_the_targets_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=r"draft\.vocabSize"):
        build_vocab_map([1, 2, 3], size)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(UserError):
        build_vocab_map([1, -1], 1)


def test_prepare_can_use_the_map_without_torch() -> None:
    code = (
        "import sys, eyas_runtime.train.eagle3.vocab, eyas_runtime.train.eagle3.config, "
        "eyas_runtime.train.eagle3.schedule, eyas_runtime.train.eagle3.metrics, "
        "eyas_runtime.train.eagle3.export_keys; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
