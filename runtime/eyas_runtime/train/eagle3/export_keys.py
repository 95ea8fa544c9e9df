"""Names of the draft's tensors in a served checkpoint: a pure table.

The module names its parameters as SGLang and vLLM do, so the table is short; what a reader may not miss is
`REQUIRED`. The embedding is the target's and is never exported. d2t and t2d come from the vocabulary map.
"""

from typing import Final

LAYER: Final = "midlayer."
EXPORT_KEYS: Final[dict[str, str]] = {
    "fc.weight": "fc.weight",
    "norm.weight": "norm.weight",
    "lm_head.weight": "lm_head.weight",
    "d2t": "d2t",
    "t2d": "t2d",
    **{
        f"{LAYER}{name}.weight": f"{LAYER}{name}.weight"
        for name in (
            "input_layernorm",
            "hidden_norm",
            "post_attention_layernorm",
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.o_proj",
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
        )
    },
}
"""Module name to exported name; a state dict has exactly these, and FC_NORM_KEYS with `fc_norm`."""
FC_NORM_KEYS: Final[dict[str, str]] = {f"fc_norm.{i}.weight": f"fc_norm.{i}.weight" for i in range(3)}
"""The extra tensors of a draft with `fc_norm` (EAGLE 3.1)."""
REQUIRED: Final = ("fc.weight", "norm.weight", "lm_head.weight", "t2d", "d2t")
"""Exported names without which no engine serves the draft: an export that lacks one must stop."""
