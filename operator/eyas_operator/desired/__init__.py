"""All children of one job at one moment: pure functions from the spec, the status and an environment to manifests.

Which pods there should be is decided by `plan`; this package knows only how each child looks. The order of
`Desired.manifests` is the order in which they are made: what others mount or resolve comes first.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from eyas_operator.cluster import SecretShape
from eyas_operator.desired import access, config, consumers, metadata, producers, stores, sweeper
from eyas_operator.desired.build import Build, own_store_nodes, with_digest, with_version
from eyas_operator.desired.pods import PodShape, grace_seconds, pod
from eyas_operator.names import PodIdentity, Role
from eyas_operator.world import Manifest

__all__ = ["Build", "Desired", "desired", "pod_grace_seconds"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Everything that should exist."""

    secrets: tuple[SecretShape, ...]
    applied: tuple[Manifest, ...]
    """Services, NetworkPolicies, PodDisruptionBudgets, each with its digest annotation."""
    config: Manifest
    claims: tuple[Manifest, ...]
    pods: tuple[Manifest, ...]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """All manifests, in the order of creation; Secrets without their values."""
        secrets = tuple(shape.manifest for shape in self.secrets)
        return (*secrets, *self.applied, self.config, *self.claims, *self.pods)


def desired(build: Build, pods: Iterable[PodIdentity]) -> Desired:
    """The children of a job that should now have `pods`. Raises `UserError` for a path that no volume holds."""
    services = [access.peers_service(build), metadata.service(build)]
    if own_store_nodes(build.spec) is not None:
        services.append(stores.master_service(build))
    applied = (*services, *access.network_policies(build), *access.disruption_budgets(build))
    claims = (metadata.claim(build), stores.shared_directory_claim(build), stores.checkpoints_claim(build))
    made = (pod(build, identity, shape_of(build, identity)) for identity in pods)
    return Desired(
        secrets=tuple(replace(shape, manifest=with_version(build, shape.manifest)) for shape in access.secrets(build)),
        applied=tuple(with_version(build, with_digest(manifest)) for manifest in applied),
        config=with_version(build, config.config_map(build)),
        claims=tuple(with_version(build, claim) for claim in claims if claim is not None),
        pods=tuple(with_version(build, manifest) for manifest in made),
    )


def shape_of(build: Build, identity: PodIdentity) -> PodShape:
    """What a pod of this role is made of."""
    match identity.role:
        case Role.METADATA:
            return metadata.shape(build)
        case Role.PRODUCER:
            return producers.shape(build, identity)
        case Role.CONSUMER:
            return consumers.shape(build, identity)
        case Role.STORE_MASTER:
            return stores.master_shape(build, identity)
        case Role.STORE_NODE:
            return stores.node_shape(build, identity)
        case Role.SWEEPER:
            return sweeper.shape(build, identity)


def pod_grace_seconds(build: Build, identity: PodIdentity) -> int:
    """Seconds that a pod of this role gets between SIGTERM and SIGKILL."""
    return grace_seconds(shape_of(build, identity))
