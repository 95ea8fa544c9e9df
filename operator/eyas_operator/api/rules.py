"""Rules over several fields, each with a sentence and, for the CRD, the same rule in CEL; over one value: `checks`.

A rule is a plain function of the spec. `IMMUTABLE` names the parts that fix the result: they may not change while a
job lives (CEL compares with the old object; the operator compares a digest that it wrote into the status).
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from eyas_operator.api.job import JobSpec, Mode
from eyas_operator.api.pools import FabricMode
from eyas_operator.api.store import AccessMode, Protocol, StoreBackend
from eyas_operator.names import Role

IMMUTABLE: Final = ("mode", "target", "data", "draft", "training", "store", "volumes")
OPTIONAL: Final = ("evaluation",)
"""As immutable, but a job may be without them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """`holds(spec)` must be True; otherwise `path: message` is an error."""

    path: str
    message: str
    holds: Callable[[JobSpec], bool]
    cel: str
    """The same over `self`, the spec."""


def _fabric_where_rdma(spec: JobSpec) -> bool:
    mooncake = spec.store.mooncake
    return mooncake is None or mooncake.protocol is not Protocol.RDMA or spec.fabric.mode is not FabricMode.NONE


def _checkpoints_shared(spec: JobSpec) -> bool:
    volume = spec.volumes.checkpoints
    return spec.consumers.replicas == 1 or volume.access_mode is not AccessMode.READ_WRITE_ONCE


def _ranks_fill_the_grid(spec: JobSpec) -> bool:
    ranks = spec.consumers.replicas * spec.consumers.processes_per_pod
    return ranks % (spec.training.parallelism.tensor * spec.training.parallelism.sequence) == 0


RULES: Final = (
    Rule(
        path="spec.data",
        message="needs exactly one of prompts and features",
        holds=lambda spec: bool(spec.data.prompts) != bool(spec.data.features),
        cel="(has(self.data.prompts) && size(self.data.prompts) > 0) != "
        "(has(self.data.features) && size(self.data.features) > 0)",
    ),
    Rule(
        path="spec.volumes.checkpoints",
        message="needs exactly one of claimName and size",
        holds=lambda spec: (spec.volumes.checkpoints.claim_name is None) != (spec.volumes.checkpoints.size is None),
        cel="!has(self.volumes) || !has(self.volumes.checkpoints) || "
        "(has(self.volumes.checkpoints.claimName) != has(self.volumes.checkpoints.size))",
    ),
    Rule(
        path="spec.volumes.checkpoints.accessMode",
        message="must be ReadWriteMany when there are several consumers",
        holds=_checkpoints_shared,
        cel="self.consumers.replicas == 1 || !has(self.volumes) || !has(self.volumes.checkpoints) || "
        "!has(self.volumes.checkpoints.accessMode) || self.volumes.checkpoints.accessMode == 'ReadWriteMany'",
    ),
    Rule(
        path="spec.store.backend",
        message="Memory keeps features inside one process and needs mode: Colocated",
        holds=lambda spec: spec.store.backend is not StoreBackend.MEMORY or spec.mode is Mode.COLOCATED,
        cel="self.store.backend != 'Memory' || self.mode == 'Colocated'",
    ),
    Rule(
        path="spec.store.mooncake",
        message="is only for backend: Mooncake",
        holds=lambda spec: spec.store.mooncake is None or spec.store.backend is StoreBackend.MOONCAKE,
        cel="!has(self.store.mooncake) || self.store.backend == 'Mooncake'",
    ),
    Rule(
        path="spec.store.sharedDirectory",
        message="is only for backend: SharedDirectory",
        holds=lambda spec: spec.store.shared_directory is None or spec.store.backend is StoreBackend.SHARED_DIRECTORY,
        cel="!has(self.store.sharedDirectory) || self.store.backend == 'SharedDirectory'",
    ),
    Rule(
        path="spec.store.mooncake",
        message="needs at most one of nodes and external",
        holds=lambda spec: not (spec.store.mooncake and spec.store.mooncake.nodes and spec.store.mooncake.external),
        cel="!has(self.store.mooncake) || !(has(self.store.mooncake.nodes) && has(self.store.mooncake.external))",
    ),
    Rule(
        path="spec.fabric.mode",
        message="must be DevicePlugin when spec.store.mooncake.protocol is RDMA",
        holds=_fabric_where_rdma,
        cel="!has(self.store.mooncake) || self.store.mooncake.protocol != 'RDMA' || self.fabric.mode != 'None'",
    ),
    Rule(
        path="spec.training.microBatchSize",
        message="must be at most spec.training.windowSize",
        holds=lambda spec: spec.training.micro_batch_size <= spec.training.window_size,
        cel="self.training.microBatchSize <= self.training.windowSize",
    ),
    Rule(
        path="spec.training.packing",
        message="needs spec.training.microBatchSize: 1, because a pack takes as many samples as fit in maxTokens",
        holds=lambda spec: spec.training.packing is None or spec.training.micro_batch_size == 1,
        cel="!has(self.training.packing) || self.training.microBatchSize == 1",
    ),
    Rule(
        path="spec.training.parallelism",
        message="tensor x sequence must divide spec.consumers.replicas x spec.consumers.processesPerPod",
        holds=_ranks_fill_the_grid,
        cel="(self.consumers.replicas * self.consumers.processesPerPod) % "
        "(self.training.parallelism.tensor * self.training.parallelism.sequence) == 0",
    ),
    Rule(
        path="spec.evaluation",
        message="needs spec.data.prompts: without a target there is nobody to capture held-out prompts",
        holds=lambda spec: spec.evaluation is None or bool(spec.data.prompts),
        cel="!has(self.evaluation) || (has(self.data.prompts) && size(self.data.prompts) > 0)",
    ),
    Rule(
        path="spec.evaluation.everySteps",
        message="times spec.training.windowSize must be a multiple of spec.data.groupSize, or capture groups of "
        "training samples would depend on evaluation",
        holds=lambda spec: (
            spec.evaluation is None
            or spec.evaluation.every_steps * spec.training.window_size % spec.data.group_size == 0
        ),
        cel="!has(self.evaluation) || self.evaluation.everySteps * self.training.windowSize % self.data.groupSize == 0",
    ),
    Rule(
        path="spec.consumers.gpus",
        message="must be 0 or equal to spec.consumers.processesPerPod: each rank has one GPU",
        holds=lambda spec: spec.consumers.gpus in (0, spec.consumers.processes_per_pod),
        cel="self.consumers.gpus == 0 || self.consumers.gpus == self.consumers.processesPerPod",
    ),
    Rule(
        path="spec.recovery.backoff.maxSeconds",
        message="must be at least spec.recovery.backoff.baseSeconds",
        holds=lambda spec: spec.recovery.backoff.max_seconds >= spec.recovery.backoff.base_seconds,
        cel="self.recovery.backoff.maxSeconds >= self.recovery.backoff.baseSeconds",
    ),
)


