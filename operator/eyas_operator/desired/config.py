"""The job's configuration for its own processes: `eyas_contract.config.JobConfig`, in an immutable ConfigMap.

One ConfigMap per store epoch and attempt: a pod keeps the one it was made with, so nothing changes under a process.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from eyas_contract import config, env
from eyas_contract.errors import UserError
from eyas_operator.api.job import Mode
from eyas_operator.api.store import DigestAlgorithm, StoreBackend
from eyas_operator.api.training import DraftVariant
from eyas_operator.desired import volumes
from eyas_operator.desired.build import Build, metadata, own_store_nodes, producer_count
from eyas_operator.names import PodIdentity, Role
from eyas_operator.world import Manifest

_VARIANTS: Final[dict[DraftVariant, Literal["eagle3", "eagle3.1"]]] = {
    DraftVariant.EAGLE3: "eagle3",
    DraftVariant.EAGLE3_1: "eagle3.1",
}
_DIGESTS: Final[dict[DigestAlgorithm, Literal["blake3", "xxh3-128"]]] = {
    DigestAlgorithm.BLAKE3: "blake3",
    DigestAlgorithm.XXH3_128: "xxh3-128",
}


def config_map(build: Build) -> Manifest:
    """The ConfigMap with `job.json`. Raises `UserError` for a path that no volume holds."""
    text = msgspec.json.format(msgspec.json.encode(job_config(build)), indent=2).decode()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(build.job, build.config_name),
        "immutable": True,
        "data": {volumes.JOB_FILE: text},
    }


def job_config(build: Build) -> config.JobConfig:
    """Everything that a role needs to know; no secrets."""
    return config.JobConfig(
        name=build.job.name,
        job_uid=build.job.job_uid,
        store_epoch=build.status.store_epoch,
        target=_target(build),
        data=_data(build),
        draft=_draft(build),
        training=_training(build),
        store=_store(build),
        recovery=_recovery(build),
        endpoints=_endpoints(build),
        producers=producer_count(build.spec),
        world_size=build.world_size,
        colocated=build.spec.mode is Mode.COLOCATED,
        evaluation=_evaluation(build),
    )


def _path(build: Build, field: str, path: str) -> str:
    try:
        return build.environment.resolve(build.job, path)
    except UserError as error:
        raise UserError(f"spec.{field}: {error}") from error


def _paths(build: Build, field: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(_path(build, f"{field}[{place}]", path) for place, path in enumerate(paths))


def _target(build: Build) -> config.TargetConfig:
    target = build.spec.target
    return config.TargetConfig(
        model=_path(build, "target.model", target.model),
        gguf_file=target.gguf_file,
        dtype=target.dtype.value,
        capture_layers=target.capture_layers,
        threads=target.threads,
    )


def _data(build: Build) -> config.DataConfig:
    data = build.spec.data
    return config.DataConfig(
        prompts=_paths(build, "data.prompts", data.prompts),
        features=_paths(build, "data.features", data.features),
        max_length=data.max_length,
        epochs=data.epochs,
        seed=data.seed,
        chat_template=data.chat_template,
        group_size=data.group_size,
    )


def _evaluation(build: Build) -> config.EvaluationConfig | None:
    evaluation = build.spec.evaluation
    if evaluation is None:
        return None
    prompts = _paths(build, "evaluation.prompts", evaluation.prompts)
    return config.EvaluationConfig(prompts=prompts, every_steps=evaluation.every_steps)


def _draft(build: Build) -> config.DraftConfig:
    draft = build.spec.draft
    initial = draft.initial_from
    return config.DraftConfig(
        vocab_size=draft.vocab_size,
        steps=draft.steps,
        decay=draft.decay,
        normalisation=draft.loss_normalisation.value,
        variant=_VARIANTS[draft.variant],
        initial_from=None if initial is None else _path(build, "draft.initialFrom", initial),
        seed=draft.seed,
    )


def checkpoint_folder(build: Build) -> str:
    """Folder of this job's checkpoints; a claim may hold those of several jobs."""
    return f"{build.environment.mount_path(build.job, '', volumes.CHECKPOINTS)}/{build.job.stem}"


