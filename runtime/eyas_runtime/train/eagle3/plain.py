"""The same objective as one would first write it: the other arm of the step benchmark, and nothing else.

Batched and vectorised with torch's own operators, but every position takes part in every step, the teacher is a
full [B, T, V] tensor, and each step keeps its logits for autograd. It shares the draft's parameters, so both arms
train the same thing.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from eyas_runtime.train.eagle3.batch import Batch
from eyas_runtime.train.eagle3.model import Draft
from eyas_runtime.train.eagle3.rotary import Rotation, rotation


def plain_loss(draft: Draft, batch: Batch, head: Tensor, denominator: float) -> Tensor:
    """Loss of `batch` divided by `denominator`. head [V, A]: the target's whole output matrix, frozen.

    Holes are not supported: every sample counts. EAGLE 3.1 variants are not supported.
    """
    steps, decay = draft.loss.steps, draft.loss.decay
    with torch.no_grad():
        p, on_draft, mask, best = _teacher(draft, batch, head)
    tokens, supervised = batch.input_ids, batch.loss_mask
    hidden = functional.linear(batch.aux.to(draft.fc.weight.dtype), draft.fc.weight)
    keys: list[Tensor] = []
    values: list[Tensor] = []
    total = hidden.new_zeros(())
    for k in range(steps):
        hidden = _layer(draft, tokens, hidden, keys, values, k)
        logits = functional.linear(draft.norm(hidden), draft.lm_head.weight).float()
        log_q = torch.log_softmax(logits, dim=-1)
        loss = -(p * log_q).sum(-1) * mask
        total = total + decay**k * loss.sum() / denominator
        _count(logits, best, mask, on_draft, supervised)
        tokens, mask, supervised = _shift(tokens), _shift(mask), _shift(supervised)
        p, on_draft, best = _shift(p), _shift(on_draft), _shift(best)
    return total


def _teacher(draft: Draft, batch: Batch, head: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = functional.linear(batch.target.to(head.dtype), head).float()
    top = logits.argmax(-1)
    limited = logits[..., draft.t2d]
    on_draft = (limited - logits.logsumexp(-1, keepdim=True)).exp()
    mask = (draft.t2d[top] & batch.loss_mask).float()
    return torch.softmax(limited, dim=-1), on_draft, mask, top


def _count(logits: Tensor, best: Tensor, mask: Tensor, on_draft: Tensor, supervised: Tensor) -> None:
    """The metrics that a trainer takes at every step, here only for their time."""
    with torch.no_grad():
        q = torch.softmax(logits, dim=-1)
        (torch.minimum(q, on_draft).sum(-1) * mask).sum() / mask.sum().clamp_min(1)
        ((logits.argmax(-1) == best) * mask).sum() / supervised.sum().clamp_min(1)


def _shift(x: Tensor) -> Tensor:
    return torch.cat((x[:, 1:], torch.zeros_like(x[:, :1])), dim=1)


def _layer(draft: Draft, tokens: Tensor, hidden: Tensor, keys: list[Tensor], values: list[Tensor], k: int) -> Tensor:
    config, layer = draft.config, draft.midlayer
    attention, mlp = layer.self_attn, layer.mlp
    embedded = functional.embedding(tokens, draft.embedding).to(hidden.dtype)
    both = torch.cat((layer.input_layernorm(embedded), layer.hidden_norm(hidden)), dim=-1)
    turn = rotation(
        torch.arange(tokens.shape[1], device=tokens.device) + k, config.head_dim, config.rope_theta, hidden.dtype
    )
    q = _turned(functional.linear(both, attention.q_proj.weight), turn, config.head_dim)
    keys.append(_turned(functional.linear(both, attention.k_proj.weight), turn, config.head_dim))
    values.append(_split(functional.linear(both, attention.v_proj.weight), config.head_dim))
    attended = _attend(q, keys, values, config.num_heads // config.num_kv_heads)
    hidden = hidden + functional.linear(attended.transpose(1, 2).flatten(2), attention.o_proj.weight)
    x = layer.post_attention_layernorm(hidden)
    gate, up = functional.linear(x, mlp.gate_proj.weight), functional.linear(x, mlp.up_proj.weight)
    return hidden + functional.linear(functional.silu(gate) * up, mlp.down_proj.weight)


def _attend(q: Tensor, keys: list[Tensor], values: list[Tensor], group: int) -> Tensor:
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ keys[0].repeat_interleave(group, 1).transpose(-1, -2) * scale
    scores = scores + torch.full(scores.shape[-2:], -math.inf, device=q.device, dtype=q.dtype).triu(1)
    columns = [(q * key.repeat_interleave(group, 1)).sum(-1, keepdim=True) * scale for key in keys[1:]]
    weights = torch.softmax(torch.cat((scores, *columns), dim=-1).float(), dim=-1).to(q.dtype)
    length = q.shape[-2]
    out = weights[..., :length] @ values[0].repeat_interleave(group, 1)
    for i, value in enumerate(values[1:]):
        out = out + weights[..., length + i : length + i + 1] * value.repeat_interleave(group, 1)
    return out


def _split(x: Tensor, head_dim: int) -> Tensor:
    return x.view(*x.shape[:2], -1, head_dim).transpose(1, 2)


def _turned(x: Tensor, by: Rotation, head_dim: int) -> Tensor:
    heads = _split(x, head_dim)
    cos, sin = by.cos.transpose(0, 1), by.sin.transpose(0, 1)
    low, high = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((high, low), dim=-1) * sin
