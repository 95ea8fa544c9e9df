"""Ranks that split one sample by positions, heads and vocabulary: one rank's sums, and equal bits at each run."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import MANIFEST
from eyas_runtime.train.eagle3.batch import Captured
from numerics.cases import assert_same_counts
from numerics.grid_programs import a_random_case
from numerics.ranks import equal_bits, run_ranks
from support.checkpoints import make_root

Ranks = list[dict[str, Tensor]]
SPLITS = [(2, 1), (3, 1), (1, 2), (2, 2)]
"""Sequence and tensor ranks."""
CASES = {2: 10, 3: 10, 4: 5}
"""Random batches by number of ranks: more ranks than cores take long to meet."""
NAMES = [f"{sequence}x{tensor}" for sequence, tensor in SPLITS]


@pytest.fixture(scope="module")
def batches(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ranks]:
    done: dict[tuple[int, ...], Ranks] = {}

    def run(sequence: int, tensor: int, turn: int = 0) -> Ranks:
        key = (sequence, tensor, turn)
        if key not in done:
            folder = tmp_path_factory.mktemp("grid")
            done[key] = run_ranks(
                "numerics.grid_programs:random_batches", sequence * tensor, folder, sequence=sequence, tensor=tensor,
                cases=CASES[sequence * tensor],
            )  # fmt: skip
        return done[key]

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sequence", "tensor", "seed"),
    [(*split, seed) for split in SPLITS for seed in range(CASES[split[0] * split[1]])],
    ids=[
        f"{name}-{seed}"
        for split, name in zip(SPLITS, NAMES, strict=True)
        for seed in range(CASES[split[0] * split[1]])
    ],
)
def test_split_samples_have_the_references_loss_counts_and_gradients(
    batches: Callable[..., Ranks], sequence: int, tensor: int, seed: int
) -> None:
    case, samples = a_random_case(seed)
    live = [(place, sample) for place, sample in enumerate(samples) if isinstance(sample, Captured)]
    ranks = batches(sequence, tensor)
    if not live:
        assert all(not tensor.any() for name, tensor in ranks[0].items() if name.startswith(f"{seed}."))
        return
    total, outputs, gradients = case.reference([sample for _, sample in live], 3.0)
    for tensors in ranks:
        assert float(tensors[f"{seed}.loss"]) == pytest.approx(total, rel=1e-10, abs=1e-12)
        for name, gradient in gradients.items():
            torch.testing.assert_close(
                tensors[f"{seed}.grad.{name}"], gradient, rtol=1e-8, atol=1e-11, msg=lambda m, n=name: f"{n}: {m}"
            )
        for (place, _), output in zip(live, outputs, strict=True):
            assert_same_counts(tensors[f"{seed}.counts"], place, output)


@pytest.mark.slow
@pytest.mark.parametrize(("sequence", "tensor"), SPLITS[:1], ids=NAMES[:1])
def test_equal_grids_give_equal_bits_at_every_run_and_on_every_rank(
    batches: Callable[..., Ranks], sequence: int, tensor: int
) -> None:
    first, second = batches(sequence, tensor), batches(sequence, tensor, turn=1)
    assert equal_bits(first[0], second[0])
    assert equal_bits(first[0], first[-1])


@pytest.mark.slow
def test_a_checkpoint_of_one_layout_is_the_same_at_every_other(tmp_path: Path) -> None:
    root = make_root(tmp_path / "checkpoints")
    layouts = [(2, 1, 2), (2, 2, 1), (4, 2, 2), (1, 1, 1)]
    found, before = [], ""
    for step, (world, sequence, tensor) in enumerate(layouts, start=1):
        ranks = run_ranks(
            "numerics.grid_programs:carried", world, tmp_path / f"{step}", sequence=sequence, tensor=tensor,
            root=str(root.path), step=step, before=before,
        )  # fmt: skip
        assert all(equal_bits(ranks[0], other) for other in ranks[1:])
        before = next(name for name in root.listed() if name.startswith(f"step-{step:09}"))
        found.append((ranks[0], manifests.decode((root.directory(before) / MANIFEST).read_bytes())))
    first, _ = found[0]
    assert all(first[f"exp_avg.{name}"].any() for name in ("lm_head.weight", "norm.weight"))
    assert all(equal_bits(first, tensors) for tensors, _ in found)
    assert {manifest.weights_sha256 for _, manifest in found} == {found[0][1].weights_sha256}