def violations(spec: JobSpec) -> tuple[str, ...]:
    """One line per broken rule."""
    return tuple(f"{rule.path}: {rule.message}" for rule in RULES if not rule.holds(spec))


def immutable_digest(spec: JobSpec) -> str:
    """Digest of the parts that may not change; equal for equal meaning, whatever was written and what defaulted.

    What says no more than the default is left out, so that a field that a later operator adds does not make a running
    job look changed. Within one version of the API a default never changes: it would.
    """
    said = spec.model_dump(mode="json", include={*IMMUTABLE, *OPTIONAL}, by_alias=True, exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:32]


def template_digest(spec: JobSpec, role: Role) -> str:
    """Digest of what a spec that may change says of one pod of `role`; empty for roles that it says nothing of."""
    pools = {
        Role.PRODUCER: spec.producers,
        Role.CONSUMER: spec.consumers,
        Role.METADATA: spec.services,
        Role.STORE_MASTER: spec.services,
    }
    if role not in pools:
        return ""
    # Widths are no part of a pod; defaults are left out, so that a default of a later version changes no digest.
    pool = pools[role].model_dump_json(by_alias=True, exclude_defaults=True, exclude={"replicas", "processes_per_pod"})
    fabric = spec.fabric.model_dump_json(by_alias=True, exclude_defaults=True)
    return hashlib.sha256(f"{pool}\n{fabric}".encode()).hexdigest()[:32]


def immutable_changes(before: JobSpec, after: JobSpec) -> tuple[str, ...]:
    """Which of the parts that may not change differ in meaning."""
    return tuple(part for part in (*IMMUTABLE, *OPTIONAL) if getattr(before, part) != getattr(after, part))
