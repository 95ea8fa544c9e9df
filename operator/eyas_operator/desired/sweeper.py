"""The sweeper: the one pod that runs once all others are gone, and empties a shared pool of this job's features.

It needs neither the metadata claim nor the other pods, so that it works after whatever ended the job. It is done when
it exits with 0.
"""

from eyas_contract import env
from eyas_operator.desired.build import Build
from eyas_operator.desired.pods import PodShape
from eyas_operator.names import PodIdentity


def shape(build: Build, identity: PodIdentity) -> PodShape:
    """The pod of one try."""
    return PodShape(
        template=build.spec.services.template,
        entrypoint="eyas_runtime.metadata.discard",
        environment=((env.ORDINAL, str(identity.serial)),),
        tokens=(env.TOKEN_STORE,),
        requests=(("cpu", "100m"), ("memory", "256Mi")),
        limits=(("memory", "2Gi"),),
    )
