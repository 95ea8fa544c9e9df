"""The engine of real training: torch, gloo or nccl, the feature store, the target's two matrices."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

# The first shard and the first optimizer import these two, which takes longer than all the rest of a restart. Imported
# with this module they are there before a rank in waiting is called, and while a cold one waits for answers.
import torch._dynamo
import torch._inductor.config  # noqa: F401
import torch.distributed as dist

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig
from eyas_contract.errors import Bug, UserError
from eyas_contract.ids import Incarnation
from eyas_contract.refs import SampleRef
from eyas_runtime.features.config import StoreConfig, open_blobs
from eyas_runtime.features.store import FeatureStore
from eyas_runtime.inputs import check_inputs, digest_inputs
from eyas_runtime.target_files import target_config
from eyas_runtime.train import determinism, target_head
from eyas_runtime.train.draft_trainer import DraftTrainer, Features
from eyas_runtime.train.eagle3.config import DraftConfig, LossConfig
from eyas_runtime.train.eagle3.grid import Grid, check_shape, check_world, make_grid
from eyas_runtime.train.eagle3.optim import OptimConfig
from eyas_runtime.train.eagle3.parallelize import ParallelConfig
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.eagle3.vocab import VocabMap
from eyas_runtime.train.engine import Context
from eyas_runtime.train.group import Group
from eyas_runtime.train.initial_draft import draft_reader
from eyas_runtime.train.rendezvous import meet
from eyas_runtime.train.scalars import ScalarLog
from eyas_runtime.train.service_source import ServiceSource


class StoreSource(ServiceSource):
    """`FeatureSource` of the feature store: verified tensors in host memory."""

    def __init__(self, store: FeatureStore, client: MetadataClient, incarnation: Incarnation) -> None:
        super().__init__(client, incarnation)
        self._store = store

    def get(self, ref: SampleRef) -> Features:
        """See `FeatureSource`."""
        tensors, handle = self._store.get(ref)
        self._store.release(handle)
        return tensors

    def close(self) -> None:
        """See `FeatureSource`."""
        self._store.close()


class DraftEngine:
    """See `Engine`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._config: JobConfig = context.config
        parallelism = self._config.training.parallelism
        check_world(world_size=context.identity.world_size, sequence=parallelism.sequence, tensor=parallelism.tensor)
        self._device = determinism.configure(self._config.training, context.identity.local_rank)
        self._log: ScalarLog | None = None

    def fingerprint(self) -> wire.Fingerprint:
        """See `Engine`."""
        return determinism.training_fingerprint(self._config, self._device, self._context.identity.world_size)

    def meet(self, incarnation: Incarnation) -> Sequence[Group]:
        """See `Engine`."""
        endpoints = self._config.endpoints
        return meet(
            rank=self._context.identity.rank,
            world_size=self._context.identity.world_size,
            address=(endpoints.rendezvous_host, endpoints.rendezvous_port),
            listen_host=self._context.identity.host_address,
            incarnation=incarnation,
            device=self._device.type,
            timeout_seconds=self._config.recovery.collective_timeout_seconds,
        )

    def trainer(self, prepared: wire.Prepared, total_steps: int) -> DraftTrainer:
        """See `Engine`."""
        shape, parallelism = draft_config(self._config, prepared), self._config.training.parallelism
        check_shape(shape, parallelism.tensor)
        parallel = _parallel(self._config)
        matrices = target_head.load_matrices(self._config.target, dtype=parallel.compute_dtype)
        vocab = vocab_of(prepared)
        if prepared.target_vocab_size != matrices.embedding.shape[0]:
            raise UserError(
                f"the target's vocabulary has {matrices.embedding.shape[0]} rows, this job was prepared for "
                f"{prepared.target_vocab_size}: restore the target, or start a new job"
            )
        identity = self._context.identity
        sharded = identity.world_size > 1 or parallel.compute != "float32"
        initial_from = self._config.draft.initial_from
        return DraftTrainer(
            shape,
            loss_config(self._config),
            _optim(self._config, total_steps),
            parallel,
            matrices,
            vocab,
            device=self._device,
            grid=_grid(self._config) if sharded else Grid(),
            packed=self._config.training.packing_tokens is not None,
            seed=self._config.draft.seed,
            initial=None if initial_from is None else draft_reader(Path(initial_from)),
            seed_step=lambda step: determinism.seed_step(
                self._config.job_uid, step, identity.rank // parallelism.tensor
            ),
        )

    def source(self, client: MetadataClient, incarnation: Incarnation) -> StoreSource:
        """See `Engine`."""
        token = self._context.tokens / env.TOKEN_STORE
        settings = StoreConfig.of_job(
            self._config.store,
            local_hostname=self._context.identity.host_address,
            token_file=token if token.is_file() else None,
        )
        store = FeatureStore(
            open_blobs(settings),
            job_uid=self._config.job_uid,
            digest=self._config.store.digest,
            retain_on_release=True,
            objects_serve_many=bool(self._config.data.features),
        )
        return StoreSource(store, client, incarnation)

    def check_inputs(self, prepared: wire.Prepared) -> None:
        """See `Engine`. One rank of a host hashes the files for all."""
        if self._context.identity.local_rank == 0:
            check_inputs(prepared.inputs, digest_inputs(self._config))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """TensorBoard scalars under the checkpoint folder; a replayed step overwrites."""
        if self._log is None:
            self._log = ScalarLog(Path(self._config.training.checkpoint.path) / "tensorboard", first_step=step)
        self._log.add(step, metrics)

    def close(self) -> None:
        """See `Engine`."""
        if self._log is not None:
            self._log.close()


