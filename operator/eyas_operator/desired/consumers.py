"""Consumers: one gang of pods, all with the same attempt, which is in their names and environment.

All pods of an attempt are made at once and wait for each other by themselves; ordered creation under a gang scheduler
would wait for ever.
"""

from eyas_contract import env
from eyas_operator.api.job import Mode
from eyas_operator.desired.build import Build
from eyas_operator.desired.pods import PodShape
from eyas_operator.desired.producers import checkpoints_claim, input_claims
from eyas_operator.names import PodIdentity

SHARED_MEMORY_BYTES = 16 * 2**30
GRACE_SECONDS = 120
"""A drain ends with a checkpoint."""


def shape(build: Build, identity: PodIdentity) -> PodShape:
    """One pod of the gang."""
    threads = build.spec.training.threads
    gang = build.status.gang
    colocated = build.spec.mode is Mode.COLOCATED
    environment = [
        (env.ATTEMPT, str(identity.serial)),
        (env.WORLD_SIZE, str(build.world_size)),
        ("OMP_NUM_THREADS", str(threads)),
        ("MKL_NUM_THREADS", str(threads)),
    ]
    if build.spec.training.deterministic and build.spec.consumers.gpus:
        environment.append(("CUBLAS_WORKSPACE_CONFIG", ":4096:8"))
    producer_tokens = (env.TOKEN_PRODUCER,) if colocated else ()
    return PodShape(
        template=build.spec.consumers.template,
        entrypoint="eyas_runtime.colocated" if colocated else "eyas_runtime.train.consume",
        processes=gang.processes_per_pod,
        environment=tuple(environment),
        tokens=(env.TOKEN_CONSUMER, env.TOKEN_STORE, *producer_tokens),
        claims=(*input_claims(build), checkpoints_claim(build)),
        ports=(("rendezvous", env.RENDEZVOUS_PORT),),
        requests=(("cpu", str(threads * gang.processes_per_pod)), ("memory", "4Gi")),
        limits=(("memory", "128Gi"),),
        gpus=build.spec.consumers.gpus,
        fabric=True,
        shared_memory_bytes=SHARED_MEMORY_BYTES,
        grace_seconds=GRACE_SECONDS,
    )
