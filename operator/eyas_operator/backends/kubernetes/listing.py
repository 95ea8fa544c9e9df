"""Lists, page by page, decoded straight into the world's structs: what is not looked at is skipped, not built."""

import asyncio
from typing import Any, Final, Generic, TypeVar

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Bug, Transient
from eyas_operator import names
from eyas_operator.backends.kubernetes.child import child_of
from eyas_operator.backends.kubernetes.client import JSON, KubeClient
from eyas_operator.backends.kubernetes.errors import Expired
from eyas_operator.backends.kubernetes.resources import CLAIMS, JOBS, OTHERS, PODS, Resource
from eyas_operator.names import JobIdentity
from eyas_operator.world import Child, Children, Claim, JobRecord, Manifest, Pod

PAGE: Final = 500
"""Objects in one answer."""
RESTARTS_MAX: Final = 3
"""How often a list that took longer than its pages were kept is begun again."""
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
"""Asks for metadata alone: a ConfigMap of a job is longer than all that is looked at."""
T = TypeVar("T")


class _ListMeta(msgspec.Struct):
    resource_version: str = msgspec.field(name="resourceVersion", default="")
    continued: str = msgspec.field(name="continue", default="")


class _Page(msgspec.Struct, Generic[T]):
    metadata: _ListMeta
    items: list[T] | None = None
    """None: an empty list of metadata comes as null."""


class _Bare(msgspec.Struct):
    metadata: msgspec.Raw


class Kind(msgspec.Struct, Generic[T], frozen=True):
    """All objects of one kind, as of `resource_version`."""

    items: tuple[T, ...]
    resource_version: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All children in one namespace, or of one job; each kind as of a moment of its own."""

    pods: Kind[Pod]
    claims: Kind[Claim]
    others: dict[str, Kind[Child]]
    """By kind."""


async def list_children(client: KubeClient, namespace: str, *, job: JobIdentity | None = None) -> Listing:
    """Everything that carries a job's UID label (`job`: this one's), from the API server and not from a cache."""
    selector = names.LABEL_JOB_UID if job is None else f"{names.LABEL_JOB_UID}={job.uid}"
    pods, claims, others = await asyncio.gather(
        _list(client, PODS, namespace, selector, Pod),
        _list(client, CLAIMS, namespace, selector, Claim),
        _list_others(client, namespace, selector),
    )
    return Listing(pods=pods, claims=claims, others=others)


async def _list_others(client: KubeClient, namespace: str, selector: str) -> dict[str, Kind[Child]]:
    lists = (_list(client, resource, namespace, selector, _Bare, accept=METADATA_ONLY) for resource in OTHERS)
    found = await asyncio.gather(*lists)
    return {resource.kind: _children(resource, bare) for resource, bare in zip(OTHERS, found, strict=True)}


async def list_jobs(client: KubeClient, namespace: str) -> Kind[JobRecord]:
    """All jobs of a namespace."""
    found = await _list(client, JOBS, namespace, "", dict[str, Any])
    return Kind(tuple(job_record(raw) for raw in found.items), found.resource_version)


def all_children(listing: Listing) -> Children:
    """Every object of a listing, in a fixed order."""
    others = tuple(child for kind in sorted(listing.others) for child in listing.others[kind].items)
    return Children(pods=listing.pods.items, claims=listing.claims.items, others=others)


def _children(resource: Resource, bare: Kind[_Bare]) -> Kind[Child]:
    children = tuple(child_of(resource.kind, entry.metadata) for entry in bare.items)
    return Kind(children, bare.resource_version)


async def _list(
    client: KubeClient, resource: Resource, namespace: str, selector: str, kind: type[T], *, accept: str = JSON
) -> Kind[T]:
    for _ in range(RESTARTS_MAX):
        try:
            return await _pages(client, resource.collection(namespace), selector, kind, accept)
        except Expired:
            continue
    raise Transient(f"the list of {resource.plural} in {namespace} is never finished before its pages expire")


async def _pages(client: KubeClient, path: str, selector: str, kind: type[T], accept: str) -> Kind[T]:
    items: list[T] = []
    query = {"limit": str(PAGE)} | ({"labelSelector": selector} if selector else {})
    while True:
        raw = await client.get(path, query=query, accept=accept)
        page = decode(raw, _Page[kind], path)  # type: ignore[valid-type]
        items += page.items or []
        if not page.metadata.continued:
            return Kind(tuple(items), page.metadata.resource_version)
        query |= {"continue": page.metadata.continued}


def decode(raw: bytes, kind: type[T], what: str) -> T:
    """`raw` as a `kind`. Raises `Bug`: the API server validated what it sends."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNDECODABLE as error:
        raise Bug(f"{what} is no {getattr(kind, '__name__', kind)}: {error}") from error


def job_record(raw: Manifest) -> JobRecord:
    """The record of a job as the API server or a watch gives it."""
    meta = raw["metadata"]
    identity = JobIdentity(namespace=meta["namespace"], name=meta["name"], uid=meta["uid"])
    known = {"name": identity.name, "namespace": identity.namespace, "uid": identity.uid}
    return JobRecord(
        identity=identity,
        generation=int(meta.get("generation", 1)),
        resource_version=meta["resourceVersion"],
        body={"apiVersion": names.API_VERSION, "kind": names.KIND, "metadata": known, "spec": raw.get("spec") or {}},
        status=raw.get("status") or {},
        deleting=bool(meta.get("deletionTimestamp")),
        finalizers=tuple(meta.get("finalizers") or ()),
    )
