"""The feature store: Mooncake master and nodes of the job's own, or the claim of a shared directory; and checkpoints.

The master forgets every object when it dies, so it is one replica behind a stable address and nothing waits for its
predecessor. Nodes own the memory; producers and consumers own none, so that their death loses no sample.
"""

from eyas_contract import env
from eyas_operator import names
from eyas_operator.api.base import render_quantity
from eyas_operator.api.store import AccessMode, RetentionPolicy, SharedDirectory, StoreBackend
from eyas_operator.desired.build import Build, metadata, own_store_nodes
from eyas_operator.desired.metadata import claim_manifest, service_manifest
from eyas_operator.desired.pods import PodShape
from eyas_operator.names import PodIdentity, Role
from eyas_operator.world import Manifest

NODE_OVERHEAD_BYTES = 2**30
NODE_GRACE_SECONDS = 60
"""A node that has to go moves its objects to the others; nobody waits for it."""
_MASTER_PORTS = (("rpc", env.MASTER_PORT), ("metrics", env.MASTER_METRICS_PORT))


def master_shape(build: Build, identity: PodIdentity) -> PodShape:
    """The Mooncake master of this job."""
    return PodShape(
        template=build.spec.services.template,
        entrypoint="eyas_runtime.features.blobs.mooncake_master",
        environment=((env.ORDINAL, str(identity.serial)),),
        tokens=(env.TOKEN_STORE,),
        ports=_MASTER_PORTS,
        requests=(("cpu", "250m"), ("memory", "512Mi")),
        limits=(("memory", "4Gi"),),
    )


def node_shape(build: Build, identity: PodIdentity) -> PodShape:
    """One pod that owns a segment."""
    nodes = own_store_nodes(build.spec)
    if nodes is None:
        raise ValueError("this job has no store nodes of its own")
    memory = render_quantity(nodes.segment_size + NODE_OVERHEAD_BYTES)
    return PodShape(
        template=nodes.template,
        entrypoint="eyas_runtime.features.blobs.mooncake_node",
        environment=((env.ORDINAL, str(identity.serial)),),
        tokens=(env.TOKEN_STORE,),
        requests=(("cpu", "250m"), ("memory", memory)),
        limits=(("memory", memory),),
        fabric=True,
        grace_seconds=NODE_GRACE_SECONDS,
    )


def master_service(build: Build) -> Manifest:
    """The master's stable address."""
    serial = next((unit.serial for unit in build.status.units if unit.role is Role.STORE_MASTER), 0)
    identity = PodIdentity(role=Role.STORE_MASTER, index=0, serial=serial)
    return service_manifest(build, identity, _MASTER_PORTS)


def shared_directory_claim(build: Build) -> Manifest | None:
    """The claim of a shared directory, unless the job names an existing one or needs none."""
    if build.spec.store.backend is not StoreBackend.SHARED_DIRECTORY:
        return None
    directory = build.spec.store.shared_directory or SharedDirectory()
    if directory.claim_name is not None:
        return None
    meta = metadata(build.job, names.store_claim(build.job))
    return claim_manifest(meta, AccessMode.READ_WRITE_MANY.value, directory.size, directory.storage_class_name)


def checkpoints_claim(build: Build) -> Manifest | None:
    """The claim for checkpoints; not owned by the job unless asked, so that deleting the job keeps the draft."""
    volume = build.spec.volumes.checkpoints
    if volume.size is None:
        return None
    several = build.spec.consumers.replicas > 1
    mode = volume.access_mode or (AccessMode.READ_WRITE_MANY if several else AccessMode.READ_WRITE_ONCE)
    owned = volume.retention_policy is RetentionPolicy.DELETE
    meta = metadata(build.job, names.checkpoints_claim(build.job), Role.CONSUMER.value, owned=owned)
    return claim_manifest(meta, mode.value, volume.size, volume.storage_class_name)
