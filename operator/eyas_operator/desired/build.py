"""What every builder needs to know, and the words that all manifests share (metadata, owner, digest).

Pure. A `Build` is one job at one moment: its spec, the status that was written already, and the environment. The same
build always gives the same bytes, so that a second pass finds nothing to do.
"""

import hashlib
import json
from dataclasses import dataclass

from eyas_operator import names
from eyas_operator.api.job import JobSpec, Mode
from eyas_operator.api.status import JobStatus
from eyas_operator.api.store import StoreBackend, StoreNodes
from eyas_operator.environment import Environment
from eyas_operator.names import JobIdentity, Role
from eyas_operator.settings import Settings
from eyas_operator.world import Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One job as the builders see it."""

    job: JobIdentity
    spec: JobSpec
    status: JobStatus
    environment: Environment
    settings: Settings

    @property
    def config_name(self) -> str:
        """Name of the ConfigMap of the present store epoch and attempt."""
        return names.config_map(self.job, self.status.store_epoch, self.status.attempt)

    @property
    def world_size(self) -> int:
        """Ranks of the present attempt."""
        return self.status.gang.replicas * self.status.gang.processes_per_pod


def own_store_nodes(spec: JobSpec) -> StoreNodes | None:
    """The job's own Mooncake nodes; None when it has none."""
    if spec.store.backend is not StoreBackend.MOONCAKE or spec.mode is Mode.COLOCATED:
        return None
    mooncake = spec.store.mooncake
    if mooncake is not None and mooncake.external is not None:
        return None
    return (mooncake.nodes if mooncake is not None else None) or StoreNodes()


def shares_a_pool(spec: JobSpec) -> bool:
    """Its features lie in a pool that outlives it, so that somebody has to take them away."""
    mooncake = spec.store.mooncake if spec.store.backend is StoreBackend.MOONCAKE else None
    return mooncake is not None and mooncake.external is not None and spec.mode is not Mode.COLOCATED


def producer_count(spec: JobSpec) -> int:
    """Producer pods that the spec asks for."""
    return 0 if spec.mode is Mode.COLOCATED else spec.producers.replicas


def roles_of(spec: JobSpec) -> tuple[Role, ...]:
    """Roles that this job has pods of."""
    roles = [Role.METADATA, Role.CONSUMER]
    if producer_count(spec):
        roles.append(Role.PRODUCER)
    if own_store_nodes(spec) is not None:
        roles += [Role.STORE_MASTER, Role.STORE_NODE]
    return tuple(roles)


def owner(job: JobIdentity) -> Manifest:
    """The reference that lets Kubernetes collect a child together with its job."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": job.name,
        "uid": job.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def metadata(job: JobIdentity, name: str, component: str = names.SHARED, *, owned: bool = True) -> Manifest:
    """`metadata` of a child that is not a pod. `owned=False`: it outlives the job."""
    built: Manifest = {"name": name, "namespace": job.namespace, "labels": names.job_labels(job, component)}
    if owned:
        built["ownerReferences"] = [owner(job)]
    return built


def with_digest(manifest: Manifest) -> Manifest:
    """`manifest` with the annotation by which a later pass sees that it is applied already."""
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:32]
    meta = manifest["metadata"]
    annotations = meta.get("annotations", {}) | {names.ANNOTATION_DIGEST: digest}
    return manifest | {"metadata": meta | {"annotations": annotations}}


def with_version(build: Build, manifest: Manifest) -> Manifest:
    """`manifest` with the label that says who wrote it; after the digest, so that an upgrade finds nothing to do."""
    meta = manifest["metadata"]
    labels = meta["labels"] | {names.LABEL_VERSION: names.version_label(build.settings.version)}
    return manifest | {"metadata": meta | {"labels": labels}}
