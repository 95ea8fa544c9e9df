"""Interleavings and loads that broke an earlier design, where an API server shows them; by their numbers."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from support.kube_apiserver import KubeApiServer
from support.kube_operator import Clock, Kubelet, operator, submit

pytestmark = pytest.mark.apiserver
JOBS = 6


def test_hazard_30_jobs_at_rest_ask_nothing_and_one_round_of_lists_serves_them_all(
    jobs: KubeApiServer, tmp_path: Path
) -> None:
    namespace, clock = jobs.namespace("hazard"), Clock()
    kubelet = Kubelet(jobs, namespace)

    async def inside() -> None:
        async with operator(jobs, tmp_path, clock) as process:
            rounds: list[Counter[str]] = []
            for number in range(JOBS):
                job = submit(jobs, namespace, f"job-{number}")
                await process.rest(job, kubelet, clock)
                before = process.requests.copy()
                await process.cluster.relist(namespace)
                rounds.append(process.requests - before)
            assert rounds[0] == rounds[-1], "the minutely lists grow with the number of jobs"
            assert set(rounds[0]) == {"GET"}
            asked = process.requests.copy()
            for number in range(JOBS):
                for _ in range(5):
                    clock.now += 2
                    await process.reconciler.reconcile(namespace, f"job-{number}")
            assert process.requests == asked, "jobs at rest are asked after one by one"

    asyncio.run(inside())


def test_hazard_43_passes_write_no_secret_again_and_a_rotation_writes_the_derived_one_alone(
    jobs: KubeApiServer, tmp_path: Path
) -> None:
    namespace, clock = jobs.namespace("hazard"), Clock()
    kubelet = Kubelet(jobs, namespace)
    job = submit(jobs, namespace)

    def versions() -> dict[str, str]:
        found = jobs.must("GET", kubelet.path("secrets"))["items"]
        return {it["metadata"]["name"].rpartition("-")[2]: it["metadata"]["resourceVersion"] for it in found}

    async def inside() -> None:
        async with operator(jobs, tmp_path, clock) as process:
            await process.rest(job, kubelet, clock)
            first = versions()
            for serial in (1, 2):
                kubelet.kill(f"producer-0-o{serial}")
                await process.rest(job, kubelet, clock)
            assert versions() == first
            (tmp_path / "previous").write_text((tmp_path / "current").read_text())
            (tmp_path / "current").write_text("n" * 64)
            kubelet.kill("producer-0-o3")
            await process.rest(job, kubelet, clock)
            after = versions()
            assert after["tokens"] == first["tokens"]
            assert after["reader"] != first["reader"]

    asyncio.run(inside())
