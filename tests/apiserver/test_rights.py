"""The chart's rights are enough for the operator, and each of them is used or has a reason: asked of a real API server.

The operator runs as a user who has been given exactly what `eyas_operator.rights` lists, so that a right too few fails
by itself; what it asked for is recorded, so that a right too many fails as well.
"""

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from eyas_operator import names
from eyas_operator.cluster import Event
from eyas_operator.rights import APPLIED, JOB_RIGHTS, Right
from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_operator import Clock, Kubelet, ToldReports, operator, status_of, submit
from support.operator_world import a_report

pytestmark = pytest.mark.apiserver
Used = set[tuple[str, str, str]]
_PATH = re.compile(r"^/(?:api/v1|apis/([^/]+)/[^/]+)/namespaces/[^/]+/([^/?]+)(?:/[^/?]+(?:/([^/?]+))?)?$")
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
UNUSED_HERE = {
    # The watches are the shell's, and are tested with the operator process.
    *((right.group, right.resource, "watch") for right in JOB_RIGHTS if "watch" in right.verbs),
    # Relists are the shell's, too.
    (names.GROUP, names.PLURAL, "list"),
    # Server-side apply is a PATCH that needs it where the object is not there yet: the last test shows it.
    *((right.group, right.resource, "create") for right in APPLIED),
    # Only API servers with OwnerReferencesPermissionEnforcement ask for it.
    (names.GROUP, f"{names.PLURAL}/finalizers", "update"),
}


def listed(rights: Iterable[Right]) -> Used:
    return {(right.group, right.resource, verb) for right in rights for verb in right.verbs}


def as_right(method: str, path: str) -> tuple[str, str, str]:
    found = _PATH.match(path.split("?")[0])
    assert found, path
    group, resource, part = found[1] or "", found[2], found[3]
    single = path.split("?")[0].rstrip("/").rpartition("/")[2] != resource
    verb = _VERBS.get(method, "get" if single else "list")
    return group, f"{resource}/{part}" if part else resource, verb


def grant(server: KubeApiServer, namespace: str, rights: Iterable[Right]) -> None:
    """Give the user `operator` these rights in `namespace`."""
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [it.group], "resources": [it.resource], "verbs": list(it.verbs)} for it in rights]
    server.must("POST", f"{roles}/roles", {"metadata": {"name": "operator"}, "rules": rules})
    binding = {
        "metadata": {"name": "operator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "operator"},
        "subjects": [{"kind": "User", "name": "operator"}],
    }
    server.must("POST", f"{roles}/rolebindings", binding)


async def a_life(server: KubeApiServer, namespace: str, folder: Path, used: Used) -> None:
    """Start, lose a pod, find what a predecessor made and left, fail, clean up, be deleted."""
    clock, kubelet, reports = Clock(), Kubelet(server, namespace), ToldReports()
    job = submit(server, namespace, store={"backend": "SharedDirectory"})

    def note(method: str, path: str) -> None:
        used.add(as_right(method, path))

    async with operator(server, folder, clock, reports=reports, user="operator", before=note) as running:
        await running.rest(job, kubelet, clock)
        reports.report = a_report(job_uid=job.job_uid, store_epoch=1, attempt=1)
        kubelet.kill("producer-0-o1")
        await running.rest(job, kubelet, clock)
        assert status_of(server, job)["incidents"]
        for kind, plural in (
            ("Pod", "pods"),
            ("PersistentVolumeClaim", "persistentvolumeclaims"),
            ("ConfigMap", "configmaps"),
        ):
            found = server.must("GET", f"/api/v1/namespaces/{namespace}/{plural}")["items"]
            made = next(it for it in found if "ownerReferences" in it["metadata"])
            await running.cluster.create({**made, "apiVersion": "v1", "kind": kind, "metadata": _bare(made)})
        for config in server.must("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]:
            path = f"/api/v1/namespaces/{namespace}/configmaps/{config['metadata']['name']}"
            server.must("PATCH", path, {"metadata": {"labels": {"app.kubernetes.io/name": "mine"}}}, content=MERGE)
        for path in LEFT:
            _leave(server, path.format(namespace))
        again = (Event(type="Normal", reason="Drill", message="the same again", action="Reconcile"),)
        for _ in range(2):
            await running.cluster.post_events(job, again)
        await running.rest(job, kubelet, clock)
        kubelet.end("producer-1-o1", 78, message='{"exit_code": 78, "klass": "config", "message": "no such model"}')
        await running.rest(job, kubelet, clock)
        assert status_of(server, job)["state"] == "Failed"
        for present in (True, False):
            record = await running.cluster.read_job(namespace, job.name)
            assert record is not None
            await running.cluster.set_finalizer(record, present=present)
        await running.cluster.delete_job(job)


LEFT = (
    "/api/v1/namespaces/{}/services",
    "/api/v1/namespaces/{}/configmaps",
    "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies",
    "/apis/policy/v1/namespaces/{}/poddisruptionbudgets",
)


def _leave(server: KubeApiServer, path: str) -> None:
    """A copy of an object of the job under another name, as an older version might have made it."""
    copied = server.must("GET", path)["items"][0]
    copied["metadata"] = _bare(copied) | {"name": f"{copied['metadata']['name']}-old"}
    for field in ("clusterIP", "clusterIPs"):
        if copied.get("spec", {}).get(field) != "None" and path.endswith("services"):
            copied["spec"].pop(field, None)
    server.must("POST", path, copied)


def _bare(found: dict[str, dict[str, object]]) -> dict[str, object]:
    return {key: found["metadata"][key] for key in ("name", "namespace", "labels", "ownerReferences")}


def test_the_operator_lives_on_exactly_what_it_is_given(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace("rights")
    grant(jobs, namespace, JOB_RIGHTS)
    used: Used = set()
    asyncio.run(a_life(jobs, namespace, tmp_path, used))
    assert used <= listed(JOB_RIGHTS)
    assert listed(JOB_RIGHTS) - used - UNUSED_HERE == set(), "rights that nothing uses"


@pytest.mark.parametrize(
    ("resource", "verb"),
    [("pods", "delete"), ("secrets", "patch"), ("services", "create"), ("networkpolicies", "create")],
)
def test_a_right_too_few_is_noticed(jobs: KubeApiServer, tmp_path: Path, resource: str, verb: str) -> None:
    namespace = jobs.namespace("less")
    fewer = [
        replace(right, verbs=tuple(it for it in right.verbs if it != verb)) if right.resource == resource else right
        for right in JOB_RIGHTS
    ]
    grant(jobs, namespace, fewer)
    with pytest.raises(AssertionError):
        asyncio.run(a_life(jobs, namespace, tmp_path, set()))
