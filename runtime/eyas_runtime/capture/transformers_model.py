"""The target's body as a function: token ids -> the three captured layers and the last hidden state after its norm.

Any causal language model that transformers can load from a local folder, on CPU or GPU. Only the body runs (no logits);
hooks copy the three layer outputs that are wanted, so no other layer's output outlives it. Layer id k is the output of
decoder layer k (Hugging Face's `hidden_states[k + 1]`, but without the final norm that it shows for the last layer).

Rows are padded on the right and no attention mask is given: under a causal mask no true position can see padding.
Determinism: fixed thread count, deterministic algorithms, no autotuning, no cache.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from eyas_contract.config import TargetConfig
from eyas_contract.errors import Bug, UserError
from eyas_contract.wire import Fingerprint
from eyas_runtime.capture.content import DTYPES
from eyas_runtime.capture.engine import Advance, layer_ids
from eyas_runtime.capture.fingerprint import device_facts, fingerprint_of
from eyas_runtime.inputs import weight_files

CUBLAS_WORKSPACE: Final = ":4096:8"
"""The workspace with which cuBLAS promises equal bits; must be set before its first call."""


def make_deterministic(threads: int) -> None:
    """Fix everything of this process that may change bits; call before any model is loaded."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", CUBLAS_WORKSPACE)
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Nothing here reads memory that it did not write; filling it with NaN would cost every allocation.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


class TransformersModel:
    """A loaded target. One thread at a time may call it."""

    def __init__(self, target: TargetConfig, *, device: torch.device) -> None:
        """Load the model. Raises `UserError` when the folder cannot be served."""
        make_deterministic(target.threads)
        self.device = device
        self.dtype = DTYPES[target.dtype]
        model = load_causal_lm(target, dtype=self.dtype)
        self._body = decoder_of(model).to(device)
        text = model.config.get_text_config()
        self.hidden_size = int(text.hidden_size)
        self.vocab_size = int(model.get_input_embeddings().weight.shape[0])
        layers = decoder_layers(self._body, int(text.num_hidden_layers))
        self.layer_ids = layer_ids(target.capture_layers, len(layers))
        self._scale = logit_scale(text)
        self._taken: dict[int, Tensor] = {}
        self._advance: Advance = _nothing
        for index, layer in enumerate(layers):
            layer.register_forward_hook(self._hook(index))
        self._facts = {
            "engine": "transformers",
            "attention": str(getattr(text, "_attn_implementation", "")),
            "dtype": target.dtype,
            "threads": str(target.threads),
            "layers": ",".join(map(str, self.layer_ids)),
        }

    def fingerprint(self) -> Fingerprint:
        """Device, libraries and options of this engine."""
        import transformers

        return fingerprint_of({**device_facts(self.device), "transformers": transformers.__version__, **self._facts})

    @torch.inference_mode()
    def forward(self, rows: Tensor, advance: Advance) -> tuple[Tensor, Tensor]:
        """int64 [B, T] on any device -> ([B, T, 3H], [B, T, H]) in the target's dtype on the model's device."""
        with self._watching(advance):
            output = self._body(input_ids=rows.to(self.device), use_cache=False, return_dict=True)
            aux = torch.cat([self._taken[index] for index in self.layer_ids], dim=-1)
            last = output.last_hidden_state
        if self._scale != 1.0:
            last = last * self._scale
        return aux.to(self.dtype), last.to(self.dtype)

    @contextlib.contextmanager
    def _watching(self, advance: Advance) -> Iterator[None]:
        self._advance = advance
        try:
            yield
        finally:
            self._advance = _nothing
            self._taken.clear()

    def _hook(self, index: int) -> Any:  # noqa: ANN401 - torch's own hook type is a union of callables
        wanted = index in self.layer_ids

        def after_layer(_module: nn.Module, _inputs: object, output: object) -> None:
            self._advance()
            if not wanted:
                return
            state = output[0] if isinstance(output, tuple) else output
            if not isinstance(state, Tensor):
                raise Bug(f"decoder layer {index} gave a {type(state).__name__} instead of hidden states")
            self._taken[index] = state

        return after_layer


def load_causal_lm(target: TargetConfig, *, dtype: torch.dtype) -> Any:  # noqa: ANN401 - transformers' model classes
    """The whole model (body and head), in eval mode on the CPU; safetensors or GGUF only, no code from the folder."""
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # type: ignore[no-untyped-call]  # A bar over a second of loading is noise in a log.
    folder = Path(target.model)
    options: dict[str, Any] = {"gguf_file": target.gguf_file} if target.gguf_file else {"use_safetensors": True}
    if not target.gguf_file and not weight_files(folder):
        raise UserError(f"target.model {folder} has no *.safetensors file; convert its weights to safetensors first")
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, dtype=dtype, **options
        )
    except (ValueError, KeyError, ImportError, OSError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"cannot load the target in {folder}: {first}") from error
    return model.eval().requires_grad_(False)


def logit_scale(config: Any) -> float:  # noqa: ANN401 - a transformers configuration
    """Factor between output matrix times hidden state and the logits; models of the muP family have one.

    It is put back into the captured hidden state, so that the trainer may project with the plain matrix.
    """
    if getattr(config, "logits_scaling", None):
        return 1.0 / float(config.logits_scaling)
    if getattr(config, "dim_model_base", None):
        return float(config.dim_model_base) / float(config.hidden_size)
    return float(getattr(config, "logit_scale", None) or 1.0)


def decoder_of(model: Any) -> Any:  # noqa: ANN401
    """The decoder without its head; of a model with several towers, the text decoder."""
    body = model.get_decoder() if hasattr(model, "get_decoder") else None
    if body is None or body is model:
        body = getattr(model, "base_model", None)
    if body is None or body is model:
        raise UserError(f"{type(model).__name__} has no separate decoder, so its hidden states cannot be captured")
    return body


def decoder_layers(body: nn.Module, count: int) -> nn.ModuleList:
    """The list of the decoder's `count` layers. Raises `UserError` when there is none."""
    found = [module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not found:
        raise UserError(f"the target has no list of {count} decoder layers, so its hidden states cannot be captured")
    return found[0]


def _nothing() -> None:
    """The default of `advance`."""
