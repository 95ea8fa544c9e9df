"""One rank of the consumer gang: `python -m eyas_runtime.train.consume`, started by its pod's supervisor.

The flow of every start: rank 0 verifies checkpoints and reconciles, the others join; all meet; everyone loads its
slices; the loop runs until an order ends it. Exit codes: 0 complete, 75 drained or a folder that cannot be read, 78
the job cannot work, 86 fenced, 1 the incarnation is over (the supervisor starts the rank again).
Everything here parses and decides before torch is imported.
"""

import os
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any, Final

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig, read_config
from eyas_contract.errors import EyasError, UserError
from eyas_contract.exits import Exit
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.saver import AsyncSaver
from eyas_runtime.checkpoint.verify import retrying
from eyas_runtime.checkpoint.writer import CheckpointWriter, Lineage
from eyas_runtime.core.sequence import Schedule
from eyas_runtime.environment import required, required_path
from eyas_runtime.process import mark_ready, run_role
from eyas_runtime.train.engine import Context, Engine
from eyas_runtime.train.engines import Preload, make_engine
from eyas_runtime.train.group import Group
from eyas_runtime.train.heartbeat import Heartbeat, Work
from eyas_runtime.train.loop import LoopSettings, Parts, TrainLoop
from eyas_runtime.train.orders import ServiceOrders
from eyas_runtime.train.ports import Trainer
from eyas_runtime.train.start import (
    Identity,
    Origin,
    checkpoint_root,
    join,
    read_identity,
    reconcile,
    share_origin,
)

PREPARED_WAIT_SECONDS: Final = 10.0


def main() -> int:
    """Run this rank to its end; returns the exit code. Raises the error tree."""
    identity = read_identity(os.environ)
    config = read_config(required(os.environ, env.CONFIG_FILE))
    tokens = required_path(os.environ, env.TOKEN_DIRECTORY)
    client = MetadataClient(
        config.endpoints.metadata_url, str(tokens / env.TOKEN_CONSUMER), store_epoch=config.store_epoch
    )
    kind = os.environ.get(env.TRAINER, "eagle3")
    context = Context(config=config, identity=identity, tokens=tokens)
    preload = Preload(kind)

    def engine() -> Engine:
        preload.wait()
        return make_engine(kind, context)

    return int(Rank(config, identity, client, engine).run())


class Rank:
    """One rank's life, from nothing to the last order."""

    def __init__(
        self, config: JobConfig, identity: Identity, client: MetadataClient, engine: Callable[[], Engine]
    ) -> None:
        """`engine` is called once, in the thread of `run`, when torch is first needed."""
        self._config, self._identity, self._client, self._make_engine = config, identity, client, engine
        self._root = checkpoint_root(config)
        self._work = Work()

    @cached_property
    def _engine(self) -> Engine:
        return self._make_engine()

    def _fingerprint(self) -> wire.Fingerprint:
        return self._engine.fingerprint()

    def run(self) -> Exit:
        """See `main`."""
        origin: Origin | None = None
        if self._identity.rank == 0:
            origin = reconcile(
                self._client,
                self._root,
                self._identity,
                self._config,
                self._fingerprint,
                tick=self._work.tick,
            )
            incarnation = origin.incarnation
        else:
            incarnation = join(self._client, self._identity)
        heartbeat = Heartbeat(
            self._client, incarnation=incarnation, rank=self._identity.rank, work=self._work, over=_leave
        )
        group, checkpoint_group = self._engine.meet(incarnation)
        origin = share_origin(group, origin)
        prepared = self._prepared()
        schedule = Schedule.of_job(self._config, prepared)
        trainer = self._engine.trainer(prepared, max(1, schedule.rounds.training_steps))
        evaluation = self._load(trainer, origin)
        settings = self._settings(origin, schedule, evaluation)
        loop = self._loop(trainer, origin, settings, group, checkpoint_group, prepared)
        mark_ready()
        code = loop.run()
        heartbeat.close()
        self._engine.close()
        return code

    def _prepared(self) -> wire.Prepared:
        while True:
            reply = self._client.call(wire.PREPARED, wire.PreparedRequest(wait_seconds=PREPARED_WAIT_SECONDS))
            if reply.prepared is not None:
                return reply.prepared

    def _load(self, trainer: Trainer[Any], origin: Origin) -> wire.EvaluationState | None:
        if not origin.directory:
            trainer.initialise()
            return None
        return retrying(lambda: self._read(trainer, origin))

    def _read(self, trainer: Trainer[Any], origin: Origin) -> wire.EvaluationState | None:
        # Rank 0 compared every file a moment ago; the others compare what they read.
        with CheckpointReader(
            self._root.directory(origin.directory),
            manifest_digest=origin.manifest_digest,
            verified=self._identity.rank == 0,
            tick=self._work.tick,
        ) as reader:
            kind = reader.manifest.trainer
            if kind != trainer.kind:
                raise UserError(f"checkpoint {origin.directory} holds a {kind} state, this job trains {trainer.kind}")
            trainer.load(reader)
            return reader.manifest.evaluation

    def _loop(
        self,
        trainer: Trainer[Any],
        origin: Origin,
        settings: LoopSettings,
        group: Group,
        checkpoint_group: Group,
        prepared: wire.Prepared,
    ) -> TrainLoop[Any]:
        orders = ServiceOrders(self._client, origin.incarnation) if self._identity.rank == 0 else None
        lineage = Lineage(
            attempt=self._identity.attempt,
            incarnation=origin.incarnation,
            store_epoch=origin.store_epoch,
            trainer=trainer.kind,
            config=trainer.describe(),
            fingerprint=self._fingerprint().digest,
        )
        writer = CheckpointWriter(self._root, lineage, checkpoint_group, orders, tick=self._work.tick)
        parts = Parts(
            group=group,
            orders=orders,
            source=self._engine.source(self._client, origin.incarnation),
            trainer=trainer,
            saver=AsyncSaver(writer),
            work=self._work,
            before_save=InBackground(lambda: self._engine.check_inputs(prepared)).result,
            log=self._engine.log,
        )
        return TrainLoop(settings, parts)

    def _settings(self, origin: Origin, schedule: Schedule, evaluation: wire.EvaluationState | None) -> LoopSettings:
        training = self._config.training
        return LoopSettings(
            incarnation=origin.incarnation,
            start_step=origin.step,
            schedule=schedule,
            micro_batch_size=training.micro_batch_size,
            packing_tokens=training.packing_tokens,
            normalisation=self._config.draft.normalisation,
            ranks_per_sample=training.parallelism.ranks,
            evaluation=evaluation,
        )


class InBackground:
    """Runs `call` in a thread; `result` waits for it and raises what it raised.

    Hashing a large target takes longer than a restart may, and only has to be done before the next checkpoint.
    """

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="inputs", daemon=True)
        self._thread.start()

    def result(self) -> None:
        """Return when the call has; raise what it raised."""
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._call()
        except BaseException as error:  # noqa: BLE001  the top frame of this thread: raised by `result`
            self._failure = error


def _leave(error: EyasError) -> None:
    """End this process from a thread: its main thread may sit in a collective that nobody will ever join."""

    def fail() -> int:
        raise error

    run_role(fail)


if __name__ == "__main__":
    run_role(main)
