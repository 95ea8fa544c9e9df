"""Feature files in SpecForge's layout for the tiny target, plain and gzip in turn; a function of their index."""

import gzip
import io
from pathlib import Path

import torch

HIDDEN = 32
VOCAB = 256


def write_feature_files(folder: Path, count: int, *, length: int = 24) -> None:
    """`count` files of `length` tokens and more; every second one is gzip."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        tokens = length + index % 5
        content = {
            "input_ids": torch.randint(8, VOCAB, (1, tokens), generator=generator),
            "loss_mask": torch.ones(1, tokens, dtype=torch.int64),
            "hidden_state": torch.randn(1, tokens, HIDDEN, generator=generator),
            "aux_hidden_state": torch.randn(1, tokens, 3 * HIDDEN, generator=generator),
        }
        raw = io.BytesIO()
        torch.save(content, raw)
        if index % 2:
            (folder / f"{index:04d}.ckpt.gz").write_bytes(gzip.compress(raw.getvalue()))
        else:
            (folder / f"{index:04d}.ckpt").write_bytes(raw.getvalue())
