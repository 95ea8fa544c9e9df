"""Where captured tensors go: the feature store, with what the ref must say of them."""

from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.capture.engine import INPUT_IDS, LAST, LOSS_MASK, Features
from eyas_runtime.features.store import FeatureStore, SampleMetadata


class StoreSink:
    """`FeatureSink` over a `FeatureStore`."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def put(self, task: PromptTask, features: Features, *, fingerprint: str) -> SampleRef:
        """Store one sample under `task.key`; a repeat with equal tensors succeeds. Raises `StoreFull`, `Transient`.

        Its lease names the key, so the service releases or sweeps the object; a producer that remembered each one would
        grow for as long as the job runs.
        """
        ref = self._store.put(features, task, metadata_of(features, fingerprint))
        self._store.hand_over(ref)
        return ref


def metadata_of(features: Features, fingerprint: str) -> SampleMetadata:
    """Counts and meaning of one sample's tensors."""
    return SampleMetadata(
        num_tokens=len(features[INPUT_IDS]),
        num_supervised=int((features[LOSS_MASK][:-1] != 0).sum()),
        fingerprint=fingerprint,
        target_repr="hidden_state",
        target_feature_name=LAST,
    )
