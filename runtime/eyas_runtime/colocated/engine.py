"""The trainer's engine with a producer inside: a thread that leases, captures and commits while the ranks train.

Every rank brings its own producer, with the rank for an index and the attempt for an ordinal, so that leases of a gang
that was replaced end as soon as its successor registers.
"""

import logging
import threading
from typing import Final

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import EyasError, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.refs import SampleRef
from eyas_runtime.capture.build import make_engine
from eyas_runtime.capture.engine import Features
from eyas_runtime.capture.holdings import Holdings
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.capture.producer import Producer, agree_on_inputs, register
from eyas_runtime.capture.watch import InputsWatch
from eyas_runtime.colocated.captures import Captures, Groups, SharedEngine
from eyas_runtime.process import run_role
from eyas_runtime.train.draft_engine import DraftEngine
from eyas_runtime.train.draft_trainer import DraftTrainer
from eyas_runtime.train.engine import Context
from eyas_runtime.train.ports import FeatureSource
from eyas_runtime.train.service_source import ServiceSource

LOG: Final = logging.getLogger("eyas.colocated")
FAREWELL_SECONDS: Final = 3.0


class ColocatedSource(ServiceSource):
    """`FeatureSource` over this process's own captures."""

    def __init__(self, client: MetadataClient, incarnation: Incarnation, captures: Captures, groups: Groups) -> None:
        super().__init__(client, incarnation)
        self._captures, self._groups = captures, groups

    def get(self, ref: SampleRef) -> Features:
        """See `FeatureSource`."""
        return self._captures.get(ref, self._groups)

    def close(self) -> None:
        """See `FeatureSource`."""
        self._captures.close()


class ColocatedEngine(DraftEngine):
    """See `Engine`; the producer starts with it and ends with it."""

    def __init__(self, context: Context, *, restart: int) -> None:
        """Load the target and start to capture. Raises `UserError`."""
        super().__init__(context)
        config = context.config
        if config.target.threads != config.training.threads and self._device.type == "cpu":
            raise UserError(
                f"target.threads is {config.target.threads}, training.threads {config.training.threads}: one process "
                "does both, give the same number"
            )
        self._groups: Groups | None = None
        self._stop = threading.Event()
        self._capturing = SharedEngine(make_engine(config, device=self._device))
        self._captures = Captures(config, self._capturing)
        holder = wire.Holder(index=context.identity.rank, ordinal=context.identity.attempt, restart=restart)
        self._calls = MetadataClient(
            config.endpoints.metadata_url, str(context.tokens / env.TOKEN_PRODUCER), store_epoch=config.store_epoch
        )
        self._holdings = Holdings(self._calls, holder)
        self._thread = threading.Thread(target=self._produce, name="producer", daemon=True)
        self._thread.start()

    def trainer(self, prepared: wire.Prepared, total_steps: int) -> DraftTrainer:
        """See `Engine`."""
        self._groups = Groups(self._config, prepared)
        return super().trainer(prepared, total_steps)

    def source(self, client: MetadataClient, incarnation: Incarnation) -> FeatureSource[Features]:  # type: ignore[override]
        """See `Engine`."""
        if self._groups is None:
            raise UserError("the inputs are not prepared")
        return ColocatedSource(client, incarnation, self._captures, self._groups)

    def close(self) -> None:
        """See `Engine`: gives back what the producer holds."""
        self._stop.set()
        self._holdings.return_all()
        self._thread.join(FAREWELL_SECONDS)
        super().close()

    def _produce(self) -> None:
        """The producer's thread: what ends it ends the process, as it would end a producer's own."""
        try:
            fingerprint = self._capturing.fingerprint()
            register(self._calls, self._holdings.holder, self._config, fingerprint)
            prepared = agree_on_inputs(self._calls, self._holdings.holder, self._config, prepare)
            watch = InputsWatch(self._config, prepared.inputs)
            Producer(
                self._calls,
                self._holdings,
                self._capturing,
                self._captures,
                fingerprint=fingerprint.digest,
                watch=watch,
            ).run(self._stop)
        except BaseException as error:  # noqa: BLE001 - the top frame of a thread
            if not self._stop.is_set():
                _leave(error)
            elif not isinstance(error, EyasError):
                LOG.warning("the producer ended with %r while it was stopped", error)


def _leave(error: BaseException) -> None:
    def fail() -> int:
        raise error

    run_role(fail)
