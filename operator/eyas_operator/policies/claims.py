"""Can the claim with the checkpoints serve as many consumers as the spec asks for?

The API server judges what a spec says of a claim that is to be made. What a claim is that the spec only names, or that
was made for an earlier spec, is seen here, before any pod is made for it: on a volume of one node the second consumer
would wait for ever, and hold its GPUs.
"""

from typing import Any

from eyas_operator import names
from eyas_operator.policies.moment import Moment


def named_checkpoints(body: dict[str, Any]) -> str:
    """The claim of somebody else that has to be looked at before consumers are made; empty without one.

    `body` is a custom resource that the API server took or a person wrote: nothing but `parse` may rely on its form.
    """
    spec = body.get("spec")
    volumes = spec.get("volumes") if isinstance(spec, dict) else None
    checkpoints = volumes.get("checkpoints") if isinstance(volumes, dict) else None
    name = checkpoints.get("claimName") if isinstance(checkpoints, dict) else None
    return name if isinstance(name, str) else ""


def claim_problem(moment: Moment) -> str:
    """Why the claim cannot serve the consumers that are asked for; empty if it can, or is not there yet."""
    wanted = moment.spec.consumers.replicas
    if wanted == 1:
        return ""
    chosen = moment.spec.volumes.checkpoints.claim_name
    claim = moment.observed.named_claim if chosen else moment.observed.claims.get(names.checkpoints_claim(moment.job))
    if claim is None or claim.shared:
        return ""
    if chosen is None:
        return "spec.consumers.replicas: must stay 1, the claim with the checkpoints was made for one node"
    modes = ", ".join(claim.access_modes)
    return (
        f"spec.volumes.checkpoints.claimName: {chosen} is {modes}, and {wanted} consumers need ReadWriteMany; "
        "set spec.consumers.replicas to 1, or make a new job with a claim that has it"
    )
