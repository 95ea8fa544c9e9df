"""What the port `Cluster` promises, for every adapter: the model of the tests, the local machine, and Kubernetes."""

import asyncio
import base64
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from eyas_contract.errors import Conflict
from eyas_operator import names
from eyas_operator.api.crd import crd
from eyas_operator.api.status import JobStatus, dump_status
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.cluster import LocalCluster, LocalJob
from eyas_operator.backends.local.folder import Workdir
from eyas_operator.backends.local.kubelet import Kubelet as LocalKubelet
from eyas_operator.backends.local.mounts import Sources
from eyas_operator.backends.local.objects import Objects
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.cluster import Cluster, ObjectRef, SecretShape
from eyas_operator.desired.build import metadata, with_digest
from eyas_operator.names import JobIdentity, PodIdentity, Role
from eyas_operator.world import Children, JobRecord, Metadata, Pod, time_of
from support.kube_apiserver import KubeApiServer
from support.kube_operator import Clock, Kubelet, operator, submit
from support.model_cluster import ModelCluster
from support.operator_world import JOB, NOW, a_body


class Tried(Protocol):
    """One adapter under test, with a job that it knows."""

    cluster: Cluster
    job: JobIdentity

    def secret_values(self) -> list[bytes]:
        """Every minted token that it holds."""
        ...

    def settle(self) -> None:
        """Let whoever removes deleted objects do so."""
        ...


Opener = Callable[[Path], AbstractAsyncContextManager[Tried]]


class _Model(ModelCluster):
    """The model without the operator's own promises: here single calls are looked at."""

    def _check_pod(self, manifest: dict[str, Any]) -> None:
        return

    @staticmethod
    def _check_status(old: JobStatus, new: JobStatus) -> None:
        return


@dataclass
class Near:
    """An adapter in this process: what is deleted is gone at once."""

    cluster: Cluster
    secrets: Callable[[], list[bytes]]
    job: JobIdentity = JOB

    def secret_values(self) -> list[bytes]:
        return self.secrets()

    def settle(self) -> None:
        return


@dataclass
class Far:
    """The adapter on an API server; the garbage controllers are played."""

    cluster: Cluster
    server: KubeApiServer
    job: JobIdentity

    def secret_values(self) -> list[bytes]:
        found = self.server.must("GET", f"/api/v1/namespaces/{self.job.namespace}/secrets")["items"]
        return [base64.b64decode(value) for secret in found for _, value in sorted(secret["data"].items())]

    def settle(self) -> None:
        Kubelet(self.server, self.job.namespace).work()


@asynccontextmanager
async def model(folder: Path) -> AsyncIterator[Tried]:
    cluster = _Model()
    yield Near(cluster, lambda: [name.encode() for name in cluster.secrets])


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Tried]:
    folders = Workdir(folder / "run")
    folders.make()
    objects, claims = Objects(folders.objects), Claims(folders.claims, JOB.stem)
    secrets = Secrets(folders.secrets, JOB.job_uid)
    kubelet = LocalKubelet(
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
        yield Near(cluster, lambda: [path.read_bytes() for path in sorted(folder.rglob("*.token"))])
    finally:
        await kubelet.kill_all()
        kubelet.close()
        cluster.close()


def kubernetes(server: KubeApiServer) -> Opener:
    """The adapter on `server`, in a namespace of its own."""

    @asynccontextmanager
    async def opened(folder: Path) -> AsyncIterator[Tried]:
        namespace = server.namespace("conformance", enforce="privileged")
        job = submit(server, namespace, JOB.name)
        keys = folder / "keys"
        keys.mkdir()
        async with operator(server, keys, Clock()) as process:
            yield Far(process.cluster, server, job)

    return opened


@pytest.fixture(params=["model", "local", pytest.param("kubernetes", marks=pytest.mark.apiserver)])
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param == "kubernetes":
        server: KubeApiServer = request.getfixturevalue("kube")
        server.install_crd(crd())
        return kubernetes(server)
    return model if request.param == "model" else local


def check(opener: Opener, folder: Path, claim: Callable[[Tried], Any]) -> None:
    """Run one claim, an asynchronous function of what is tried."""

    async def inside() -> None:
        async with opener(folder) as tried:
            await claim(tried)

    asyncio.run(inside())


def a_pod(job: JobIdentity, index: int = 0, serial: int = 1) -> dict[str, Any]:
    """A pod that does nothing for long."""
    identity = PodIdentity(role=Role.PRODUCER, index=index, serial=serial)
    meta = metadata(job, identity.pod_name(job))
    meta["labels"] = names.pod_labels(job, identity)
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


def a_claim(job: JobIdentity, name: str = "demo-claim") -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata(job, name), "spec": spec}


