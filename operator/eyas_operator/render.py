"""Every object that a job would become on a cluster, without one: the plan's own first passes, printed.

Pure. What `render` shows is what `plan` would create first: attempt 1, store epoch 1, each unit under its first serial.
"""

from dataclasses import replace
from typing import Any, Final

from eyas_operator.actions import wanted_pods
from eyas_operator.api.parse import parse
from eyas_operator.api.status import JobStatus, MetadataState
from eyas_operator.desired import Build, desired
from eyas_operator.environment import Environment
from eyas_operator.names import JobIdentity
from eyas_operator.observe import observe
from eyas_operator.policies import lifecycle, units
from eyas_operator.policies.moment import Moment
from eyas_operator.settings import Settings
from eyas_operator.world import Children, Manifest, World

PLACEHOLDER_UID: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for the UID that the API server would give."""


def render(body: dict[str, Any], environment: Environment, settings: Settings) -> tuple[Manifest, ...]:
    """Manifests in the order of creation, Secrets without values.

    Raises `SpecError` (one line per error) or `UserError` for a path that no volume holds.
    """
    job = parse(body)
    identity = JobIdentity(namespace=job.metadata.namespace, name=job.metadata.name, uid=PLACEHOLDER_UID)
    spec = job.spec.model_copy(update={"suspend": False})
    observed = observe(identity, World(children=Children()))
    moment = Moment(job=identity, generation=1, spec=spec, settings=settings, observed=observed, now=0.0)
    status = units.schedule(moment, lifecycle.begin(moment, JobStatus()))
    status = units.launch(moment, replace(status, metadata=MetadataState(claim_uid=PLACEHOLDER_UID)))
    build = Build(job=identity, spec=spec, status=status, environment=environment, settings=settings)
    return desired(build, wanted_pods(status)).manifests