def _training(build: Build) -> config.TrainingConfig:
    training = build.spec.training
    return config.TrainingConfig(
        window_size=training.window_size,
        micro_batch_size=training.micro_batch_size,
        packing_tokens=None if training.packing is None else training.packing.max_tokens,
        learning_rate=training.learning_rate,
        warmup_ratio=training.warmup_ratio,
        schedule=training.schedule.value,
        max_grad_norm=training.max_grad_norm,
        weight_decay=training.weight_decay,
        max_steps=training.max_steps,
        threads=training.threads,
        device="cuda" if build.spec.consumers.gpus else "cpu",
        dtype=training.dtype.value,
        deterministic=training.deterministic,
        parallelism=config.ParallelismConfig(
            tensor=training.parallelism.tensor, sequence=training.parallelism.sequence
        ),
        checkpoint=config.CheckpointConfig(
            path=checkpoint_folder(build),
            every_steps=training.checkpoint.every_steps,
            keep=training.checkpoint.keep,
            deadline_seconds=training.checkpoint.deadline_seconds,
            allow_restart_from_zero=training.checkpoint.allow_restart_from_zero,
        ),
    )


def _store(build: Build) -> config.StoreConfig:
    store = build.spec.store
    common = config.StoreConfig(
        backend=store.backend.value,
        max_resident_bytes=store.max_resident_bytes,
        digest=_DIGESTS[store.digest],
        call_deadline_seconds=float(store.call_deadline_seconds),
    )
    if store.backend is StoreBackend.SHARED_DIRECTORY:
        folder = f"{build.environment.mount_path(build.job, '', volumes.STORE)}/{build.job.stem}"
        return msgspec.structs.replace(common, path=folder)
    if store.backend is StoreBackend.MEMORY:
        return common
    return _mooncake(build, common)


def _mooncake(build: Build, common: config.StoreConfig) -> config.StoreConfig:
    mooncake = build.spec.store.mooncake
    nodes = own_store_nodes(build.spec)
    if mooncake is not None and mooncake.external is not None:
        master, metrics = mooncake.external.master_address, mooncake.external.master_metrics_address
    else:
        host = build.environment.service_host(build.job, Role.STORE_MASTER)
        master, metrics = f"{host}:{env.MASTER_PORT}", f"{host}:{env.MASTER_METRICS_PORT}"
    return msgspec.structs.replace(
        common,
        master_address=master,
        master_metrics_address=metrics,
        protocol=mooncake.protocol.value if mooncake is not None else "TCP",
        rdma_devices=mooncake.rdma_devices if mooncake is not None else "",
        segment_bytes=nodes.segment_size if nodes is not None else 0,
        pool_bytes=nodes.segment_size * nodes.replicas if nodes is not None else 0,
        external=nodes is None and mooncake is not None and mooncake.external is not None,
    )


def _recovery(build: Build) -> config.RecoveryConfig:
    recovery = build.spec.recovery
    return config.RecoveryConfig(
        lease_seconds=float(recovery.lease_seconds),
        capture_deadline_seconds=float(recovery.capture_deadline_seconds),
        hang_seconds_min=float(recovery.hang_seconds),
        startup_deadline_seconds=float(build.spec.startup_deadline_seconds),
        restarts_in_place=recovery.restarts_in_place,
        backoff_base_seconds=float(recovery.backoff.base_seconds),
        backoff_max_seconds=float(recovery.backoff.max_seconds),
        collective_timeout_seconds=float(recovery.collective_timeout_seconds),
    )


def _endpoints(build: Build) -> config.Endpoints:
    leader = PodIdentity(role=Role.CONSUMER, index=0, serial=build.status.attempt)
    host = build.environment.service_host(build.job, Role.METADATA)
    return config.Endpoints(
        metadata_url=f"http://{host}:{env.METADATA_PORT}",
        rendezvous_host=build.environment.pod_host(build.job, leader),
        rendezvous_port=env.RENDEZVOUS_PORT,
    )
