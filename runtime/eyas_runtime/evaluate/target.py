"""The target at work: logits and captured layers of new tokens, with transformers' own key-value cache."""

from typing import Any

import torch
from torch import Tensor, nn

from eyas_contract.config import TargetConfig
from eyas_contract.errors import Bug, UserError
from eyas_runtime.capture.content import DTYPES
from eyas_runtime.capture.engine import layer_ids
from eyas_runtime.capture.transformers_model import decoder_layers, decoder_of, load_causal_lm


class CachedTarget:
    """One sequence at a time."""

    def __init__(self, target: TargetConfig, *, device: torch.device | str = "cpu") -> None:
        """Load the whole model, head included. Raises `UserError`."""
        self._model: Any = load_causal_lm(target, dtype=DTYPES[target.dtype]).to(device)
        self.device = torch.device(device)
        self.dtype = DTYPES[target.dtype]
        layers = decoder_layers(decoder_of(self._model), int(self._model.config.get_text_config().num_hidden_layers))
        self._ids = layer_ids(target.capture_layers, len(layers))
        self._taken: dict[int, Tensor] = {}
        for index in set(self._ids):
            layers[index].register_forward_hook(self._hook(index))
        self._cache: Any = None
        self.reset()

    @property
    def embedding(self) -> Tensor:
        """[V, H]."""
        weight: Tensor = self._model.get_input_embeddings().weight.detach()
        return weight

    @property
    def end_ids(self) -> frozenset[int]:
        """Tokens that end a text."""
        found = self._model.generation_config.eos_token_id
        if found is None:
            found = self._model.config.get_text_config().eos_token_id
        return frozenset([found] if isinstance(found, int) else found or [])

    def reset(self) -> None:
        """Forget the sequence."""
        from transformers import DynamicCache

        self._cache = DynamicCache()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return int(self._cache.get_seq_length())

    def crop(self, length: int) -> None:
        """Forget all but the first `length` tokens. Raises `UserError` where the model's cache cannot."""
        if length < self.length:
            self._cache.crop(length - self.length)
        if self.length != length:
            raise UserError("the target's cache cannot go back (a sliding window): it cannot be evaluated this way")

    @torch.inference_mode()
    def forward(self, tokens: list[int]) -> tuple[Tensor, Tensor]:
        """Run `tokens` after what is cached: (logits float32 [T, V], captured layers [T, 3A])."""
        rows = torch.tensor([tokens], dtype=torch.int64, device=self.device)
        try:
            output = self._model(input_ids=rows, past_key_values=self._cache, use_cache=True)
            aux = torch.cat([self._taken[index][0] for index in self._ids], dim=-1)
        finally:
            self._taken.clear()
        return output.logits[0].float(), aux

    def _hook(self, index: int) -> Any:  # noqa: ANN401 - torch's own hook type is a union of callables
        def after_layer(_module: nn.Module, _inputs: object, output: object) -> None:
            state = output[0] if isinstance(output, tuple) else output
            if not isinstance(state, Tensor):
                raise Bug(f"decoder layer {index} gave a {type(state).__name__} instead of hidden states")
            self._taken[index] = state

        return after_layer
