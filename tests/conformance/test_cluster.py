"""What the port `Cluster` promises, for every adapter: the model of the tests and the local machine."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eyas_contract.errors import Conflict
from eyas_operator import names
from eyas_operator.api.status import JobStatus, dump_status
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.cluster import LocalCluster, LocalJob
from eyas_operator.backends.local.folder import Workdir
from eyas_operator.backends.local.kubelet import Kubelet
from eyas_operator.backends.local.mounts import Sources
from eyas_operator.backends.local.objects import Objects
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.cluster import Cluster, ObjectRef, SecretShape
from eyas_operator.desired.build import metadata, with_digest
from eyas_operator.names import PodIdentity, Role
from eyas_operator.world import Children, JobRecord, Metadata, time_of
from support.model_cluster import ModelCluster
from support.operator_world import JOB, NOW, a_body

Opener = Callable[[Path], AbstractAsyncContextManager[Cluster]]


class _Model(ModelCluster):
    """The model without the operator's own promises: here single calls are looked at."""

    def _check_pod(self, manifest: dict[str, Any]) -> None:
        return

    @staticmethod
    def _check_status(old: JobStatus, new: JobStatus) -> None:
        return


@asynccontextmanager
async def model(folder: Path) -> AsyncIterator[Cluster]:
    del folder
    yield _Model()


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Cluster]:
    folders = Workdir(folder / "run")
    folders.make()
    objects, claims = Objects(folders.objects), Claims(folders.claims, JOB.stem)
    secrets = Secrets(folders.secrets, JOB.job_uid)
    kubelet = Kubelet(
        folders,
        Sources(objects=objects, claims=claims, secrets=secrets, mapped=lambda _name: None),
        JOB.uid,
        lambda pod: address_of(JOB.job_uid, pod.role, pod.index),
        lambda: None,
        lambda: time_of(NOW),
    )
    job = LocalJob(identity=JOB, generation=1, body=a_body())
    cluster = LocalCluster(job, folders, kubelet, objects, claims, secrets, lambda _events: None)
    try:
        yield cluster
    finally:
        await kubelet.kill_all()
        kubelet.close()
        cluster.close()


@pytest.fixture(params=[model, local], ids=["model", "local"])
def opener(request: pytest.FixtureRequest) -> Opener:
    chosen: Opener = request.param
    return chosen


def check(opener: Opener, folder: Path, claim: Callable[[Cluster], Any]) -> None:
    """Run one claim, an asynchronous function of the cluster."""

    async def inside() -> None:
        async with opener(folder) as cluster:
            await claim(cluster)

    asyncio.run(inside())


