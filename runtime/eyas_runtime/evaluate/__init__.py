"""Proof of value: greedy speculative decoding with a draft and its target, and the target alone beside it.

Rules: both arms run the same target with a real KV cache; the text of both is compared, never assumed; what is
reported was counted in the run itself.
"""
