"""Ranks: gradients are plain sums whatever the width, and equal runs give equal bits."""

from pathlib import Path

import pytest
import torch

from numerics.cases import a_case, a_sample
from numerics.rank_programs import LENGTHS
from numerics.ranks import equal_bits, run_ranks

PROGRAM = "numerics.rank_programs:windows"


@pytest.mark.slow
@pytest.mark.parametrize(("world", "micro"), [(1, 6), (2, 3), (3, 1)], ids=["1x6", "2x3", "3x1-accumulated"])
def test_gradient_of_a_window_is_the_references_sum_at_every_width(tmp_path: Path, world: int, micro: int) -> None:
    ranks = run_ranks(PROGRAM, world, tmp_path, steps=1, micro=micro)
    case = a_case()
    _, _, want = case.reference([a_sample(case.config, n) for n in LENGTHS], float(sum(LENGTHS)))
    for tensors in ranks:
        for name, gradient in want.items():
            torch.testing.assert_close(tensors[f"grad.{name}"].double(), gradient, rtol=2e-4, atol=2e-6)
    squares = sum(float(g.square().sum()) for g in want.values())
    assert float(ranks[0]["norms"][0]) == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.slow
def test_two_ranks_give_equal_bits_at_every_run_and_on_every_rank(tmp_path: Path) -> None:
    first = run_ranks(PROGRAM, 2, tmp_path / "a", steps=3, micro=2)
    second = run_ranks(PROGRAM, 2, tmp_path / "b", steps=3, micro=2)
    assert equal_bits(first[0], second[0])
    assert equal_bits(first[0], first[1])


@pytest.mark.slow
def test_weights_after_three_windows_do_not_depend_on_the_width(tmp_path: Path) -> None:
    one = run_ranks(PROGRAM, 1, tmp_path / "1", steps=3, micro=2)[0]
    two = run_ranks(PROGRAM, 2, tmp_path / "2", steps=3, micro=2)[0]
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=2e-3, atol=2e-4)


@pytest.mark.slow
def test_a_rank_of_holes_reduces_with_the_others(tmp_path: Path) -> None:
    ranks = run_ranks("numerics.rank_programs:holes_on_rank_zero", 3, tmp_path)
    case = a_case()
    _, _, want = case.reference([a_sample(case.config, n) for n in LENGTHS[1:3]])
    for name, gradient in want.items():
        torch.testing.assert_close(ranks[0][name].double(), gradient, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_bfloat16_compute_keeps_float32_masters_and_stays_close(tmp_path: Path) -> None:
    exact = run_ranks(PROGRAM, 2, tmp_path / "f", steps=2, micro=3)[0]
    mixed = run_ranks(PROGRAM, 2, tmp_path / "b", steps=2, micro=3, compute="bfloat16")[0]
    assert all(tensor.dtype is torch.float32 for name, tensor in mixed.items() if name != "norms")
    assert not equal_bits(exact, mixed)
    for name in exact:
        if name.startswith("grad."):
            error = (exact[name] - mixed[name]).norm() / exact[name].norm()
            assert error < 0.05, name
