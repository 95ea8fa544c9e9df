"""The draft's parameters under the names that serving engines read, and the pieces of its one decoder layer.

The embedding is the target's, frozen: a buffer outside of state dicts, shards and the optimiser. The output matrix
is over the draft's vocabulary and not tied.
"""

import hashlib

import torch
from torch import Tensor, nn
from torch.nn import functional

from eyas_runtime.train.eagle3.config import AUX_LAYERS, DraftConfig, LossConfig
from eyas_runtime.train.eagle3.grid import Grid
from eyas_runtime.train.eagle3.tensor_slices import slice_of
from eyas_runtime.train.eagle3.vocab import VocabMap, check_vocab_map


class Norm(nn.Module):
    """RMSNorm over the last dimension."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """x float [..., size], normalised in at least float32, in x's dtype."""
        return functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Projection(nn.Module):
    """A bias-free matrix [out, in] with no forward of its own: `unroll` slices and joins the weights."""

    def __init__(self, size_in: int, size_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size_out, size_in))


class Attention(nn.Module):
    """Projections of the 2H-wide input: columns 0..H-1 take the embedding, H..2H-1 the hidden state."""

    def __init__(self, config: DraftConfig, tensor: int) -> None:
        super().__init__()
        size, heads, kv = config.hidden_size, config.num_heads // tensor, config.num_kv_heads // tensor
        self.q_proj = Projection(2 * size, heads * config.head_dim)
        self.k_proj = Projection(2 * size, kv * config.head_dim)
        self.v_proj = Projection(2 * size, kv * config.head_dim)
        self.o_proj = Projection(heads * config.head_dim, size)


class Mlp(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DraftConfig, tensor: int) -> None:
        super().__init__()
        inner = config.intermediate_size // tensor
        self.gate_proj = Projection(config.hidden_size, inner)
        self.up_proj = Projection(config.hidden_size, inner)
        self.down_proj = Projection(inner, config.hidden_size)


class Layer(nn.Module):
    """The one decoder layer, or one of `tensor` equal slices of it."""

    def __init__(self, config: DraftConfig, tensor: int = 1) -> None:
        super().__init__()
        self.input_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.hidden_norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, tensor)
        self.post_attention_layernorm = Norm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config, tensor)


class Parameters(nn.Module):
    """What an EAGLE3 draft learns, named as exported (`export_keys`), and the target's rows that it reads."""

    embedding: Tensor
    t2d: Tensor
    d2t: Tensor

    def __init__(
        self, config: DraftConfig, loss: LossConfig, embedding: Tensor, vocab: VocabMap, grid: Grid | None = None
    ) -> None:
        """`embedding` [V, H] is the target's, kept by reference in its own dtype; parameters are uninitialised.

        Of a `grid` with several tensor ranks, parameters are this rank's slices (`tensor_slices`).
        Raises `Corrupt` if the vocabulary map does not fit, `ValueError` if the embedding does not.
        """
        super().__init__()
        check_vocab_map(vocab, vocab_size=config.vocab_size, draft_vocab_size=config.draft_vocab_size)
        if embedding.shape != (config.vocab_size, config.hidden_size):
            raise ValueError(
                f"the embedding is {tuple(embedding.shape)}, the draft needs {(config.vocab_size, config.hidden_size)}"
            )
        self.config, self.loss, self.grid = config, loss, grid or Grid()
        self.fc = Projection(AUX_LAYERS * config.target_hidden_size, config.hidden_size)
        if config.fc_norm:
            self.fc_norm = nn.ModuleList(
                Norm(config.target_hidden_size, config.rms_norm_eps) for _ in range(AUX_LAYERS)
            )
        self.midlayer = Layer(config, self.grid.tensor.size)
        self.norm = Norm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Projection(config.hidden_size, config.draft_vocab_size // self.grid.tensor.size)
        self.register_buffer("embedding", embedding.detach(), persistent=False)
        self.register_buffer("t2d", torch.from_numpy(vocab.t2d.copy()))
        self.register_buffer("d2t", torch.from_numpy(vocab.d2t.copy()))


def initialise(draft: Parameters, seed: int) -> None:
    """Fill every parameter in place: normal(0, initializer_range) for matrices, ones for norms.

    Each parameter has its own generator, seeded from `seed` and its name, and is drawn whole on the CPU in float32:
    the bits depend neither on the world size nor on the order of the parameters. Call it before sharding.
    """
    with torch.no_grad():
        for name, parameter in draft.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0)
                continue
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
            shape, offset = slice_of(name, parameter.shape, draft.grid.tensor)
            full = torch.empty(shape, dtype=torch.float32)
            full.normal_(0.0, draft.config.initializer_range, generator=generator)
            parameter.copy_(full[tuple(slice(o, o + n) for o, n in zip(offset, parameter.shape, strict=True))])
