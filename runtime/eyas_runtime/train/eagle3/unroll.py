"""The training-time test: K steps of the draft over the active rows of a batch.

Step k's input at position t is the embedding of token t+1+k and the layer's own output of step k-1 (fc of the
captured layers at step 0). The embedding's half of q, k and v at (t, k) equals that of (t+k, 0), so it is computed
once per position and only shifted afterwards; rotary positions, which do differ, are applied after the sum.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from eyas_runtime.train.eagle3.attention import scatter, step_attention
from eyas_runtime.train.eagle3.batch import Batch
from eyas_runtime.train.eagle3.config import AUX_LAYERS
from eyas_runtime.train.eagle3.exchange import enter, gather_rows, leave
from eyas_runtime.train.eagle3.parameters import Parameters
from eyas_runtime.train.eagle3.plan import KeyShares, Plan
from eyas_runtime.train.eagle3.products import linear
from eyas_runtime.train.eagle3.rotary import rotate, rotation


class _Weights(NamedTuple):
    """Joined or sliced weights, made once per call so that K steps share them."""

    embed_q: Tensor
    embed_kv: Tensor
    hidden_q: Tensor
    hidden_kv: Tensor
    hidden_qkv: Tensor
    out: Tensor
    gate_up: Tensor
    down: Tensor


def _weights(draft: Parameters) -> _Weights:
    attention, mlp, size = draft.midlayer.self_attn, draft.midlayer.mlp, draft.config.hidden_size
    q, k, v = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
    kv = torch.cat((k, v))
    hidden_q, hidden_kv = q[:, size:].contiguous(), kv[:, size:].contiguous()
    return _Weights(
        embed_q=q[:, :size].contiguous(),
        embed_kv=kv[:, :size].contiguous(),
        hidden_q=hidden_q,
        hidden_kv=hidden_kv,
        hidden_qkv=torch.cat((hidden_q, hidden_kv)),
        out=attention.o_proj.weight,
        gate_up=torch.cat((mlp.gate_proj.weight, mlp.up_proj.weight)),
        down=mlp.down_proj.weight,
    )


def _fuse(draft: Parameters, aux: Tensor) -> Tensor:
    """Captured layers [P, 3A] to the draft's width [P, H]."""
    if draft.config.fc_norm:
        chunks = aux.chunk(AUX_LAYERS, dim=-1)
        aux = torch.cat([norm(chunk) for norm, chunk in zip(draft.fc_norm, chunks, strict=True)], dim=-1)
    return linear(aux, draft.fc.weight)


def _finish(draft: Parameters, w: _Weights, residual: Tensor, attended: Tensor) -> Tensor:
    """Output projection and MLP, each with its residual: [R, H]."""
    line = draft.grid.tensor
    hidden = residual + leave(linear(attended.flatten(1), w.out), line)
    normed = enter(draft.midlayer.post_attention_layernorm(hidden), line)
    gate, up = linear(normed, w.gate_up).chunk(2, dim=-1)
    return hidden + leave(linear(functional.silu(gate) * up, w.down), line)


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """[rows, N x E] as [rows, N, E]."""
    return x.reshape(x.shape[0], x.shape[1] // head_dim, head_dim)


def _of_all_ranks(k0: Tensor, v0: Tensor, shares: KeyShares | None) -> tuple[Tensor, Tensor]:
    """Step 0's keys and values [P, G, E] of every sequence rank's own rows, rank after rank."""
    if shares is None:
        return k0, v0
    own = torch.cat((k0, v0), dim=1)[: shares.sizes[shares.line.rank]]
    k0, v0 = gather_rows(own, shares.line, shares.sizes).chunk(2, dim=1)
    return k0, v0


def unroll(draft: Parameters, batch: Batch, plan: Plan, steps: int) -> list[Tensor]:
    """The final norm's output of every step at the active rows: K times [R, H], in the parameters' dtype."""
    config, layer, w = draft.config, draft.midlayer, _weights(draft)
    line, dtype, width = draft.grid.tensor, w.out.dtype, w.embed_q.shape[0]
    heads, kv_heads = config.num_heads // line.size, config.num_kv_heads // line.size
    aux = batch.aux.flatten(0, 1).index_select(0, plan.key_rows).to(dtype)
    tokens = batch.input_ids.flatten().index_select(0, plan.key_rows)
    embedded = enter(layer.input_layernorm(draft.embedding.index_select(0, tokens).to(dtype)), line)
    fused = _fuse(draft, aux)

    normed = enter(layer.hidden_norm(fused), line)
    kv = linear(embedded, w.embed_kv)
    embed_qkv = torch.cat((linear(embedded.index_select(0, plan.embed_rows), w.embed_q), kv[plan.embed_rows]), 1)
    k0, v0 = _heads(kv + linear(normed, w.hidden_kv), config.head_dim).chunk(2, dim=1)
    turn = rotation(plan.positions, config.head_dim, config.rope_theta, dtype)
    k0, v0 = _of_all_ranks(rotate(k0, turn), v0, plan.shares)
    keys = scatter(k0, plan.key_slots, plan.blocks)
    values = scatter(v0, plan.key_slots, plan.blocks)

    hidden = fused.index_select(0, plan.query_rows)
    positions = plan.positions.index_select(0, plan.query_rows)
    later_keys: list[Tensor] = []
    later_values: list[Tensor] = []
    outputs: list[Tensor] = []
    for k in range(steps):
        turn = rotation(positions + k, config.head_dim, config.rope_theta, dtype)
        if k == 0:
            q = embed_qkv[: positions.numel(), :width] + linear(normed.index_select(0, plan.query_rows), w.hidden_q)
            q = rotate(_heads(q, config.head_dim), turn)
        else:
            normed = enter(layer.hidden_norm(hidden), line)
            mixed = linear(normed, w.hidden_qkv) + embed_qkv.index_select(0, plan.shifted[k])
            qk, v = _heads(mixed, config.head_dim).tensor_split((-kv_heads,), dim=1)
            q, key = rotate(qk, turn).tensor_split((heads,), dim=1)
            later_keys.append(key)
            later_values.append(v)
        attended = step_attention(q, keys, values, plan.query_slots, plan.blocks, later_keys, later_values)
        hidden = _finish(draft, w, hidden, attended)
        outputs.append(draft.norm(hidden))
        if config.norm_output:
            hidden = outputs[-1]
    return outputs
