"""The watch cache: events and lists cross each other in any order, and it never shows more than one of them knew."""

import itertools
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from eyas_operator import names
from eyas_operator.backends.kubernetes.cache import ChildrenCache, JobsCache
from eyas_operator.backends.kubernetes.listing import Kind, Listing, job_record
from eyas_operator.names import JobIdentity
from eyas_operator.world import Child, Claim, Pod
from support.operator_world import JOB, OTHER_UID, a_body

OTHERS = ("Service", "ConfigMap", "NetworkPolicy", "PodDisruptionBudget")


def a_pod(name: str, version: int, *, uid: str = "", job: str = JOB.uid, namespace: str = "default") -> dict[str, Any]:
    meta = {"name": name, "uid": uid or f"uid-{name}", "namespace": namespace, "resourceVersion": str(version)}
    labels = {"labels": {names.LABEL_JOB_UID: job}} if job else {}
    return {"kind": "Pod", "metadata": meta | labels}


def a_listing(version: int, *pods: dict[str, Any]) -> Listing:
    found = tuple(msgspec.convert(pod, Pod) for pod in pods)
    none: Kind[Child] = Kind((), str(version))
    claims: Kind[Claim] = Kind((), str(version))
    return Listing(pods=Kind(found, str(version)), claims=claims, others=dict.fromkeys(OTHERS, none))


def shown(cache: ChildrenCache) -> dict[str, str]:
    """Name and version of every pod of the job."""
    children = cache.children(JOB)
    assert children is not None
    return {pod.metadata.name: pod.metadata.resource_version for pod in children.pods}


def listed(*pods: dict[str, Any], version: int = 10) -> ChildrenCache:
    cache = ChildrenCache()
    cache.replace("default", a_listing(version, *pods))
    return cache


def test_nothing_is_known_before_the_first_list() -> None:
    cache = ChildrenCache()
    cache.observe("ADDED", a_pod("a", 5))
    assert cache.children(JOB) is None
    cache.replace("elsewhere", a_listing(10))
    assert cache.children(JOB) is None
    cache.replace("default", a_listing(4))
    assert shown(cache) == {"a": "5"}
    cache.forget("default")
    assert cache.children(JOB) is None


def test_list_of_all_namespaces_makes_every_job_known() -> None:
    cache = ChildrenCache()
    cache.replace("*", a_listing(10, a_pod("a", 5)))
    assert shown(cache) == {"a": "5"}


def test_events_change_what_is_shown() -> None:
    cache = listed(a_pod("a", 5))
    cache.observe("ADDED", a_pod("b", 11))
    cache.observe("MODIFIED", a_pod("a", 12))
    assert shown(cache) == {"a": "12", "b": "11"}
    cache.observe("DELETED", a_pod("a", 13))
    assert shown(cache) == {"b": "11"}


def test_older_sighting_than_the_known_one_changes_nothing() -> None:
    cache = listed(a_pod("a", 9))
    cache.observe("MODIFIED", a_pod("a", 8))
    assert shown(cache) == {"a": "9"}
    cache.observe("MODIFIED", a_pod("a", 100))
    cache.replace("default", a_listing(99, a_pod("a", 9)))
    assert shown(cache) == {"a": "100"}


def test_list_removes_what_it_lacks_but_not_what_is_newer() -> None:
    cache = listed(a_pod("a", 5), a_pod("b", 6))
    cache.observe("ADDED", a_pod("c", 30))
    cache.replace("default", a_listing(20, a_pod("b", 6)))
    assert shown(cache) == {"b": "6", "c": "30"}


def test_deleted_object_never_comes_back_by_an_older_list() -> None:
    cache = listed(a_pod("a", 5))
    cache.observe("DELETED", a_pod("a", 11))
    cache.replace("default", a_listing(9, a_pod("a", 5)))
    assert shown(cache) == {}
    # Nor after another list has confirmed it.
    cache.replace_job(JOB, a_listing(20))
    cache.replace("default", a_listing(9, a_pod("a", 5)))
    assert shown(cache) == {}


def test_object_that_a_list_lacked_never_comes_back_by_an_older_one() -> None:
    cache = listed(a_pod("a", 5))
    cache.replace_job(JOB, a_listing(20))
    cache.replace("default", a_listing(9, a_pod("a", 5)))
    assert shown(cache) == {}


def test_successor_of_the_same_name_is_shown_and_survives_the_end_of_its_predecessor() -> None:
    cache = listed(a_pod("a", 5, uid="one"))
    cache.observe("ADDED", a_pod("a", 12, uid="two"))
    cache.observe("DELETED", a_pod("a", 11, uid="one"))
    assert shown(cache) == {"a": "12"}


def test_list_of_one_job_leaves_the_others_alone() -> None:
    cache = listed(a_pod("a", 5), a_pod("other", 5, job=OTHER_UID))
    cache.replace_job(JOB, a_listing(20))
    assert shown(cache) == {}
    children = cache.children(JobIdentity(namespace="default", name="other", uid=OTHER_UID))
    assert children is not None
    assert [pod.metadata.name for pod in children.pods] == ["other"]


