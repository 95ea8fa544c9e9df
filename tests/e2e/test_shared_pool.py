"""Jobs on a Mooncake pool that belongs to none of them: the pool is left as it was found, whatever ends the job."""

from collections.abc import Iterator

import pytest

from support.cluster_drill import Weights, drill, exact, quick, wait_for
from support.cluster_job import applied
from support.cluster_pool import SharedPool, shared_pool
from support.kubectl import Kubectl
from support.pod_drill import drilled, gated, replaced, seen

pytestmark = pytest.mark.e2e
FINALIZER = "eyas.dev/cleanup"
ENOUGH = 24
"""Features of which a dead node will have held some: two nodes share them by chance."""


@pytest.fixture(scope="module")
def pool(kubectl: Kubectl) -> Iterator[SharedPool]:
    """A pool that outlives the jobs of this module."""
    with shared_pool(kubectl) as found:
        yield found


def test_a_job_on_a_shared_pool_survives_a_deleted_consumer_and_leaves_the_pool_empty(
    kubectl: Kubectl, pool: SharedPool, undisturbed: Weights
) -> None:
    """Catches: pods that cannot reach a pool they do not own, and features that nobody deletes when all went well."""
    weights = undisturbed(quick())
    with drilled(kubectl, drill("shared-complete", store=pool.store)) as job:
        job.training().force_delete(job.pod("consumer"))
        status = job.recovered(weights)
        assert not job.pods("store-master"), "a pool was made although there is one"
        seen(lambda: pool.keys() == [], "the pool is empty")
    replaced(status, "consumers", "PodDeleted")


def test_a_job_that_is_deleted_in_the_middle_sweeps_its_features_out_of_a_shared_pool(
    kubectl: Kubectl, pool: SharedPool, undisturbed: Weights
) -> None:
    """Catches: features of dead jobs that fill a pool, a sweep that takes those of others, and a stranded finalizer."""
    weights = undisturbed(quick())
    with applied(kubectl, drill("shared-other", seconds=0.6, store=pool.store)) as other:
        with applied(kubectl, drill("shared-deleted", seconds=0.6, store=pool.store)) as job:
            wait_for(job, "something in the pool", lambda it: it["progress"]["residentBytes"] > 0)
            meta = kubectl.get("dtj", job.name)["metadata"]
            mine = meta["uid"].replace("-", "")
            assert meta["finalizers"] == [FINALIZER]
            assert pool.keys(mine)
            kubectl.run("delete", "dtj", job.name, "--wait=true", "--timeout=120s", seconds=150)
            assert not pool.keys(mine), "the job is gone and its features are not"
        status = other.complete(300)
    assert (status["result"]["weightsSha256"], exact(status)[0], status["incidents"]) == (weights, "True", [])
    seen(lambda: pool.keys() == [], "the pool is empty")


def test_a_store_node_of_the_charts_pool_that_dies_under_two_jobs_changes_no_bit_of_either(
    kubectl: Kubectl, pool: SharedPool, undisturbed: Weights
) -> None:
    """Catches: objects that are waited for although their node is gone, and one job's loss that is taken for another's.

    No rank of the first job runs before the loss: what it misses then was needed, and can only have been lost.
    """
    weights = undisturbed(quick())
    with (
        gated(kubectl, "shared-waits", "consumers", store=pool.store) as (waits, release),
        drilled(kubectl, drill("shared-trains", store=pool.store)) as trains,
    ):
        mine = kubectl.get("dtj", waits.name)["metadata"]["uid"].replace("-", "")
        trains.training()
        before = set(seen(lambda: keys if len(keys := pool.keys(mine)) >= ENOUGH else [], "features of the first job"))
        trains.force_delete(pool.nodes()[0])
        seen(lambda: before - set(pool.keys(mine)), "the loss of some of them")
        release()
        told = [job.recovered(weights) for job in (waits, trains)]
        seen(lambda: pool.keys() == [], "the pool is empty")
    assert [(it["attempt"], it["restarts"], it["storeEpoch"]) for it in told] == [(1, 0, 1)] * 2
