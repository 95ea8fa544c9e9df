"""A finished draft as other programs read it: safetensors and a config.json, from a verified checkpoint.

Rules: nothing is exported that does not match its digests; an export that lacks what an engine needs stops with a
sentence; a folder appears complete or not at all.
"""

from eyas_runtime.export.draft import LAYOUTS, Exported, export_draft
from eyas_runtime.export.source import DraftSource, open_source

__all__ = ["LAYOUTS", "DraftSource", "Exported", "export_draft", "open_source"]
