"""The numeric suite must notice every one of these slips: each is planted in a copy of the sources and must fail it."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EAGLE3 = "eyas_runtime/train/eagle3"
NUMERICS = ("tests/numerics/test_alignment.py", "tests/numerics/test_unroll.py")
PACKING = ("tests/numerics/test_packing.py",)
BATCH = ("tests/eyas_runtime/train/eagle3/test_batch.py",)
SEQUENCE = ("tests/numerics/test_grid.py", "-k", "references and 2x1")
TENSOR = ("tests/numerics/test_grid.py", "-k", "references and 1x2")
NORMS = ("tests/numerics/test_sharding.py", "-k", "references_sum and tensor")
SECONDS_MAX = 300


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """`old` occurs once in `file` and becomes `new`; `tests` must then fail."""

    file: str
    old: str
    new: str
    tests: tuple[str, ...] = NUMERICS


MUTANTS = {
    "tokens-not-shifted": Mutant(
        file="batch.py", old="sample.input_ids[1:]", new="sample.input_ids[:-1]", tests=NUMERICS
    ),
    "targets-not-shifted": Mutant(file="batch.py", old="sample.hidden_state[1:]", new="sample.hidden_state[:-1]"),
    "mask-shifted-too": Mutant(file="batch.py", old="sample.loss_mask[:-1] != 0", new="sample.loss_mask[1:] != 0"),
    "last-position-not-masked": Mutant(
        file="batch.py",
        old="mask[start:last] = sample.loss_mask[:-1] != 0",
        new="mask[start : last + 1] = sample.loss_mask != 0",
    ),
    "denominator-from-padded-shape": Mutant(
        file="loss.py",
        old="loss.decay**k / denominator for",
        new="loss.decay**k / (plan.batch_size * plan.blocks[0][1]) for",
    ),
    "decay-off-by-one": Mutant(
        file="loss.py", old="loss.decay**k / denominator for", new="loss.decay**(k + 1) / denominator for"
    ),
    "diagonal-key-of-the-wrong-step": Mutant(
        file="unroll.py",
        old="plan.blocks, later_keys, later_values)",
        new="plan.blocks, later_keys[::-1], later_values)",
    ),
    "no-diagonal-keys": Mutant(
        file="unroll.py", old="plan.blocks, later_keys, later_values)", new="plan.blocks, [], [])"
    ),
    "rotary-position-without-step": Mutant(file="unroll.py", old="rotation(positions + k,", new="rotation(positions,"),
    "embedding-shift-off-by-one": Mutant(
        file="plan.py", old="number[active + k], -1)", new="number[active + max(k - 1, 0)], -1)"
    ),
    "teacher-not-shifted-by-step": Mutant(
        file="plan.py", old="(supervised_flat - k).clamp_min(0)", new="supervised_flat"
    ),
    "activity-one-step-short": Mutant(
        file="plan.py",
        old="range(1, min(steps, supervised.numel()))",
        new="range(1, min(steps, supervised.numel()) - 1)",
    ),
    "holes-count": Mutant(file="plan.py", old=" & live[grid.sample]", new=""),
    "sees-the-future": Mutant(
        file="attention.py",
        old="flash_attention_for_cpu(q, k, v, 0.0, True,",
        new="flash_attention_for_cpu(q, k, v, 0.0, False,",
    ),
    "backward-with-the-causal-denominator": Mutant(
        file="attention.py", old="index_copy(0, slots, joint.squeeze(-1))", new="clone()"
    ),
    "embedding-and-hidden-swapped": Mutant(file="unroll.py", old="embed_q=q[:, :size]", new="embed_q=q[:, size:]"),
    "mask-forgets-the-draft-vocabulary": Mutant(
        file="loss.py",
        old="kept = teacher.in_vocab.nonzero()",
        new="kept = (teacher.in_vocab | True).nonzero()",
    ),
    "tie-goes-to-the-draft": Mutant(
        file="teacher.py", old="(head.draft_ids[best] < rest_id)", new="(head.draft_ids[best] >= 0)"
    ),
    "acceptance-on-the-draft-scale": Mutant(file="loss.py", old="logits.sub_(lse[:, None]).exp_()", new="p.clone()"),
    "accuracy-over-pairs": Mutant(
        file="loss.py", old='"supervised": plan.pair_rows[k] >= 0', new='"supervised": plan.pair_rows[k] > 0'
    ),
    "cut-after-masking": Mutant(
        file="batch.py", old="loss_mask=mask[:limit]", new="loss_mask=mask[-limit:]", tests=BATCH
    ),
    "one-samples-nan-in-all-counts": Mutant(
        file="loss.py",
        old="torch.where(mine, value.to(torch.float64), 0.0)",
        new="(mine * value.to(torch.float64))",
    ),
    "teachers-nan-vanishes": Mutant(file="teacher.py", old="in_vocab |= ~lse.isfinite()", new="pass"),
    "pack-sees-its-neighbours": Mutant(
        file="plan.py",
        old="((len(list(equal)), span) for span, equal in groupby(end for end in ends if end))",
        new="[(1, sum(ends))] if sum(ends) else []",
        tests=PACKING,
    ),
    "pack-positions-go-on": Mutant(
        file="plan.py", old="positions=grid.column[key_flat]", new="positions=key_flat", tests=PACKING
    ),
    "pack-teaches-across-a-border": Mutant(
        file="plan.py", old="torch.where(offset >= k,", new="torch.where(k >= 0,", tests=PACKING
    ),
    "pack-shift-crosses-a-border": Mutant(
        file="plan.py", old="beyond[active + k] == owner", new="beyond[active + k] >= 0", tests=PACKING
    ),
    "pack-activity-crosses-a-border": Mutant(
        file="plan.py",
        old="supervised[k:] & (grid.sample[:-k] == grid.sample[k:])",
        new="supervised[k:]",
        tests=PACKING,
    ),
    "pack-blames-its-first-sample": Mutant(
        file="plan.py",
        old="sample, offset = grid.sample[supervised_flat],",
        new="sample, offset = grid.sample[supervised_flat] * 0,",
        tests=PACKING,
    ),
    "pack-divides-by-its-own-length": Mutant(
        file="loss.py",
        old="loss.decay**k / denominator for",
        new="loss.decay**k / max(1, plan.key_rows.numel()) for",
        tests=PACKING,
    ),
    "pack-keeps-its-verdicts": Mutant(file="plan.py", old=" & live[grid.sample]", new="", tests=PACKING),
    "gradient-is-a-mean-over-ranks": Mutant(
        file="parallelize.py",
        old="sharded.set_gradient_divide_factor(1.0)",
        new="sharded.set_gradient_divide_factor(2.0)",
        tests=("tests/numerics/test_sharding.py::test_a_rank_of_holes_reduces_with_the_others",),
    ),
    "attentions-parts-not-added": Mutant(
        file="unroll.py",
        old="leave(linear(attended.flatten(1), w.out), line)",
        new="linear(attended.flatten(1), w.out)",
        tests=TENSOR,
    ),
    "gradient-of-a-norm-from-one-rank": Mutant(
        file="exchange.py", old="return added(grads[0], ctx.line), None", new="return grads[0], None", tests=TENSOR
    ),
    "gradient-of-parts-added-again": Mutant(
        file="exchange.py",
        old="        return grads[0], None\n",
        new="        return added(grads[0], Line(rank=0, size=2, group=torch.distributed.group.WORLD)), None\n",
        tests=TENSOR,
    ),
    "softmax-of-this-ranks-columns": Mutant(
        file="columns.py", old="added(values.exp().sum(dim=1), line)", new="values.exp().sum(dim=1)", tests=TENSOR
    ),
    "logits-gradient-from-one-rank": Mutant(
        file="loss.py", old="sums.grad_x = added(sums.grad_x, head.line)", new="pass", tests=TENSOR
    ),
    "best-column-without-its-rank": Mutant(
        file="columns.py", old="column + line.rank * logits.shape[1]", new="column", tests=TENSOR
    ),
    "equal-parameters-counted-by-every-rank": Mutant(
        file="tensor_slices.py", old="line.rank > 0 and name not in SPLIT", new="False", tests=NORMS
    ),
    "no-halo": Mutant(file="split.py", old="beyond[row[first:last]] = True", new="pass", tests=SEQUENCE),
    "halo-of-one-step": Mutant(
        file="split.py", old="for row in plan.shifted:", new="for row in plan.shifted[:2]:", tests=SEQUENCE
    ),
    "loss-of-border-rows-on-both-ranks": Mutant(
        file="split.py",
        old="(plan.pair_rows < last)",
        new="(plan.pair_rows <= last)",
        tests=SEQUENCE,
    ),
    "key-gradients-stay-with-who-made-them": Mutant(
        file="exchange.py",
        old="return dealt(parts, ctx.line)[",
        new="return parts[ctx.line.rank][",
        tests=SEQUENCE,
    ),
    "keys-of-this-rank-only": Mutant(
        file="exchange.py",
        old="    parts = gathered(padded, line)\n",
        new="    parts = padded.expand(line.size, *padded.shape)\n",
        tests=SEQUENCE,
    ),
}


def run_suite(sources: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS_MAX, check=False,
    )  # fmt: skip


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    copy = tmp_path / "runtime"
    shutil.copytree(ROOT / "runtime", copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


@pytest.mark.slow
def test_the_copy_is_what_is_tested_and_passes_unchanged(sources: Path) -> None:
    result = run_suite(sources, (*NUMERICS, *PACKING, *BATCH))
    assert result.returncode == 0, result.stdout
    (sources / EAGLE3 / "plan.py").write_text("raise RuntimeError('the copy is imported')\n")
    assert "the copy is imported" in run_suite(sources, NUMERICS).stdout


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_every_slip_still_has_its_one_place(mutant: Mutant) -> None:
    assert (ROOT / "runtime" / EAGLE3 / mutant.file).read_text().count(mutant.old) == 1


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_the_suite_notices(mutant: Mutant, sources: Path) -> None:
    file = sources / EAGLE3 / mutant.file
    text = file.read_text()
    file.write_text(text.replace(mutant.old, mutant.new))
    result = run_suite(sources, mutant.tests)
    assert result.returncode == 1, result.stdout
    assert "FAILED" in result.stdout
