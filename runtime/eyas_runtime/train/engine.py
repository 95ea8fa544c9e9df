"""What differs between the real and the fake trainer, behind one port, so that `consume` is one flow. Torch-free."""

import importlib
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig
from eyas_contract.errors import UserError
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


MODULES: Final = {"fake": "eyas_runtime.train.fake_engine", "eagle3": "eyas_runtime.train.draft_engine"}


class Preload:
    """Imports an engine's modules behind the back of a rank that has files to compare or an answer to wait for.

    Importing torch takes as long as the whole rest of a restart. Only modules are loaded here: thread counts are a
    property of the thread that sets them, so the engine itself is made by the main thread.
    """

    def __init__(self, kind: str) -> None:
        self._module = MODULES.get(kind)
        self._thread = threading.Thread(target=self._run, name="preload", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the modules are there. What an import raised is raised again by whoever imports them."""
        self._thread.join()

    def _run(self) -> None:
        if self._module is not None:
            with suppress(ImportError):
                importlib.import_module(self._module)


def make_engine(kind: str, context: Context) -> Engine:
    """The engine called `kind`. Imports torch only for the real one. Raises `UserError` for an unknown one."""
    if kind == "fake":
        from eyas_runtime.train.fake_engine import FakeEngine

        return FakeEngine(context)
    if kind == "eagle3":
        from eyas_runtime.train.draft_engine import DraftEngine

        return DraftEngine(context)
    raise UserError(f"{env.TRAINER} is {kind[:40]!r}; it must be eagle3 or fake")