def a_pod(index: int = 0, serial: int = 1) -> dict[str, Any]:
    """A pod that does nothing for long."""
    identity = PodIdentity(role=Role.PRODUCER, index=index, serial=serial)
    meta = metadata(JOB, identity.pod_name(JOB))
    meta["labels"] = names.pod_labels(JOB, identity)
    container = {
        "name": "main",
        "image": "none",
        "command": [sys.executable, "-c", "import signal; signal.pause()"],
        "env": [],
        "volumeMounts": [],
        "terminationMessagePath": "/dev/termination-log",
    }
    spec = {"hostname": identity.hostname, "containers": [container], "volumes": [], "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def a_claim(name: str = "demo-claim") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(JOB, name), "spec": spec}


def a_service(port: int) -> dict[str, Any]:
    spec = {"selector": {}, "ports": [{"name": "x", "port": port}]}
    return with_digest({"apiVersion": "v1", "kind": "Service", "metadata": metadata(JOB, "demo-s"), "spec": spec})


async def children(cluster: Cluster) -> Children:
    return await cluster.list_children(JOB)


def metas(found: Children) -> list[Metadata]:
    return [
        *(pod.metadata for pod in found.pods),
        *(entry.metadata for entry in found.claims),
        *(entry.metadata for entry in found.others),
    ]


async def record(cluster: Cluster) -> JobRecord:
    found = await cluster.read_job(JOB.namespace, JOB.name)
    assert found is not None
    return found


def test_unknown_job_is_none(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        assert await cluster.read_job(JOB.namespace, "another") is None
        assert (await record(cluster)).identity == JOB

    check(opener, tmp_path, claim)


def test_what_was_created_is_listed_at_once(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.create(a_pod())
        await cluster.create(a_claim())
        await cluster.apply(a_service(1))
        found = await children(cluster)
        assert [pod.metadata.name for pod in found.pods] == [a_pod()["metadata"]["name"]]
        assert [entry.metadata.name for entry in found.claims] == ["demo-claim"]
        assert [(entry.kind, entry.metadata.name) for entry in found.others] == [("Service", "demo-s")]
        assert all(meta.uid for meta in metas(found))
        assert all(meta.owner_references[0].uid == JOB.uid for meta in metas(found))
        assert found.pods[0].metadata.labels == a_pod()["metadata"]["labels"]

    check(opener, tmp_path, claim)


def test_creating_again_is_success_and_makes_nothing_new(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.create(a_pod())
        await cluster.create(a_claim())
        before = await children(cluster)
        await cluster.create(a_pod())
        await cluster.create(a_claim())
        after = await children(cluster)
        assert [pod.metadata.uid for pod in after.pods] == [pod.metadata.uid for pod in before.pods]
        assert [entry.metadata.uid for entry in after.claims] == [entry.metadata.uid for entry in before.claims]

    check(opener, tmp_path, claim)


def test_delete_with_another_uid_leaves_the_object_alone(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.create(a_pod())
        await cluster.create(a_claim())
        for kind, name in (("Pod", a_pod()["metadata"]["name"]), ("PersistentVolumeClaim", "demo-claim")):
            await cluster.delete(JOB, ObjectRef(kind=kind, name=name, uid="another"), grace_seconds=0)
        found = await children(cluster)
        assert not found.pods[0].metadata.deletion_timestamp
        assert len(found.claims) == 1

    check(opener, tmp_path, claim)


def test_deleted_objects_go_or_say_that_they_are_going(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.create(a_pod())
        await cluster.create(a_claim())
        await cluster.apply(a_service(1))
        before = await children(cluster)
        pod, volume, service = before.pods[0], before.claims[0], before.others[0]
        for kind, meta in (
            ("Pod", pod.metadata),
            ("PersistentVolumeClaim", volume.metadata),
            ("Service", service.metadata),
        ):
            await cluster.delete(JOB, ObjectRef(kind=kind, name=meta.name, uid=meta.uid), grace_seconds=1)
            await cluster.delete(JOB, ObjectRef(kind=kind, name=meta.name, uid=meta.uid), grace_seconds=1)
        after = await children(cluster)
        assert all(meta.deletion_timestamp for meta in metas(after))

    check(opener, tmp_path, claim)


def test_claim_made_again_after_its_deletion_is_another_claim(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.create(a_claim())
        first = (await children(cluster)).claims[0].metadata
        await cluster.delete(
            JOB, ObjectRef(kind="PersistentVolumeClaim", name=first.name, uid=first.uid), grace_seconds=0
        )
        await cluster.create(a_claim())
        assert (await children(cluster)).claims[0].metadata.uid != first.uid

    check(opener, tmp_path, claim)


def test_applying_shows_the_newest_digest_and_keeps_the_uid(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        uids, digests = set(), []
        for port in (1, 1, 2):
            await cluster.apply(a_service(port))
            (service,) = (await children(cluster)).others
            uids.add(service.metadata.uid)
            digests.append(service.metadata.annotations[names.ANNOTATION_DIGEST])
        assert len(uids) == 1
        assert digests[0] == digests[1] != digests[2]

    check(opener, tmp_path, claim)


def test_status_is_read_back_as_it_was_written(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        status = dump_status(JobStatus(attempt=3, store_epoch=2))
        written = await cluster.write_status(await record(cluster), status)
        assert written.status == status
        assert (await record(cluster)).status == status
        await cluster.write_status(written, dump_status(JobStatus(attempt=4)))
        assert (await record(cluster)).status["attempt"] == 4

    check(opener, tmp_path, claim)


def test_status_write_with_an_old_version_is_a_conflict_and_writes_nothing(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        old = await record(cluster)
        await cluster.write_status(old, dump_status(JobStatus(attempt=1)))
        with pytest.raises(Conflict):
            await cluster.write_status(old, dump_status(JobStatus(attempt=9)))
        assert (await record(cluster)).status["attempt"] == 1

    check(opener, tmp_path, claim)


def test_secrets_are_minted_once(opener: Opener, tmp_path: Path) -> None:
    def values() -> list[bytes]:
        return [path.read_bytes() for path in sorted(tmp_path.rglob("*.token"))]

    async def claim(cluster: Cluster) -> None:
        manifest = {"kind": "Secret", "metadata": metadata(JOB, "demo-tokens")}
        shape = SecretShape(manifest=manifest, minted=("producer.token", "consumer.token"))
        await cluster.ensure_secret(shape)
        first = values()
        await cluster.ensure_secret(shape)
        assert values() == first
        assert len(set(first)) == len(first)

    check(opener, tmp_path, claim)


def test_service_that_is_away_gives_no_report(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        assert await cluster.read_report(JOB) is None

    check(opener, tmp_path, claim)


def test_deleted_job_is_not_found_again(opener: Opener, tmp_path: Path) -> None:
    async def claim(cluster: Cluster) -> None:
        await cluster.delete_job(JOB)
        assert await cluster.read_job(JOB.namespace, JOB.name) is None

    check(opener, tmp_path, claim)
