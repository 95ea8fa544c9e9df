"""Paths of the kinds that the operator touches. Pure."""

from dataclasses import dataclass
from typing import Final

from eyas_operator import names

ALL_NAMESPACES: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One kind and where the API server has it."""

    kind: str
    group_version: str
    """`v1`, or `group/version`."""
    plural: str

    def collection(self, namespace: str) -> str:
        """Path of all objects in `namespace` (`ALL_NAMESPACES`: in every one)."""
        root = f"/api/{self.group_version}" if "/" not in self.group_version else f"/apis/{self.group_version}"
        where = "" if namespace == ALL_NAMESPACES else f"/namespaces/{namespace}"
        return f"{root}{where}/{self.plural}"

    def item(self, namespace: str, name: str) -> str:
        """Path of one object."""
        return f"{self.collection(namespace)}/{name}"


JOBS: Final = Resource(kind=names.KIND, group_version=names.API_VERSION, plural=names.PLURAL)
PODS: Final = Resource(kind="Pod", group_version="v1", plural="pods")
CLAIMS: Final = Resource(kind="PersistentVolumeClaim", group_version="v1", plural="persistentvolumeclaims")
SECRETS: Final = Resource(kind="Secret", group_version="v1", plural="secrets")
EVENTS: Final = Resource(kind="Event", group_version="events.k8s.io/v1", plural="events")
OTHERS: Final = (
    Resource(kind="Service", group_version="v1", plural="services"),
    Resource(kind="ConfigMap", group_version="v1", plural="configmaps"),
    Resource(kind="NetworkPolicy", group_version="networking.k8s.io/v1", plural="networkpolicies"),
    Resource(kind="PodDisruptionBudget", group_version="policy/v1", plural="poddisruptionbudgets"),
)
"""Children of which only metadata is looked at."""
CHILDREN: Final = (PODS, CLAIMS, *OTHERS)
"""Every kind that a job's children are listed from; Secrets are never read."""
_BY_KIND: Final = {resource.kind: resource for resource in (*CHILDREN, SECRETS, JOBS)}


def resource_of(kind: str) -> Resource:
    """The resource of a manifest's kind. Raises `KeyError` for a kind that the operator never touches."""
    return _BY_KIND[kind]