def test_object_that_lost_its_label_is_nobodys() -> None:
    cache = listed(a_pod("a", 5))
    cache.observe("MODIFIED", a_pod("a", 11, job=""))
    assert shown(cache) == {}


def test_object_that_has_its_label_again_is_shown_again() -> None:
    """A watch that asks for a label says of what lost it that it was deleted."""
    cache = listed(a_pod("a", 5))
    cache.observe("DELETED", a_pod("a", 11))
    cache.observe("ADDED", a_pod("a", 12))
    assert shown(cache) == {"a": "12"}
    cache.observe("DELETED", a_pod("a", 11))
    assert shown(cache) == {"a": "12"}, "a list may have been faster"
    cache.replace_job(JOB, a_listing(20))
    assert shown(cache) == {}
    cache.replace_job(JOB, a_listing(22, a_pod("a", 21)))
    assert shown(cache) == {"a": "21"}


def test_a_watch_tells_which_fields_are_as_we_applied_them() -> None:
    def others(*entries: dict[str, Any]) -> tuple[Child, ...]:
        cache = listed()
        raw = a_pod("s", 11) | {"kind": "Service"}
        raw["metadata"]["managedFields"] = list(entries)
        cache.observe("ADDED", raw)
        children = cache.children(JOB)
        assert children is not None
        return children.others

    other = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:type": {}}}}
    ours = {
        "manager": "eyas-operator",
        "operation": "Apply",
        "time": "2026-01-01T00:00:00Z",
        "fieldsV1": {"f:spec": {}},
    }
    (child,) = others(other, ours)
    assert (child.fields, child.applied_time) == (b'{"f:spec":{}}', "2026-01-01T00:00:00Z")
    for entries in ((), (other,), (ours | {"operation": "Update"},), (ours | {"subresource": "status"},)):
        (child,) = others(*entries)
        assert child.fields == b"{}", "nothing is as we applied it"


def test_kinds_that_are_no_children_are_ignored() -> None:
    cache = listed()
    cache.observe("ADDED", a_pod("a", 11) | {"kind": "Secret"})
    assert shown(cache) == {}


@given(st.permutations(range(6)), st.integers(0, 5))
def test_in_any_order_of_arrival_the_end_is_the_newest_truth(order: list[int], list_at: int) -> None:
    # The life of two pods; each stream keeps its own order, the list shows one moment and arrives at any time.
    life = [
        ("ADDED", a_pod("a", 11)),
        ("MODIFIED", a_pod("a", 12)),
        ("DELETED", a_pod("a", 13)),
        ("ADDED", a_pod("b", 14)),
        ("MODIFIED", a_pod("b", 15)),
    ]
    moment = 10 + list_at
    alive = {pod["metadata"]["name"]: pod for kind, pod in life[:list_at] if kind != "DELETED"}
    gone = {pod["metadata"]["name"] for kind, pod in life[:list_at] if kind == "DELETED"}
    listing = a_listing(moment, *(pod for name, pod in alive.items() if name not in gone))
    cache = listed(version=10)
    position = order.index(5)
    for kind, pod in life[:position]:
        cache.observe(kind, pod)  # type: ignore[arg-type]
    cache.replace("default", listing)
    for kind, pod in life[position:]:
        cache.observe(kind, pod)  # type: ignore[arg-type]
    assert shown(cache) == {"b": "15"}


def a_record(version: int, *, uid: str = JOB.uid) -> dict[str, Any]:
    body = a_body()
    meta = {"name": JOB.name, "namespace": JOB.namespace, "uid": uid, "resourceVersion": str(version), "generation": 1}
    return body | {"metadata": meta}


def test_newest_record_of_a_job_counts() -> None:
    cache = JobsCache()
    assert cache.job(JOB.namespace, JOB.name) is None
    for version in (5, 7, 6):
        cache.observe("MODIFIED", a_record(version))
    record = cache.job(JOB.namespace, JOB.name)
    assert record is not None
    assert record.resource_version == "7"
    assert cache.keys() == {(JOB.namespace, JOB.name)}


def test_job_made_again_survives_the_end_of_its_predecessor() -> None:
    cache = JobsCache()
    cache.observe("ADDED", a_record(9, uid=OTHER_UID))
    cache.observe("DELETED", a_record(8))
    record = cache.job(JOB.namespace, JOB.name)
    assert record is not None
    assert record.identity.uid == OTHER_UID


def test_list_of_jobs_removes_the_deleted_and_keeps_the_newer() -> None:
    for listed_at, kept in itertools.product((4, 20), (True, False)):
        cache = JobsCache()
        cache.observe("ADDED", a_record(10))
        found = (job_record(a_record(10)),) if kept else ()
        cache.replace("default", Kind(found, str(listed_at)))
        known = cache.job(JOB.namespace, JOB.name) is not None
        assert known == (kept or listed_at < 10)
