"""The half of a feature source that speaks with the metadata service: losses, and what became of them. Torch-free."""

from collections.abc import Sequence
from typing import Final

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.ids import Incarnation

CALL_SECONDS: Final = 10.0
"""How long a call is repeated before it is left for the next turn: the other ranks wait in a collective meanwhile."""


class ServiceSource:
    """Reports of one incarnation; the reading half is added by whoever inherits."""

    def __init__(self, client: MetadataClient, incarnation: Incarnation) -> None:
        self._client, self._incarnation = client, incarnation

    def report_lost(self, samples: Sequence[wire.LostSample]) -> None:
        """See `FeatureSource`."""
        request = wire.LostRequest(incarnation=self._incarnation, samples=tuple(samples))
        self._client.call(wire.LOST, request, deadline_seconds=CALL_SECONDS)

    def current(self, step: int, version: int, sequences: Sequence[int], *, wait_seconds: float) -> wire.RefsReply:
        """See `FeatureSource`."""
        request = wire.RefsRequest(
            incarnation=self._incarnation,
            step=step,
            version=version,
            sequences=tuple(sequences),
            wait_seconds=wait_seconds,
        )
        return self._client.call(wire.REFS, request, deadline_seconds=wait_seconds + CALL_SECONDS)
