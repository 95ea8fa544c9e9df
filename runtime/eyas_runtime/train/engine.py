"""Port `Engine`: what differs between the real and the fake trainer, so that `consume` is one flow. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig
from eyas_contract.ids import Incarnation
from eyas_runtime.train.group import Group
from eyas_runtime.train.ports import FeatureSource, Trainer
from eyas_runtime.train.start import Identity

CHANNELS: Final = ("train", "checkpoint")
"""Groups of an incarnation: the loop's own, and one that only the checkpoint threads use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What an engine builds from."""

    config: JobConfig
    identity: Identity
    tokens: Path
    """Folder of token files."""


class Engine(Protocol):
    """Builds the adapters of one kind of trainer."""

    def fingerprint(self) -> wire.Fingerprint:
        """What fixes the bits of a training step here."""
        ...

    def meet(self, incarnation: Incarnation) -> Sequence[Group]:
        """The groups of `CHANNELS`, once all ranks are there. Raises `Closed` when they do not come."""
        ...

    def trainer(self, prepared: wire.Prepared, total_steps: int) -> Trainer[Any]:
        """The trainer, not yet initialised or loaded; after `meet`."""
        ...

    def source(self, client: MetadataClient, incarnation: Incarnation) -> FeatureSource[Any]:
        """Where samples come from."""
        ...

    def check_inputs(self, prepared: wire.Prepared) -> None:
        """Raise `UserError` when the job's inputs are not those that were prepared. Called once the training runs."""
        ...

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Metrics of a step on rank 0, beyond those in acks."""
        ...

    def close(self) -> None:
        """Leave the groups, flush what is logged."""
        ...
