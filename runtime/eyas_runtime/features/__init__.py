"""Feature stores: where captured tensors wait to be trained on.

Split in two. `blobs` moves bytes under keys and knows nothing of tensors; `codec` turns tensors into bytes and back,
and is the only part that imports torch. `store` joins them for producers and ranks. Importing this package loads
neither torch nor Mooncake, so the metadata service uses `open_blobs` as it is.
"""

from eyas_runtime.features.config import StoreConfig, open_blobs

__all__ = ["StoreConfig", "open_blobs"]
