"""Draft training: one folder per method, each with the same file names.

With `eyas_runtime.checkpoint`, `features.codec` and `capture` the only place that may import torch.
"""
