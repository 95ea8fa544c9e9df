"""A tiny random Llama with a real byte-level tokenizer, and prompts: what benchmarks and tests of whole runs use.

The folder is an ordinary Hugging Face folder (config, safetensors, tokenizer, chat template), so the product's own
loading code reads it. Everything is a function of the seeds. Torch is imported only when a target is built.
"""

import json
import random
from pathlib import Path
from typing import Any, Final, cast

SPECIALS: Final = ("<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>")
VOCAB_SIZE: Final = 256 + len(SPECIALS) + 9
"""Bytes, special tokens and nine merges."""
_MERGES: Final = (
    ("t", "h"),
    ("th", "e"),
    ("i", "n"),
    ("a", "n"),
    ("e", "r"),
    ("o", "n"),
    ("r", "e"),
    ("a", "t"),
    ("e", "s"),
)
_TEMPLATE: Final = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_WORDS: Final = ("the", "hawk", "turns", "over", "an", "inlet", "and", "rests", "on", "eastern", "air", "42", "über")


def make_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, its config and the chat template into `folder`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokens = list(SPECIALS) + sorted(pre_tokenizers.ByteLevel.alphabet()) + [left + right for left, right in _MERGES]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=list(_MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIALS])
    names = {"bos_token": "<s>", "eos_token": "<|end|>", "pad_token": "<pad>"}
    fast = cast("Any", PreTrainedTokenizerFast)(tokenizer_object=tokenizer, chat_template=_TEMPLATE, **names)
    fast.save_pretrained(folder)


def make_tiny_target(
    folder: Path, *, hidden: int = 32, layers: int = 6, seed: int = 0, spread: float = 0.2, tied: bool = False
) -> Path:
    """Write a random Llama (float32) of `layers` decoder layers and width `hidden` into `folder`; returns it."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, initializer_range=spread,
        bos_token_id=1, eos_token_id=6, pad_token_id=0, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    cast("Any", model).float().save_pretrained(folder)
    return folder


def tiny_messages(index: int, *, seed: int = 0, turns: int = 1) -> list[dict[str, str]]:
    """The conversation of prompt `index`: `turns` pairs of user and assistant."""
    source = random.Random(f"{seed}/{index}")  # noqa: S311 text of a benchmark
    messages = []
    for _ in range(turns):
        messages.append({"role": "user", "content": " ".join(source.choices(_WORDS, k=source.randint(1, 4)))})
        messages.append({"role": "assistant", "content": " ".join(source.choices(_WORDS, k=source.randint(2, 12)))})
    return messages


def write_tiny_prompts(path: Path, count: int, *, seed: int = 0, turns: int = 1) -> Path:
    """Write `count` conversations of different lengths as JSONL; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"messages": tiny_messages(i, seed=seed, turns=turns)}) + "\n" for i in range(count))
    path.write_text("".join(lines), encoding="utf-8")
    return path
