"""Producers: stateless pods that run the target and capture. Their ordinal fences predecessors: in name and env."""

from eyas_contract import env
from eyas_operator import names
from eyas_operator.api.store import StoreBackend
from eyas_operator.desired import volumes
from eyas_operator.desired.build import Build
from eyas_operator.desired.metadata import store_claim_name
from eyas_operator.desired.pods import PodShape
from eyas_operator.names import PodIdentity

SHARED_MEMORY_BYTES = 8 * 2**30


def input_claims(build: Build) -> tuple[tuple[str, str, bool], ...]:
    """Models and data, read-only, and a shared directory store where the job has one."""
    chosen = build.spec.volumes
    claims: list[tuple[str, str, bool]] = []
    if chosen.models is not None:
        claims.append((volumes.MODELS, chosen.models.claim_name, True))
    if chosen.data is not None:
        claims.append((volumes.DATA, chosen.data.claim_name, True))
    if build.spec.store.backend is StoreBackend.SHARED_DIRECTORY:
        claims.append((volumes.STORE, store_claim_name(build), False))
    return tuple(claims)


def checkpoints_claim(build: Build) -> tuple[str, str, bool]:
    """The claim with checkpoints: the user's, or ours."""
    chosen = build.spec.volumes.checkpoints.claim_name
    return (volumes.CHECKPOINTS, chosen or names.checkpoints_claim(build.job), False)


def shape(build: Build, identity: PodIdentity) -> PodShape:
    """One producer."""
    threads = str(build.spec.target.threads)
    return PodShape(
        template=build.spec.producers.template,
        entrypoint="eyas_runtime.capture.produce",
        environment=((env.ORDINAL, str(identity.serial)), ("OMP_NUM_THREADS", threads), ("MKL_NUM_THREADS", threads)),
        tokens=(env.TOKEN_PRODUCER, env.TOKEN_STORE),
        claims=input_claims(build),
        requests=(("cpu", threads), ("memory", "4Gi")),
        limits=(("memory", "64Gi"),),
        gpus=build.spec.producers.gpus,
        fabric=True,
        shared_memory_bytes=SHARED_MEMORY_BYTES,
    )