def draft_config(config: JobConfig, prepared: wire.Prepared) -> DraftConfig:
    """The draft's shape, from the target's own configuration and what `prepare` counted."""
    target = target_config(config.target)
    text = dict(target.get("text_config") or target)
    # The rows of the embedding decide, which some models pad beyond the configured vocabulary.
    text["vocab_size"] = prepared.target_vocab_size
    is_newer = config.draft.variant == "eagle3.1"
    return DraftConfig.from_target_config(
        text,
        draft_vocab_size=len(_d2t(prepared)),
        max_position=config.data.max_length,
        fc_norm=is_newer,
        norm_output=is_newer,
    )


def loss_config(config: JobConfig) -> LossConfig:
    """The objective that the job asks for."""
    return LossConfig(steps=config.draft.steps, decay=config.draft.decay, normalisation=config.draft.normalisation)


def vocab_of(prepared: wire.Prepared) -> VocabMap:
    """The vocabulary map that `prepare` recorded. Raises `UserError` if it does not fit the target."""
    d2t = _d2t(prepared)
    kept = d2t + np.arange(len(d2t), dtype=np.int64)
    if len(kept) and not (kept.min() >= 0 and kept.max() < prepared.target_vocab_size):
        raise UserError("the prepared vocabulary map names tokens that the target does not have")
    t2d = np.zeros(prepared.target_vocab_size, dtype=np.bool_)
    t2d[kept] = True
    return VocabMap(d2t=d2t, t2d=t2d)


def _d2t(prepared: wire.Prepared) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.frombuffer(base64.b64decode(prepared.draft_to_target), dtype="<i8").astype(np.int64)


def _grid(config: JobConfig) -> Grid:
    world = dist.group.WORLD
    if world is None:
        raise Bug("the ranks have not met")
    return make_grid(
        world,
        sequence=config.training.parallelism.sequence,
        tensor=config.training.parallelism.tensor,
        timeout_seconds=config.recovery.collective_timeout_seconds,
    )


def _parallel(config: JobConfig) -> ParallelConfig:
    dtype = config.training.dtype
    if dtype == "float16":
        raise UserError("training.dtype float16 loses small gradients: give float32 or bfloat16")
    return ParallelConfig(compute=dtype)


def _optim(config: JobConfig, total_steps: int) -> OptimConfig:
    training = config.training
    schedule = ScheduleConfig(
        learning_rate=training.learning_rate,
        total_steps=total_steps,
        kind="cosine" if training.schedule == "Cosine" else "constant",
        warmup_ratio=training.warmup_ratio,
    )
    return OptimConfig(schedule=schedule, weight_decay=training.weight_decay, max_grad_norm=training.max_grad_norm)
