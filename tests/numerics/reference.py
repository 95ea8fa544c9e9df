"""The literal reference: EAGLE3's unrolled loss as it is written down, in loops and full tensors, no shortcuts.

One sample at a time, every position, a K x T key mask laid out in full, logits over the whole target vocabulary.
Shares nothing with the product but the parameters' names and the config values.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from eyas_runtime.train.eagle3.config import DraftConfig, LkConfig


@dataclass(frozen=True, kw_only=True)
class ReferenceInput:
    """One unshifted sample: input_ids [L], loss_mask [L], aux [L, 3A], last [L, A]."""

    input_ids: Tensor
    loss_mask: Tensor
    aux: Tensor
    last: Tensor


@dataclass(frozen=True, kw_only=True)
class ReferenceOutput:
    """Undivided sums per step k, each [K]; `loss` carries the gradient."""

    loss: Tensor
    correct: Tensor
    supervised: Tensor
    accepted: Tensor
    in_vocab: Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """x [heads, L, E] at positions [L]."""
    e = x.shape[-1]
    out = torch.empty_like(x)
    for i in range(e // 2):
        angle = positions.double() * theta ** (-2 * i / e)
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        out[..., i] = x[..., i] * cos - x[..., i + e // 2] * sin
        out[..., i + e // 2] = x[..., i + e // 2] * cos + x[..., i] * sin
    return out


def shift_left(x: Tensor) -> Tensor:
    return torch.cat((x[1:], torch.zeros_like(x[:1])))


def unrolled_reference(
    p: Mapping[str, Tensor],
    config: DraftConfig,
    sample: ReferenceInput,
    *,
    embedding: Tensor,
    head: Tensor,
    target_ids: Tensor,
    steps: int,
    lk: LkConfig | None = None,
) -> ReferenceOutput:
    length = sample.input_ids.shape[0]
    n, g, e = config.num_heads, config.num_kv_heads, config.head_dim
    loss_mask = sample.loss_mask.clone().double()
    loss_mask[-1] = 0
    tokens, last = shift_left(sample.input_ids), shift_left(sample.last)

    full = last @ head.T
    teacher_argmax = full.argmax(-1)
    in_draft = torch.zeros(config.vocab_size, dtype=torch.bool)
    in_draft[target_ids] = True
    position_mask = in_draft[teacher_argmax].double() * loss_mask
    teacher_p = torch.softmax(full[:, target_ids], -1)
    teacher_full = torch.softmax(full, -1)[:, target_ids]

    aux = sample.aux
    if config.fc_norm:
        aux = torch.cat(
            [rms_norm(c, p[f"fc_norm.{i}.weight"], config.rms_norm_eps) for i, c in enumerate(aux.chunk(3, -1))],
            -1,
        )
    hidden = aux @ p["fc.weight"].T
    all_keys: list[Tensor] = []
    all_values: list[Tensor] = []
    sums: dict[str, list[Tensor]] = {c: [] for c in ("loss", "correct", "supervised", "accepted", "in_vocab")}
    for k in range(steps):
        residual = hidden
        both = torch.cat(
            (
                rms_norm(embedding[tokens], p["midlayer.input_layernorm.weight"], config.rms_norm_eps),
                rms_norm(hidden, p["midlayer.hidden_norm.weight"], config.rms_norm_eps),
            ),
            -1,
        )
        positions = torch.arange(length) + k
        q = (both @ p["midlayer.self_attn.q_proj.weight"].T).view(length, n, e).transpose(0, 1)
        key = (both @ p["midlayer.self_attn.k_proj.weight"].T).view(length, g, e).transpose(0, 1)
        value = (both @ p["midlayer.self_attn.v_proj.weight"].T).view(length, g, e).transpose(0, 1)
        all_keys.append(rope(key, positions, config.rope_theta))
        all_values.append(value)
        q = rope(q, positions, config.rope_theta)
        mask = torch.full((length, (k + 1) * length), -math.inf, dtype=q.dtype)
        for t in range(length):
            mask[t, : t + 1] = 0
            for later in range(1, k + 1):
                mask[t, later * length + t] = 0
        keys = torch.cat(all_keys, 1).repeat_interleave(n // g, 0)
        values = torch.cat(all_values, 1).repeat_interleave(n // g, 0)
        attended = torch.softmax(q @ keys.transpose(1, 2) / math.sqrt(e) + mask, -1) @ values
        hidden = residual + attended.transpose(0, 1).reshape(length, n * e) @ p["midlayer.self_attn.o_proj.weight"].T
        x = rms_norm(hidden, p["midlayer.post_attention_layernorm.weight"], config.rms_norm_eps)
        gate = x @ p["midlayer.mlp.gate_proj.weight"].T
        up = x @ p["midlayer.mlp.up_proj.weight"].T
        hidden = hidden + (gate * torch.sigmoid(gate) * up) @ p["midlayer.mlp.down_proj.weight"].T
        normed = rms_norm(hidden, p["norm.weight"], config.rms_norm_eps)
        logits = normed @ p["lm_head.weight"].T
        if config.norm_output:
            hidden = normed

        log_q = torch.log_softmax(logits, -1)
        kl = -(teacher_p * log_q).sum(-1)
        accepted = torch.minimum(teacher_full, log_q.exp()).sum(-1)
        if lk is None:
            loss = kl
        elif lk.kind == "alpha":
            loss = -accepted.clamp_min(torch.finfo(accepted.dtype).tiny).log()
        else:
            w = lk.kl_scale * torch.exp(-lk.kl_decay * accepted)
            loss = w * kl + (1 - w) * (1 - accepted)
        hit = (target_ids[logits.argmax(-1)] == teacher_argmax).double()
        live = position_mask != 0
        sums["loss"].append(torch.where(live, loss, torch.zeros_like(loss)).sum())
        sums["correct"].append((hit * position_mask).sum())
        sums["supervised"].append(loss_mask.sum())
        sums["accepted"].append((accepted.detach() * position_mask).sum())
        sums["in_vocab"].append(position_mask.sum())

        tokens = shift_left(tokens)
        position_mask, loss_mask = shift_left(position_mask), shift_left(loss_mask)
        # The teacher of step k is the slice k..k+T of the teacher padded at its end.
        teacher_p, teacher_full = shift_left(teacher_p), shift_left(teacher_full)
        teacher_argmax = torch.cat((teacher_argmax[1:], torch.full((1,), -1)))
    return ReferenceOutput(**{name: torch.stack(values) for name, values in sums.items()})
