"""Shapes of the draft and of its objective, as frozen values. Torch-free; no I/O.

A draft's shape is derived from its target's `config.json`: one decoder layer with the target's own head layout.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from eyas_contract.errors import UserError

Normalisation = Literal["AllPositions", "Supervised"]
LkKind = Literal["alpha", "lambda"]
AUX_LAYERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftConfig:
    """Shape of one EAGLE3 draft. Raises `UserError` where the numbers do not fit together."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    target_hidden_size: int
    vocab_size: int
    """Rows of the target's embedding and output matrix (V)."""
    draft_vocab_size: int
    """Tokens that the draft can say (D)."""
    max_position: int
    """Longest sample in tokens; the unrolled steps go beyond it by themselves."""
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    fc_norm: bool = False
    """EAGLE 3.1: an RMSNorm on each of the three captured layers before `fc`."""
    norm_output: bool = False
    """EAGLE 3.1: the final norm's output, not its input, is what the next unrolled step gets."""
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name in (
            "hidden_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim", "target_hidden_size",
            "vocab_size", "draft_vocab_size", "max_position",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise UserError(f"draft.{name} is {getattr(self, name)}: give a number of at least 1")
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"draft.num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise UserError(f"draft.head_dim {self.head_dim} is odd: rotary positions need pairs")
        if self.draft_vocab_size > self.vocab_size:
            raise UserError(
                f"draft.vocabSize {self.draft_vocab_size} exceeds the target's vocabulary {self.vocab_size}"
            )

    @classmethod
    def from_target_config(
        cls,
        target: Mapping[str, Any],
        *,
        draft_vocab_size: int,
        max_position: int,
        fc_norm: bool = False,
        norm_output: bool = False,
        intermediate_size: int | None = None,
    ) -> "DraftConfig":
        """Build the draft's shape from a target's `config.json`.

        `target` is the decoded JSON of a Llama-like model; a multimodal one is read below its `text_config`.
        A vocabulary smaller than `draft_vocab_size` makes the draft's vocabulary the whole of it.
        Raises `UserError` if a field is missing or does not fit.
        """
        text = target.get("text_config", target)
        hidden, heads = _int(text, "hidden_size"), _int(text, "num_attention_heads")
        rope = text.get("rope_parameters") or {}
        vocab = _int(text, "vocab_size")
        return cls(
            hidden_size=hidden,
            intermediate_size=intermediate_size or _int(text, "intermediate_size"),
            num_heads=heads,
            num_kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or hidden // heads),
            target_hidden_size=hidden,
            vocab_size=vocab,
            draft_vocab_size=min(draft_vocab_size, vocab),
            max_position=max_position,
            rms_norm_eps=float(text.get("rms_norm_eps", 1e-5)),
            rope_theta=float(text.get("rope_theta") or rope.get("rope_theta") or 10000.0),
            fc_norm=fc_norm,
            norm_output=norm_output,
            initializer_range=float(text.get("initializer_range") or 0.02),
        )


def capture_layers(num_hidden_layers: int) -> tuple[int, int, int]:
    """Default decoder layers whose outputs are captured: 1, n/2 - 1 and n - 4 of n layers.

    Id k means the output of decoder layer k, Hugging Face's `hidden_states[k + 1]`. Raises `UserError` below the
    five layers that make the three ids lawful.
    """
    n = num_hidden_layers
    ids = (1, n // 2 - 1, n - 4)
    if n < 5 or min(ids) < 0:
        raise UserError(f"the target has {n} decoder layers: name the three capture layers in the job")
    return ids


@dataclass(frozen=True, slots=True, kw_only=True)
class LkConfig:
    """The optional LK objective, which trains the expected acceptance rate a_t = sum_i min(p_i, q_i) directly.

    `alpha`: -log a_t. `lambda`: w x KL + (1 - w)(1 - a_t) with w = kl_scale x exp(-kl_decay x a_t), w part of the
    gradient. Both are taken position by position, never of a batch mean: a mean over whatever one rank or
    micro-batch holds would make the gradient depend on the width.
    """

    kind: LkKind
    kl_scale: float = 1.0
    kl_decay: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """The unrolled objective: sum over k < steps of decay^k x loss_k, each divided by one denominator."""

    steps: int = 7
    decay: float = 0.8
    normalisation: Normalisation = "AllPositions"
    lk: LkConfig | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 32:
            raise UserError(f"draft.steps is {self.steps}: give 1 to 32")
        if not (math.isfinite(self.decay) and 0 < self.decay <= 1):
            raise UserError(f"draft.decay is {self.decay}: give a number above 0 and up to 1")
        if self.normalisation not in ("AllPositions", "Supervised"):
            raise UserError(f"training.lossNormalisation {self.normalisation!r}: give AllPositions or Supervised")


def denominator(normalisation: Normalisation, *, num_tokens: int, num_supervised: int) -> float:
    """Denominator of a window from its refs' true sums, never from padded shapes; at least 1.

    `num_tokens` and `num_supervised` are sums over the window's live samples on all ranks.
    """
    return float(max(1, num_tokens if normalisation == "AllPositions" else num_supervised))


def _int(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(f"the target's config.json has no whole number {key}")
    return value
