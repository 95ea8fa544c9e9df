"""Ranks: gradients are plain sums whatever the width, and equal runs give equal bits."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from numerics.cases import a_case, a_sample
from numerics.grid_programs import SHAPE
from numerics.rank_programs import LENGTHS
from numerics.ranks import equal_bits, run_ranks

Runs = Callable[..., list[dict[str, Tensor]]]
WIDTHS = [
    (1, 6, 1, 1),
    (2, 3, 1, 1),
    (3, 1, 1, 1),
    (2, 2, 2, 1),
    (4, 3, 2, 1),
    (2, 2, 1, 2),
    (4, 2, 2, 2),
]
"""Ranks, places of a micro-batch (1 and 2 accumulate), ranks of a sequence, tensor ranks."""
NAMES = ["1x6", "2x3", "3x1-accumulated", "one-sequence", "two-sequences", "tensor", "both"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Three windows at a width; one run serves every claim about it."""
    done: dict[tuple[object, ...], list[dict[str, Tensor]]] = {}

    def run(
        world: int, micro: int, sequence: int = 1, tensor: int = 1, compute: str = "float32", turn: int = 0
    ) -> list[dict[str, Tensor]]:
        key = (world, micro, sequence, tensor, compute, turn)
        if key not in done:
            folder = tmp_path_factory.mktemp("ranks")
            done[key] = run_ranks(
                "numerics.rank_programs:windows", world, folder, steps=3, micro=micro, compute=compute,
                sequence=sequence, tensor=tensor,
            )  # fmt: skip
        return done[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS, ids=NAMES)
def test_hazard_13_gradient_of_a_window_is_the_references_sum_at_every_width(
    runs: Runs, width: tuple[int, ...]
) -> None:
    ranks = runs(*width)
    case = a_case(**SHAPE)
    _, _, want = case.reference([a_sample(case.config, n) for n in LENGTHS], float(sum(LENGTHS)))
    for tensors in ranks:
        for name, gradient in want.items():
            torch.testing.assert_close(tensors[f"grad.{name}"].double(), gradient, rtol=2e-4, atol=2e-6)
    squares = sum(float(g.square().sum()) for g in want.values())
    for tensors in ranks:
        assert float(tensors["norms"][0]) == pytest.approx(squares**0.5, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("width", [WIDTHS[1], WIDTHS[-1]], ids=[NAMES[1], NAMES[-1]])
def test_equal_ranks_give_equal_bits_at_every_run_and_on_every_rank(runs: Runs, width: tuple[int, ...]) -> None:
    first, second = runs(*width), runs(*width, turn=1)
    assert equal_bits(first[0], second[0])
    assert all(equal_bits(first[0], other) for other in first[1:])


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS[1:], ids=NAMES[1:])
def test_weights_after_three_windows_do_not_depend_on_the_width(runs: Runs, width: tuple[int, ...]) -> None:
    one, many = runs(*WIDTHS[0])[0], runs(*width)[0]
    for name in one:
        torch.testing.assert_close(one[name], many[name], rtol=2e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("world", "sequence", "packing"),
    [(2, 1, 14), (2, 2, 24)],
    ids=["2-ranks-two-turns", "2-ranks-of-one-pack"],
)
def test_packed_ranks_have_the_references_gradient_and_equal_bits(
    tmp_path_factory: pytest.TempPathFactory, world: int, sequence: int, packing: int
) -> None:
    """Packs of one and of two samples side by side, and packs whose rows two ranks share."""
    first, second = (
        run_ranks(
            "numerics.rank_programs:windows",
            world,
            tmp_path_factory.mktemp("packed"),
            steps=3,
            micro=1,
            sequence=sequence,
            packing=packing,
        )
        for _ in range(2)
    )
    case = a_case(**SHAPE)
    _, _, want = case.reference([a_sample(case.config, n) for n in LENGTHS], float(sum(LENGTHS)))
    for name, gradient in want.items():
        torch.testing.assert_close(first[0][f"grad.{name}"].double(), gradient, rtol=2e-4, atol=2e-6)
    assert all(equal_bits(first[0], rank) for rank in (*first[1:], *second))


@pytest.mark.slow
def test_a_rank_of_holes_reduces_with_the_others(tmp_path_factory: pytest.TempPathFactory) -> None:
    ranks = run_ranks("numerics.rank_programs:holes_on_rank_zero", 3, tmp_path_factory.mktemp("holes"))
    case = a_case()
    _, _, want = case.reference([a_sample(case.config, n) for n in LENGTHS[1:3]])
    for name, gradient in want.items():
        torch.testing.assert_close(ranks[0][name].double(), gradient, rtol=2e-4, atol=2e-5)


@pytest.mark.slow
def test_bfloat16_compute_keeps_float32_masters_and_stays_close(runs: Runs) -> None:
    exact, mixed = runs(2, 3)[0], runs(2, 3, compute="bfloat16")[0]
    assert all(tensor.dtype is torch.float32 for name, tensor in mixed.items() if name != "norms")
    assert not equal_bits(exact, mixed)
    for name in exact:
        if name.startswith("grad."):
            error = (exact[name] - mixed[name]).norm() / exact[name].norm()
            assert error < 0.05, name
