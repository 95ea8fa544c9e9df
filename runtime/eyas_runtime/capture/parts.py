"""What a producer is made of, real or fake; each kind is imported only when it is asked for.

The fake one runs where torch is not installed, as the fake trainer does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from eyas_runtime.capture.engine import CaptureEngine
from eyas_runtime.capture.producer import Prepare
from eyas_runtime.capture.storing import FeatureSink
from eyas_runtime.features.blobs.port import BlobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """One producer's engine, its way to go through the inputs, and what stores a sample in an opened store."""

    engine: CaptureEngine
    prepare: Prepare
    sink: Callable[[BlobStore], FeatureSink]