def a_service(job: JobIdentity, port: int) -> dict[str, Any]:
    spec = {"selector": {}, "ports": [{"name": "x", "port": port}]}
    return with_digest({"apiVersion": "v1", "kind": "Service", "metadata": metadata(job, "demo-s"), "spec": spec})


async def children(tried: Tried) -> Children:
    return await tried.cluster.list_children(tried.job)


def metas(found: Children) -> list[Metadata]:
    return [
        *(pod.metadata for pod in found.pods),
        *(entry.metadata for entry in found.claims),
        *(entry.metadata for entry in found.others),
    ]


async def record(tried: Tried) -> JobRecord:
    found = await tried.cluster.read_job(tried.job.namespace, tried.job.name)
    assert found is not None
    return found


def test_unknown_job_is_none(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        assert await cluster.read_job(job.namespace, "another") is None
        assert (await record(tried)).identity == job

    check(opener, tmp_path, claim)


def test_what_was_created_is_listed_at_once(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.create(a_pod(job))
        await cluster.create(a_claim(job))
        await cluster.apply(a_service(job, 1))
        found = await children(tried)
        assert [pod.metadata.name for pod in found.pods] == [a_pod(job)["metadata"]["name"]]
        assert [entry.metadata.name for entry in found.claims] == ["demo-claim"]
        assert [(entry.kind, entry.metadata.name) for entry in found.others] == [("Service", "demo-s")]
        assert all(meta.uid for meta in metas(found))
        assert all(meta.owner_references[0].uid == job.uid for meta in metas(found))
        assert found.pods[0].metadata.labels == a_pod(job)["metadata"]["labels"]

    check(opener, tmp_path, claim)


def test_creating_again_is_success_and_makes_nothing_new(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.create(a_pod(job))
        await cluster.create(a_claim(job))
        before = await children(tried)
        await cluster.create(a_pod(job))
        await cluster.create(a_claim(job))
        after = await children(tried)
        assert [pod.metadata.uid for pod in after.pods] == [pod.metadata.uid for pod in before.pods]
        assert [entry.metadata.uid for entry in after.claims] == [entry.metadata.uid for entry in before.claims]

    check(opener, tmp_path, claim)


def test_delete_with_another_uid_leaves_the_object_alone(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.create(a_pod(job))
        await cluster.create(a_claim(job))
        for kind, name in (("Pod", a_pod(job)["metadata"]["name"]), ("PersistentVolumeClaim", "demo-claim")):
            await cluster.delete(job, ObjectRef(kind=kind, name=name, uid="another"), grace_seconds=0)
        found = await children(tried)
        assert not found.pods[0].metadata.deletion_timestamp
        assert len(found.claims) == 1

    check(opener, tmp_path, claim)


def test_deleted_objects_go_or_say_that_they_are_going(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.create(a_pod(job))
        await cluster.create(a_claim(job))
        await cluster.apply(a_service(job, 1))
        before = await children(tried)
        pod, volume, service = before.pods[0], before.claims[0], before.others[0]
        for kind, meta in (
            ("Pod", pod.metadata),
            ("PersistentVolumeClaim", volume.metadata),
            ("Service", service.metadata),
        ):
            await cluster.delete(job, ObjectRef(kind=kind, name=meta.name, uid=meta.uid), grace_seconds=1)
            await cluster.delete(job, ObjectRef(kind=kind, name=meta.name, uid=meta.uid), grace_seconds=1)
        after = await children(tried)
        assert all(meta.deletion_timestamp for meta in metas(after))

    check(opener, tmp_path, claim)


def test_claim_made_again_after_its_deletion_is_another_claim(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.create(a_claim(job))
        first = (await children(tried)).claims[0].metadata
        await cluster.delete(
            job, ObjectRef(kind="PersistentVolumeClaim", name=first.name, uid=first.uid), grace_seconds=0
        )
        tried.settle()
        await cluster.create(a_claim(job))
        assert (await children(tried)).claims[0].metadata.uid != first.uid

    check(opener, tmp_path, claim)


def test_applying_shows_the_newest_digest_and_keeps_the_uid(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        uids, digests = set(), []
        for port in (1, 1, 2):
            await cluster.apply(a_service(job, port))
            (service,) = (await children(tried)).others
            uids.add(service.metadata.uid)
            digests.append(service.metadata.annotations[names.ANNOTATION_DIGEST])
        assert len(uids) == 1
        assert digests[0] == digests[1] != digests[2]

    check(opener, tmp_path, claim)


def test_status_is_read_back_as_it_was_written(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster = tried.cluster
        status = dump_status(JobStatus(attempt=3, store_epoch=2))
        written = await cluster.write_status(await record(tried), status)
        assert written.status == status
        assert (await record(tried)).status == status
        await cluster.write_status(written, dump_status(JobStatus(attempt=4)))
        assert (await record(tried)).status["attempt"] == 4

    check(opener, tmp_path, claim)


def test_status_write_with_an_old_version_is_a_conflict_and_writes_nothing(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster = tried.cluster
        old = await record(tried)
        await cluster.write_status(old, dump_status(JobStatus(attempt=1)))
        with pytest.raises(Conflict):
            await cluster.write_status(old, dump_status(JobStatus(attempt=9)))
        assert (await record(tried)).status["attempt"] == 1

    check(opener, tmp_path, claim)


def test_secrets_are_minted_once(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata(job, "demo-tokens")}
        shape = SecretShape(manifest=manifest, minted=("producer.token", "consumer.token"))
        await cluster.ensure_secret(shape)
        first = tried.secret_values()
        await cluster.ensure_secret(shape)
        assert tried.secret_values() == first
        assert len(set(first)) == len(first)

    check(opener, tmp_path, claim)


def test_service_that_is_away_gives_no_report(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        pod = Pod(metadata=Metadata(name="demo-metadata", uid="gone"))
        assert await tried.cluster.read_report(tried.job, pod) is None

    check(opener, tmp_path, claim)


def test_deleted_job_is_not_found_again(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster, job = tried.cluster, tried.job
        await cluster.delete_job(job)
        assert await cluster.read_job(job.namespace, job.name) is None

    check(opener, tmp_path, claim)


def test_finalizer_comes_and_goes_once_and_only_on_the_job_that_was_read(opener: Opener, tmp_path: Path) -> None:
    async def claim(tried: Tried) -> None:
        cluster = tried.cluster
        before = await record(tried)
        assert before.finalizers == ()
        await cluster.set_finalizer(before, present=True)
        held = await record(tried)
        assert held.finalizers == (names.FINALIZER,)
        await cluster.set_finalizer(held, present=True)
        written = await cluster.write_status(await record(tried), dump_status(JobStatus(attempt=1)))
        assert written.finalizers == (names.FINALIZER,)
        with pytest.raises(Conflict):
            await cluster.set_finalizer(held, present=False)
        await cluster.set_finalizer(written, present=False)
        assert (await record(tried)).finalizers == ()

    check(opener, tmp_path, claim)
