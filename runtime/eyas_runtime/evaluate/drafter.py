"""The draft at work: EAGLE3's recurrence token by token, with a key-value cache.

Position t takes the captured layers of position t and the embedding of token t+1, and predicts token t+2. Beyond the
last captured position the draft feeds on itself: its own output (before the final norm) and the embedding of the token
it has just proposed. Those entries are guesses: they leave the cache when the target has spoken, and the true captures
take their place. Plain and unfused on purpose: it shares no code with the trainer's unrolled form, so that the one
proves the other.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from eyas_contract.errors import UserError
from eyas_runtime.export.reading import ExportedDraft
from eyas_runtime.train.eagle3.config import AUX_LAYERS

_LAYER: Final = "midlayer."


class Drafter:
    """One sequence at a time. T positions, H draft width, A target width, N heads, E head width."""

    def __init__(
        self, draft: ExportedDraft, target_embedding: Tensor, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        """`target_embedding` [V, H] serves where the draft carries none. Raises `UserError` when it does not fit."""
        self.config = draft.config
        self._w: Mapping[str, Tensor] = {
            name: tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)
            for name, tensor in draft.tensors.items()
        }
        embedding = draft.embedding if draft.embedding is not None else target_embedding
        if embedding.shape != (draft.config.vocab_size, draft.config.hidden_size):
            raise UserError(
                f"the draft needs an embedding {(draft.config.vocab_size, draft.config.hidden_size)}, the target has "
                f"{tuple(embedding.shape)}: is it the target that the draft was trained for?"
            )
        self._embedding = embedding.to(device, dtype)
        self._to_target = torch.from_numpy(draft.vocab.target_ids()).to(device)
        self._keys = torch.empty(0)
        self._values = torch.empty(0)
        self.reset()

    @property
    def length(self) -> int:
        """Positions in the cache that rest on true captures."""
        return self._true

    def reset(self) -> None:
        """Forget the sequence."""
        shape = (self.config.num_kv_heads, 0, self.config.head_dim)
        self._keys, self._values = self._embedding.new_empty(shape), self._embedding.new_empty(shape)
        self._true = 0

    @torch.inference_mode()
    def extend(self, aux: Tensor, next_tokens: Tensor) -> Tensor:
        """Take true captures `aux` [T, 3A] of the next T positions, with int64 [T] of the tokens after each of them.

        Returns the layer's output at the last of them, [1, H].
        """
        self._drop_guesses()
        hidden = self._fuse(aux.to(self._embedding.dtype))
        out = self._layer(hidden, next_tokens, self._true)
        self._true += len(next_tokens)
        return out[-1:]

    @torch.inference_mode()
    def propose(self, hidden: Tensor, count: int) -> list[int]:
        """Up to `count` target token ids, greedily, from the output `hidden` [1, H] that `extend` gave."""
        self._drop_guesses()
        proposed: list[int] = []
        while True:
            normed = self._norm(hidden, "norm.weight")
            best = functional.linear(normed, self._w["lm_head.weight"]).argmax(dim=-1)
            token = self._to_target[best]
            proposed.append(int(token))
            if len(proposed) == count:
                return proposed
            carried = normed if self.config.norm_output else hidden
            hidden = self._layer(carried, token, self._keys.shape[1])

    def _drop_guesses(self) -> None:
        self._keys, self._values = self._keys[:, : self._true], self._values[:, : self._true]

    def _fuse(self, aux: Tensor) -> Tensor:
        if self.config.fc_norm:
            chunks = aux.chunk(AUX_LAYERS, dim=-1)
            aux = torch.cat([self._norm(chunk, f"fc_norm.{i}.weight") for i, chunk in enumerate(chunks)], dim=-1)
        return functional.linear(aux, self._w["fc.weight"])

    def _layer(self, hidden: Tensor, tokens: Tensor, first: int) -> Tensor:
        """One pass of the decoder layer over T new positions that begin at position `first`: [T, H]."""
        embedded = self._norm(self._embedding[tokens], f"{_LAYER}input_layernorm.weight")
        both = torch.cat((embedded, self._norm(hidden, f"{_LAYER}hidden_norm.weight")), dim=-1)
        q, k, v = (self._heads(both, name) for name in ("q_proj", "k_proj", "v_proj"))
        positions = torch.arange(first, first + len(tokens), device=hidden.device)
        self._keys = torch.cat((self._keys, self._rotate(k, positions)), dim=1)
        self._values = torch.cat((self._values, v), dim=1)
        mixed = self._attend(self._rotate(q, positions), positions)
        hidden = hidden + functional.linear(mixed, self._w[f"{_LAYER}self_attn.o_proj.weight"])
        normed = self._norm(hidden, f"{_LAYER}post_attention_layernorm.weight")
        gate = functional.silu(functional.linear(normed, self._w[f"{_LAYER}mlp.gate_proj.weight"]))
        up = functional.linear(normed, self._w[f"{_LAYER}mlp.up_proj.weight"])
        return hidden + functional.linear(gate * up, self._w[f"{_LAYER}mlp.down_proj.weight"])

    def _attend(self, q: Tensor, positions: Tensor) -> Tensor:
        """q [N, T, E] over the whole cache, each query up to its own position: [T, N x E]."""
        groups = self.config.num_heads // self.config.num_kv_heads
        keys, values = self._keys.repeat_interleave(groups, dim=0), self._values.repeat_interleave(groups, dim=0)
        scores = q @ keys.transpose(1, 2) / self.config.head_dim**0.5
        hidden_from = torch.arange(keys.shape[1], device=q.device)[None, :] > positions[:, None]
        weights = scores.masked_fill(hidden_from, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
        mixed: Tensor = weights @ values
        return mixed.transpose(0, 1).flatten(1)

    def _heads(self, both: Tensor, name: str) -> Tensor:
        """Projection `name` of [T, 2H] as [heads, T, E]."""
        out = functional.linear(both, self._w[f"{_LAYER}self_attn.{name}.weight"])
        return out.reshape(len(out), -1, self.config.head_dim).transpose(0, 1)

    def _rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        size = self.config.head_dim
        exponent = torch.arange(0, size, 2, dtype=torch.float64, device=x.device) / size
        angle = positions.to(torch.float64)[:, None] * self.config.rope_theta**-exponent
        cos, sin = (torch.cat((part, part), dim=-1).to(x.dtype) for part in (angle.cos(), angle.sin()))
        low, high = x.chunk(2, dim=-1)
        turned: Tensor = x * cos + torch.cat((-high, low), dim=-1) * sin
        return turned

    def _norm(self, x: Tensor, name: str) -> Tensor:
        weight = self._w[name]
        return functional.rms_norm(x, weight.shape, weight, self.config.rms_norm_eps)
