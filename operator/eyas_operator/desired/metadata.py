"""The metadata service: its claim with the store epoch in its name, its one pod, its Service.

The claim may be mounted by one pod only; the Service selects exactly the present pod, so that a predecessor which a
partition kept alive is never spoken to by new connections.
"""

from eyas_contract import env
from eyas_operator import names
from eyas_operator.api.store import StoreBackend
from eyas_operator.desired import volumes
from eyas_operator.desired.build import Build, metadata
from eyas_operator.desired.pods import PodShape
from eyas_operator.names import PodIdentity, Role
from eyas_operator.world import Manifest


def claim(build: Build) -> Manifest:
    """The claim of the present store epoch; owned, so it goes with the job."""
    volume = build.spec.volumes.metadata
    name = names.metadata_claim(build.job, build.status.store_epoch)
    mode = "ReadWriteOncePod" if volume.exclusive else "ReadWriteOnce"
    meta = metadata(build.job, name, Role.METADATA.value)
    meta["labels"] |= {names.LABEL_STORE_EPOCH: str(build.status.store_epoch)}
    return claim_manifest(meta, mode, volume.size, volume.storage_class_name)


def claim_manifest(meta: Manifest, access_mode: str, nbytes: int, storage_class: str | None) -> Manifest:
    """A claim of `nbytes` bytes."""
    spec: Manifest = {"accessModes": [access_mode], "resources": {"requests": {"storage": str(nbytes)}}}
    if storage_class:
        spec["storageClassName"] = storage_class
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def shape(build: Build) -> PodShape:
    """The pod that owns the SQLite file."""
    claims = [(volumes.METADATA, names.metadata_claim(build.job, build.status.store_epoch), False)]
    if build.spec.store.backend is StoreBackend.SHARED_DIRECTORY:
        claims.append((volumes.STORE, store_claim_name(build), False))
    identity = PodIdentity(role=Role.METADATA, index=0, serial=_serial(build), store_epoch=build.status.store_epoch)
    folder = build.environment.mount_path(build.job, identity.pod_name(build.job), volumes.METADATA)
    return PodShape(
        template=build.spec.services.template,
        entrypoint="eyas_runtime.metadata.service",
        environment=(
            (env.METADATA_DIRECTORY, folder),
            (env.ORDINAL, str(identity.serial)),
            (env.CHECKPOINT_STEP, str(build.status.checkpoint.step)),
        ),
        tokens=(env.TOKEN_PRODUCER, env.TOKEN_CONSUMER, env.TOKEN_STORE, env.RECEIPT_KEY),
        reader_tokens=True,
        claims=tuple(claims),
        ports=(("http", env.METADATA_PORT),),
        requests=(("cpu", "250m"), ("memory", "512Mi")),
        limits=(("memory", "4Gi"),),
    )


def store_claim_name(build: Build) -> str:
    """The claim of a shared directory: the user's, or ours."""
    directory = build.spec.store.shared_directory
    return (directory.claim_name if directory is not None else None) or names.store_claim(build.job)


def _serial(build: Build) -> int:
    return next((unit.serial for unit in build.status.units if unit.role is Role.METADATA), 0)


def service(build: Build) -> Manifest:
    """The stable address; selects the pod of the present epoch and ordinal only."""
    identity = PodIdentity(role=Role.METADATA, index=0, serial=_serial(build), store_epoch=build.status.store_epoch)
    return service_manifest(build, identity, (("http", env.METADATA_PORT),))


def service_manifest(build: Build, identity: PodIdentity, ports: tuple[tuple[str, int], ...]) -> Manifest:
    """A Service that selects exactly one pod."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(build.job, names.service(build.job, identity.role), identity.role.value),
        "spec": {
            "type": "ClusterIP",
            "selector": names.pod_selector(build.job, identity),
            "ports": [{"name": name, "port": port, "targetPort": port, "protocol": "TCP"} for name, port in ports],
        },
    }
