"""Whatever the API server answers for a while, and wherever the connection is cut, the job ends in the same state."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eyas_operator.backends.kubernetes import listing
from support.faulty_api import Fault, Plan, faulty_api
from support.kube_apiserver import KubeApiServer
from support.kube_operator import Clock, Kubelet, operator, status_of, submit
from support.kube_stage import STARTED

pytestmark = pytest.mark.apiserver
FAULTS: tuple[Fault, ...] = ("cut before", "cut after", 409, 429, 500, 503)


def every(distance: int, fault: Fault, concerns: Callable[[str, str], bool]) -> Plan:
    """Each `distance`-th request that `concerns` goes wrong, so that no pass is spared."""
    count = itertools.count(1)

    def plan(verb: str, path: str) -> Fault:
        return fault if concerns(verb, path) and next(count) % distance == 0 else None

    return plan


def bring_up(server: KubeApiServer, folder: Path, plan: Plan) -> tuple[list[str], dict[str, Any], int]:
    """A job through a faulty server until it rests, then through a good one; its pods, conditions and faults."""
    namespace = server.namespace("faults")
    job, clock, kubelet = submit(server, namespace), Clock(), Kubelet(server, namespace)

    async def inside() -> int:
        async with faulty_api(server) as proxy, operator(server, folder, clock, url=proxy.url) as process:
            proxy.plan = plan
            for _ in range(12):
                await process.reconciler.reconcile(job.namespace, job.name)
                kubelet.work()
                clock.now += 2
            faults = proxy.faults
            proxy.plan = lambda verb, path: None
            clock.now += 60
            await process.rest(job, kubelet, clock)
            return faults

    faults = asyncio.run(inside())
    conditions = {entry["type"]: entry["status"] for entry in status_of(server, job)["conditions"]}
    return [pod["spec"]["hostname"] for pod in kubelet.pods()], conditions, faults


@pytest.fixture(scope="module")
def undisturbed(jobs: KubeApiServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    hostnames, conditions, faults = bring_up(jobs, tmp_path_factory.mktemp("keys"), lambda verb, path: None)
    assert sorted(hostnames) == STARTED
    assert not faults
    return conditions


def roles(hostnames: list[str]) -> list[str]:
    """Short names without their numbers: a number that may have been used is skipped."""
    return sorted(name.rpartition("-")[0] for name in hostnames)


@pytest.mark.parametrize("distance", [2, 5])
@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_writes_that_fail_end_in_the_same_state(
    jobs: KubeApiServer, tmp_path: Path, undisturbed: dict[str, Any], fault: Fault, distance: int
) -> None:
    plan = every(distance, fault, lambda verb, path: verb != "GET")
    hostnames, conditions, faults = bring_up(jobs, tmp_path, plan)
    assert faults > 2
    assert roles(hostnames) == roles(STARTED)
    assert conditions == undisturbed


@pytest.mark.parametrize("fault", ["cut before", "cut after", 429, 500], ids=str)
def test_reads_that_fail_end_in_the_same_state(
    jobs: KubeApiServer, tmp_path: Path, undisturbed: dict[str, Any], fault: Fault
) -> None:
    plan = every(9, fault, lambda verb, path: verb == "GET")
    hostnames, conditions, faults = bring_up(jobs, tmp_path, plan)
    assert faults > 2
    assert roles(hostnames) == roles(STARTED)
    assert conditions == undisturbed


def test_page_that_expired_begins_the_list_again(
    jobs: KubeApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 2)
    namespace = jobs.namespace("pages")
    job, clock, kubelet = submit(jobs, namespace), Clock(), Kubelet(jobs, namespace)

    async def inside() -> None:
        async with faulty_api(jobs) as proxy, operator(jobs, tmp_path, clock, url=proxy.url) as process:
            await process.rest(job, kubelet, clock)
            once = iter([410])
            proxy.plan = lambda verb, path: next(once, None) if "pods" in path and "continue=" in path else None
            found = await process.cluster.list_children(job)
            assert proxy.faults == 1
            assert len({pod.metadata.uid for pod in found.pods}) == len(found.pods) == len(STARTED)

    asyncio.run(inside())


def test_busy_server_is_left_alone_as_long_as_it_asks(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace("busy")
    job, clock = submit(jobs, namespace), Clock()

    async def inside() -> None:
        async with faulty_api(jobs) as proxy, operator(jobs, tmp_path, clock, url=proxy.url) as process:
            proxy.plan = lambda verb, path: 429
            outcome = await process.reconciler.reconcile(job.namespace, job.name)
            assert outcome.error.startswith("transient: ")
            assert outcome.wake_seconds >= 1.0

    asyncio.run(inside())


def test_unknown_token_is_said_clearly_and_tried_again(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace("token")
    job, clock = submit(jobs, namespace), Clock()
    known, jobs.tokens["nobody"] = jobs.tokens["nobody"], "wrong" * 8
    try:

        async def inside() -> None:
            async with operator(jobs, tmp_path, clock, user="nobody") as process:
                outcome = await process.reconciler.reconcile(job.namespace, job.name)
                assert "does not accept the operator's token" in outcome.error

        asyncio.run(inside())
    finally:
        jobs.tokens["nobody"] = known


def test_missing_right_is_said_with_the_verb_and_the_kind(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace("rights")
    job, clock = submit(jobs, namespace), Clock()

    async def inside() -> None:
        async with operator(jobs, tmp_path, clock, user="nobody") as process:
            outcome = await process.reconciler.reconcile(job.namespace, job.name)
            assert "cannot get resource" in outcome.error
            assert "disaggtrainingjobs" in outcome.error

    asyncio.run(inside())
