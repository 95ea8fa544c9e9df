"""The feature store and the volumes of a job."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from eyas_operator.api.base import Model, Name, Quantity
from eyas_operator.api.template import PodTemplate

STORE_NODES_MAX: Final = 64


class StoreBackend(StrEnum):
    """Where captured features wait."""

    MOONCAKE = "Mooncake"
    SHARED_DIRECTORY = "SharedDirectory"
    MEMORY = "Memory"


class DigestAlgorithm(StrEnum):
    """Digest by which a reader believes bytes."""

    BLAKE3 = "Blake3"
    XXH3_128 = "Xxh3_128"


class Protocol(StrEnum):
    """Transport of Mooncake."""

    TCP = "TCP"
    RDMA = "RDMA"


class StoreNodes(Model):
    """Pods that own the memory of the store."""

    replicas: Annotated[int, Field(ge=1, le=STORE_NODES_MAX)] = 1
    """Store nodes; a node that dies loses what it holds, which is captured again."""
    segment_size: Quantity = 2**30
    """Memory of one node; its pod gets 1Gi more."""
    template: PodTemplate = PodTemplate()


class ExternalPool(Model):
    """A Mooncake pool shared by several jobs."""

    master_address: Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[^:/\s]+:[0-9]{1,5}$")]
    """`host:port` of the master's RPC."""
    master_metrics_address: Annotated[str, Field(min_length=3, max_length=253, pattern=r"^[^:/\s]+:[0-9]{1,5}$")]
    """`host:port` of the master's HTTP."""


class Mooncake(Model):
    """Mooncake's own settings."""

    protocol: Protocol = Protocol.TCP
    rdma_devices: Annotated[str, Field(max_length=253)] = ""
    """Comma-separated device names; empty: all."""
    nodes: StoreNodes | None = None
    """The job's own store nodes. Without it and without `external`: one node of 1Gi."""
    external: ExternalPool | None = None
    """Use this pool instead of own nodes."""


class SharedDirectory(Model):
    """A folder on a volume that producers and consumers mount."""

    claim_name: Name | None = None
    """An existing claim. Without it one of `size` is made, and deleted at the end."""
    size: Quantity = 10 * 2**30
    """Size of the claim to make."""
    storage_class_name: Name | None = None
    """Storage class of the claim to make; it must offer ReadWriteMany."""


class Store(Model):
    """The feature store."""

    backend: StoreBackend = StoreBackend.MOONCAKE
    max_resident_bytes: Quantity = 2**30
    """Bytes of features that may wait at a time. Must hold at least two windows."""
    digest: DigestAlgorithm = DigestAlgorithm.BLAKE3
    """Xxh3_128 is faster and finds damage, but not forgery."""
    call_deadline_seconds: Annotated[int, Field(ge=1, le=600)] = 10
    """Longest time that one call to the store may take."""
    mooncake: Mooncake | None = None
    shared_directory: SharedDirectory | None = None


class ExistingClaim(Model):
    """A claim that somebody else made; mounted read-only."""

    claim_name: Name
    """Name of a claim in the job's namespace."""


class AccessMode(StrEnum):
    """Access mode of a claim that the operator makes."""

    READ_WRITE_ONCE = "ReadWriteOnce"
    READ_WRITE_MANY = "ReadWriteMany"


class RetentionPolicy(StrEnum):
    """What becomes of a claim when its job is deleted."""

    RETAIN = "Retain"
    DELETE = "Delete"


class CheckpointsVolume(Model):
    """Where checkpoints go: an existing claim, or one made for this job."""

    claim_name: Name | None = None
    """An existing claim. Exclusive with `size`."""
    size: Quantity | None = None
    """Size of a claim to make. Exclusive with `claimName`."""
    storage_class_name: Name | None = None
    """Storage class of the claim to make. Without it: the cluster's default."""
    access_mode: AccessMode | None = None
    """Without it: ReadWriteMany if there are several consumers, else ReadWriteOnce."""
    retention_policy: RetentionPolicy = RetentionPolicy.RETAIN
    """Retain: deleting the job never deletes the draft."""


class MetadataVolume(Model):
    """Where the metadata store lives: a claim that only one pod may mount."""

    size: Quantity = 10 * 2**30
    """Size of the claim."""
    storage_class_name: Name | None = None
    """Storage class of the claim: a disk, never a network file system. Without it: the cluster's default."""
    exclusive: bool = True
    """ReadWriteOncePod. Switch off only where the storage does not offer it."""


class Volumes(Model):
    """The volumes of the job."""

    models: ExistingClaim | None = None
    """Mounted at /models."""
    data: ExistingClaim | None = None
    """Mounted at /data."""
    checkpoints: CheckpointsVolume = CheckpointsVolume(size=100 * 2**30)
    metadata: MetadataVolume = MetadataVolume()
