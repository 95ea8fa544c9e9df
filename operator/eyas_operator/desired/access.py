"""Who may speak to whom: token Secrets, NetworkPolicies, and budgets for voluntary disruptions.

Mooncake and collectives know no tokens: for them the policies here and the digests in the metadata store are all there
is. Policies govern the pods' primary network only; RDMA passes beside them.
"""

from typing import Final

from eyas_contract import env
from eyas_operator import names
from eyas_operator.cluster import SecretShape
from eyas_operator.desired.build import Build, metadata, own_store_nodes, producer_count, roles_of, shares_a_pool
from eyas_operator.names import Role
from eyas_operator.world import Manifest

OPERATOR_LABELS: Final = {"app.kubernetes.io/name": "eyas", "app.kubernetes.io/component": "operator"}
_DNS: Final[Manifest] = {
    "ports": [{"port": port, "protocol": protocol} for port in (53, 5353) for protocol in ("UDP", "TCP")]
}
"""Policies see the port of the pod that answers; OpenShift's listens on 5353."""
_STORE: Final = (Role.STORE_MASTER, Role.STORE_NODE)
_FLOWS: Final[tuple[tuple[Role, Role, tuple[int, ...]], ...]] = (
    (Role.PRODUCER, Role.METADATA, (env.METADATA_PORT,)),
    (Role.CONSUMER, Role.METADATA, (env.METADATA_PORT,)),
    *((store, Role.METADATA, (env.METADATA_PORT,)) for store in _STORE),
    (Role.CONSUMER, Role.CONSUMER, ()),
    *((client, store, ()) for client in (Role.METADATA, Role.PRODUCER, Role.CONSUMER) for store in _STORE),
    (Role.STORE_NODE, Role.STORE_MASTER, ()),
    (Role.STORE_MASTER, Role.STORE_NODE, ()),
    (Role.STORE_NODE, Role.STORE_NODE, ()),
)
"""(from, to, TCP ports). No ports: all, because transfers and collectives choose theirs."""


def secrets(build: Build) -> tuple[SecretShape, ...]:
    """The job's own tokens (random, once) and the read tokens (derived from the operator's keys, applied)."""
    return (
        SecretShape(
            manifest=_secret(build, names.tokens_secret(build.job)),
            minted=(env.TOKEN_PRODUCER, env.TOKEN_CONSUMER, env.TOKEN_STORE, env.RECEIPT_KEY),
        ),
        SecretShape(manifest=_secret(build, names.reader_secret(build.job)), derived=(env.TOKEN_READER,)),
    )


def _secret(build: Build, name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata(build.job, name)}


def network_policies(build: Build) -> tuple[Manifest, ...]:
    """One policy per role: nothing enters or leaves but what `_FLOWS` names, DNS, and the operator's status calls."""
    present = roles_of(build.spec)
    if shares_a_pool(build.spec):
        present = (*present, Role.SWEEPER)
    return tuple(_policy(build, role, present) for role in present)


def _policy(build: Build, role: Role, present: tuple[Role, ...]) -> Manifest:
    ingress = [
        {"from": [_peer(build, source)]} | _ports(ports)
        for source, target, ports in _FLOWS
        if target is role and source in present
    ]
    egress = [
        {"to": [_peer(build, target)]} | _ports(ports)
        for source, target, ports in _FLOWS
        if source is role and target in present
    ]
    if role is Role.METADATA:
        operator = {"namespaceSelector": {}, "podSelector": {"matchLabels": OPERATOR_LABELS}}
        ingress.append({"from": [operator]} | _ports((env.METADATA_PORT,)))
    mooncake = build.spec.store.mooncake
    if mooncake is not None and mooncake.external is not None:
        # The pool is elsewhere and chooses its transfer ports: only its own policies can be narrower.
        egress.append({"to": [{"namespaceSelector": {}}]})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(build.job, names.policy(build.job, role.value), role.value),
        "spec": {
            "podSelector": {"matchLabels": _selector(build, role)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": [*egress, _DNS],
        },
    }


def _selector(build: Build, role: Role) -> dict[str, str]:
    return {names.LABEL_JOB_UID: build.job.uid, names.LABEL_ROLE: role.value}


def _peer(build: Build, role: Role) -> Manifest:
    return {"podSelector": {"matchLabels": _selector(build, role)}}


def _ports(ports: tuple[int, ...]) -> Manifest:
    return {"ports": [{"port": port, "protocol": "TCP"} for port in ports]} if ports else {}


def disruption_budgets(build: Build) -> tuple[Manifest, ...]:
    """Budgets with an integer `minAvailable` of replicas - 1.

    A percentage would be computed from the job's scale subresource, which counts producers, for every role. Roles of
    one replica get none: it could only forbid draining a node. A pod that is not ready may always be evicted: it does
    nothing yet that a budget could protect, and a gang that never gets ready must not hold a node for ever.
    """
    nodes = own_store_nodes(build.spec)
    counts = (
        (Role.PRODUCER, producer_count(build.spec)),
        (Role.CONSUMER, build.status.gang.replicas),
        (Role.STORE_NODE, nodes.replicas if nodes is not None else 0),
    )
    return tuple(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": metadata(build.job, names.policy(build.job, role.value), role.value),
            "spec": {
                "minAvailable": count - 1,
                # Whoever sets it takes the other one away, and the two exclude each other.
                "maxUnavailable": None,
                "unhealthyPodEvictionPolicy": "AlwaysAllow",
                "selector": {"matchLabels": _selector(build, role)},
            },
        }
        for role, count in counts
        if count > 1
    )


def peers_service(build: Build) -> Manifest:
    """Headless service: every pod has a name before it is ready, as a gang needs."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(build.job, names.peers_service(build.job)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.LABEL_JOB_UID: build.job.uid},
            "ports": [{"name": "rendezvous", "port": env.RENDEZVOUS_PORT, "protocol": "TCP"}],
        },
    }
