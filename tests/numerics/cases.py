"""Builders of tiny drafts, targets and samples in float64, and the reference's answer for a whole batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eyas_runtime.train.eagle3.batch import Batch, Captured, normalise
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig
from eyas_runtime.train.eagle3.loss import Result
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.parameters import initialise
from eyas_runtime.train.eagle3.teacher import target_head
from eyas_runtime.train.eagle3.vocab import VocabMap, build_vocab_map
from numerics.reference import ReferenceInput, ReferenceOutput, unrolled_reference

COUNT_NAMES = ("loss", "correct", "supervised", "accepted", "in_vocab")


def a_config(**changes: object) -> DraftConfig:
    values: dict[str, object] = {
        "hidden_size": 12, "intermediate_size": 20, "num_heads": 4, "num_kv_heads": 2, "head_dim": 6,
        "target_hidden_size": 10, "vocab_size": 29, "draft_vocab_size": 17, "max_position": 64,
    }  # fmt: skip
    return DraftConfig(**{**values, **changes})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A draft with weights far from their initial ones, its target, and its vocabulary."""

    config: DraftConfig
    loss: LossConfig
    draft: Draft
    embedding: Tensor
    head: Tensor
    vocab: VocabMap

    def run(self, samples: Sequence[Captured | None], denominator: float = 1.0) -> tuple[Result, dict[str, Tensor]]:
        """The product's result and gradients for one batch."""
        return self.run_micro([samples], denominator)[-1]

    def run_micro(
        self, parts: Sequence[Sequence[Captured | None]], denominator: float = 1.0
    ) -> list[tuple[Result, dict[str, Tensor]]]:
        """The same for micro-batches whose gradients add up; one entry for each, gradients so far."""
        self.draft.zero_grad()
        head = target_head(self.head, self.vocab, dtype=self.head.dtype)
        out = []
        for samples in parts:
            result = self.draft(normalise(samples, self.config), head, denominator)
            result.loss.backward()
            out.append((result, _gradients(self.draft)))
        return out

    def reference(
        self, samples: Sequence[Captured], denominator: float = 1.0
    ) -> tuple[float, list[ReferenceOutput], dict[str, Tensor]]:
        """The reference's loss, per-sample sums and gradients."""
        self.draft.zero_grad()
        parameters = dict(self.draft.named_parameters())
        outputs = [
            unrolled_reference(
                parameters,
                self.config,
                ReferenceInput(
                    input_ids=s.input_ids, loss_mask=s.loss_mask, aux=s.aux_hidden_state, last=s.hidden_state
                ),
                embedding=self.embedding,
                head=self.head,
                target_ids=torch.from_numpy(self.vocab.target_ids()),
                steps=self.loss.steps,
                lk=self.loss.lk,
            )
            for s in samples
        ]
        decay = torch.tensor([self.loss.decay**k for k in range(self.loss.steps)], dtype=torch.float64)
        total = torch.stack([(o.loss * decay).sum() for o in outputs]).sum() / denominator
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach()), outputs, _gradients(self.draft)


def a_case(loss: LossConfig | None = None, seed: int = 0, **changes: object) -> Case:
    """A case whose weights are random and large enough that nothing cancels."""
    config, loss = a_config(**changes), loss or LossConfig(steps=4)
    generator = torch.Generator().manual_seed(seed)
    vocab = build_vocab_map(np.random.default_rng(seed).integers(0, 9, config.vocab_size), config.draft_vocab_size)
    embedding = torch.randn(config.vocab_size, config.hidden_size, generator=generator, dtype=torch.float64)
    head = torch.randn(config.vocab_size, config.target_hidden_size, generator=generator, dtype=torch.float64)
    draft = Draft(config, loss, embedding, vocab).double()
    initialise(draft, seed)
    with torch.no_grad():
        for parameter in draft.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3)
    return Case(config=config, loss=loss, draft=draft, embedding=embedding, head=head, vocab=vocab)


def a_sample(config: DraftConfig, length: int, seed: int = 0, mask: Sequence[int] | None = None) -> Captured:
    """A random sample of `length` tokens; the mask is random unless given."""
    generator = torch.Generator().manual_seed(1000 * length + seed)
    a = config.target_hidden_size
    return Captured(
        input_ids=torch.randint(0, config.vocab_size, (length,), generator=generator),
        loss_mask=torch.tensor(mask) if mask is not None else torch.randint(0, 2, (length,), generator=generator),
        aux_hidden_state=torch.randn(length, 3 * a, generator=generator, dtype=torch.float64),
        hidden_state=torch.randn(length, a, generator=generator, dtype=torch.float64),
    )


def condemned(batch: Batch, places: Sequence[int]) -> Batch:
    """The same batch, of which `places` weigh nothing although they hold something."""
    return batch._replace(weights=tuple(0.0 if i in places else w for i, w in enumerate(batch.weights)))


def assert_same_gradients(
    got: dict[str, Tensor], want: dict[str, Tensor], *, rtol: float = 1e-9, atol: float = 1e-12
) -> None:
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


def assert_same_counts(counts: Tensor, place: int, want: ReferenceOutput) -> None:
    for row, name in enumerate(COUNT_NAMES):
        torch.testing.assert_close(counts[row, :, place], getattr(want, name).detach(), rtol=1e-10, atol=1e-12)


def _gradients(draft: Draft) -> dict[str, Tensor]:
    out = {}
    for name, parameter in draft.named_parameters():
        assert parameter.grad is not None, f"{name} got no gradient"
        out[name] = parameter.grad.clone()
    return out
