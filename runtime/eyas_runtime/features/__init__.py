"""Feature stores: where captured tensors wait to be trained on.

Split in two. `blobs` moves bytes under keys and knows nothing of tensors; `codec` turns tensors into bytes and back,
and is the only part that imports torch. `store` joins them for producers and ranks. Importing this package loads
neither torch nor Mooncake, so the metadata service uses `open_blobs` and `sweep_orphans` as they are.
"""

from eyas_runtime.features.config import StoreConfig, open_blobs
from eyas_runtime.features.sweep import SweepResult, sweep_orphans

__all__ = ["StoreConfig", "SweepResult", "open_blobs", "sweep_orphans"]
