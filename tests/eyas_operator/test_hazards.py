"""Interleavings that break operators of disaggregated training, by the numbers of the list that they come from."""

from eyas_contract.states import Gang
from eyas_operator import names
from support.model_cluster import ModelCluster
from support.operator_world import a_body, a_report

STEM = "demo-1c9e0b52"


def claims(cluster: ModelCluster) -> list[str]:
    return sorted(name.removeprefix(f"{STEM}-") for kind, name in cluster.things if kind == "PersistentVolumeClaim")


def test_hazard_31_a_key_that_changed_reaches_the_services_of_jobs_that_make_no_pod() -> None:
    cluster = ModelCluster().started()
    cluster.secret_writes.clear()
    cluster.passes(3)
    assert cluster.secret_writes == []
    cluster.reader_stale, cluster.reachable = True, False
    cluster.passes(5)
    assert cluster.secret_writes == [f"{STEM}-reader"], "the random tokens of running pods are left as they are"


def test_hazard_01_vanished_metadata_claim_is_never_made_again_under_its_epoch() -> None:
    cluster = ModelCluster().started()
    cluster.delete_claim(f"{STEM}-metadata-e1")
    cluster.passes(4)
    assert claims(cluster) == ["checkpoints", "metadata-e2"]
    assert cluster.status.incidents[-1].klass == "MetadataLost"


def test_hazard_01_no_metadata_pod_before_its_claim_was_seen() -> None:
    cluster = ModelCluster()
    cluster.reconcile()
    assert claims(cluster) == ["checkpoints", "metadata-e1"]
    assert cluster.names_of("metadata") == []
    cluster.delete_claim(f"{STEM}-metadata-e1")
    cluster.passes(3)
    assert cluster.names_of("metadata") == ["metadata-e1-o1"], "nobody had used the first one"


def test_hazard_01_claim_that_vanishes_while_suspended_is_not_made_again_under_its_epoch() -> None:
    cluster = ModelCluster().started()
    cluster.pod("producer-0-o1").node = "unreachable"
    cluster.edit(suspend=True)
    cluster.passes(2)
    cluster.now += 200
    cluster.passes(3)
    assert cluster.verdict("Suspended")[0] == "True"
    cluster.delete_claim(f"{STEM}-metadata-e1")
    cluster.passes(2)
    assert claims(cluster) == ["checkpoints"]
    cluster.edit(suspend=False)
    cluster.passes(3)
    assert claims(cluster) == ["checkpoints", "metadata-e2"]


def test_hazard_01_claim_replaced_by_somebody_else_is_lost_too() -> None:
    cluster = ModelCluster().started()
    cluster.things[("PersistentVolumeClaim", f"{STEM}-metadata-e1")].uid = "another"
    cluster.passes(4)
    assert cluster.status.store_epoch == 2


def test_hazard_04_attempts_count_on_when_the_restored_store_knows_of_none() -> None:
    cluster = ModelCluster().started()
    for attempt in (1, 2):
        cluster.end(f"consumer-0-a{attempt}", 1)
        cluster.passes(2)
    assert cluster.status.attempt == 3
    cluster.delete_claim(f"{STEM}-metadata-e1")
    cluster.passes(3)
    assert cluster.status.store_epoch == 2
    cluster.report = a_report(store_epoch=2, attempt=0, phase="Preparing")
    cluster.end("consumer-0-a3", 1)
    cluster.passes(3)
    assert cluster.status.attempt == 4, "an attempt that was used once would let its own zombies in"
    assert cluster.names_of("consumer") == ["consumer-0-a4", "consumer-1-a4"]


def test_hazard_05_claim_of_a_dead_node_is_given_up_after_its_time_but_not_before() -> None:
    cluster = ModelCluster().started()
    cluster.pod("metadata-e1-o1").node = "unreachable"
    cluster.pod("metadata-e1-o1").deleted = "2030-01-01T00:00:00Z"
    cluster.reachable = False
    cluster.reconcile()
    assert "metadata-e1-o2" in cluster.names_of("metadata"), "the stuck pod is not waited for"
    cluster.pod("metadata-e1-o2").status = {"phase": "Pending", "stuck": True}
    cluster.passes(3)
    cluster.now += 100
    cluster.passes(1)
    assert cluster.status.store_epoch == 1
    cluster.now += 30
    cluster.passes(3)
    assert cluster.status.store_epoch == 2
    assert "metadata-e2-o3" in cluster.names_of("metadata")


def test_hazard_05_image_pull_is_no_lost_claim() -> None:
    cluster = ModelCluster().started()
    cluster.end("metadata-e1-o1", 1)
    cluster.reachable = False
    cluster.reconcile()
    waiting = {"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    cluster.pod("metadata-e1-o2").status = {"phase": "Pending", "stuck": True, "containerStatuses": [waiting]}
    cluster.passes(2)
    cluster.now += 1000
    cluster.passes(2)
    assert cluster.status.store_epoch == 1


def test_hazard_22_producer_removed_by_a_resize_returns_under_a_higher_ordinal() -> None:
    cluster = ModelCluster().started()
    cluster.pod("producer-1-o1").node = "unreachable"
    cluster.edit(producers={"replicas": 1})
    cluster.passes(2)
    cluster.edit(producers={"replicas": 2})
    cluster.passes(2)
    assert cluster.names_of("producer") == ["producer-0-o1", "producer-1-o1", "producer-1-o2"]
    env = cluster.pod("producer-1-o2").manifest["spec"]["containers"][0]["env"]
    assert {"name": "EYAS_ORDINAL", "value": "2"} in env


def test_hazard_23_two_pods_of_one_producer_index_never_share_an_ordinal() -> None:
    cluster = ModelCluster().started()
    cluster.pod("producer-0-o1").node = "unreachable"
    cluster.condition("producer-0-o1", "DisruptionTarget", "True", "DeletionByTaintManager")
    cluster.reconcile()
    assert {"producer-0-o1", "producer-0-o2"} <= set(cluster.names_of("producer"))
    cluster.passes(5)
    assert cluster.status.restarts == 1, "the old pod, which nobody can stop, changes nothing any more"


def test_hazard_23_pods_of_one_attempt_have_one_leader_and_one_shape() -> None:
    cluster = ModelCluster().started()
    cluster.pod("consumer-1-a1").node = "unreachable"
    cluster.end("consumer-0-a1", 1)
    cluster.passes(2)
    for kind, config in ((1, "e1-a1"), (2, "e1-a2")):
        text = cluster.things[("ConfigMap", f"{STEM}-config-{config}")].manifest["data"]["job.json"]
        assert f"consumer-0-a{kind}." in text, "the configuration of an attempt names that attempt's leader"


def test_hazard_26_one_kill_a_minute_never_ends_a_job_that_advances() -> None:
    cluster = ModelCluster(a_body(recovery={"maxRestartsWithoutProgress": 2})).started()
    for minute in range(1, 31):
        cluster.end(f"consumer-1-a{cluster.status.attempt}", 137)
        cluster.passes(2, seconds=1)
        assert "consumer-1-a" + str(cluster.status.attempt) in cluster.names_of("consumer"), "no back-off builds up"
        cluster.report = a_report(
            acked_step=minute + 1, durable_step=minute, samples_committed=16, attempt=cluster.status.attempt
        )
        cluster.now += 57
        cluster.passes(1)
    assert cluster.verdict("Failed")[0] == "False"
    assert cluster.status.restarts == 30


def test_hazard_26_the_kubelet_never_sets_the_pace() -> None:
    cluster = ModelCluster().started()
    for thing in cluster.things.values():
        if thing.kind == "Pod":
            assert thing.manifest["spec"]["restartPolicy"] == "Never"


def test_hazard_27_budgets_are_integers_one_below_the_replicas_and_singletons_have_none() -> None:
    cluster = ModelCluster(a_body(producers={"replicas": 3}, consumers={"replicas": 2, "processesPerPod": 1})).started()
    found = {
        name.removeprefix(f"{STEM}-"): thing.manifest["spec"]
        for (kind, name), thing in cluster.things.items()
        if kind == "PodDisruptionBudget"
    }
    assert {name: spec["minAvailable"] for name, spec in found.items()} == {"producer": 2, "consumer": 1}
    for name, spec in found.items():
        assert set(spec) == {"minAvailable", "maxUnavailable", "selector", "unhealthyPodEvictionPolicy"}
        assert spec["maxUnavailable"] is None, "said, so that whoever sets it by hand is overruled"
        assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "pods that cannot get ready never block a drain"
        assert spec["selector"]["matchLabels"][names.LABEL_ROLE] == name
    cluster.edit(producers={"replicas": 1})
    cluster.passes(2)
    assert ("PodDisruptionBudget", f"{STEM}-producer") not in cluster.things


def test_hazard_28_checkpoints_are_not_owned_by_the_job_unless_asked() -> None:
    for policy, owned in (("Retain", False), ("Delete", True)):
        volumes = {"checkpoints": {"size": "1Gi", "retentionPolicy": policy}, "models": {"claimName": "m"}}
        cluster = ModelCluster(a_body(volumes=volumes | {"data": {"claimName": "d"}})).started()
        claim = cluster.things[("PersistentVolumeClaim", f"{STEM}-checkpoints")].manifest
        assert ("ownerReferences" in claim["metadata"]) == owned
        metadata = cluster.things[("PersistentVolumeClaim", f"{STEM}-metadata-e1")].manifest
        assert "ownerReferences" in metadata["metadata"]


def test_hazard_31_secrets_are_named_by_uid_and_random_ones_are_written_once() -> None:
    cluster = ModelCluster().started()
    assert set(cluster.secrets) == {f"{STEM}-tokens", f"{STEM}-reader"}
    first = dict(cluster.secrets)
    cluster.end("metadata-e1-o1", 1)
    cluster.passes(3)
    assert cluster.secrets == first


def test_hazard_33_new_connections_reach_only_the_present_metadata_pod() -> None:
    cluster = ModelCluster().started()
    cluster.pod("metadata-e1-o1").node = "unreachable"
    cluster.condition("metadata-e1-o1", "DisruptionTarget", "True", "DeletionByTaintManager")
    cluster.passes(2)
    selector = cluster.things[("Service", f"{STEM}-metadata")].manifest["spec"]["selector"]
    labels = cluster.pod("metadata-e1-o1").manifest["metadata"]["labels"]
    assert not set(selector.items()) <= set(labels.items())
    assert set(selector.items()) <= set(cluster.pod("metadata-e1-o2").manifest["metadata"]["labels"].items())


def test_hazard_33_report_of_an_older_store_epoch_is_not_believed() -> None:
    cluster = ModelCluster().started()
    cluster.delete_claim(f"{STEM}-metadata-e1")
    cluster.passes(3)
    cluster.report = a_report(store_epoch=1, phase="Failed", failure="Zombie: I am still here", acked_step=90)
    cluster.passes(2)
    assert cluster.verdict("Failed")[0] == "False"
    assert cluster.status.progress.step == 1


def test_hazard_35_start_at_zero_with_a_known_checkpoint_is_refused() -> None:
    cluster = ModelCluster().started()
    cluster.report = a_report(acked_step=9, durable_step=8, checkpoint_directory="d", samples_committed=80)
    cluster.passes(1)
    cluster.end("metadata-e1-o1", 1)
    cluster.passes(1)
    env = cluster.pod("metadata-e1-o2").manifest["spec"]["containers"][0]["env"]
    assert {"name": "EYAS_CHECKPOINT_STEP", "value": "8"} in env
    cluster.report = a_report(incarnation="c" * 32, gang=Gang.OPEN)
    cluster.passes(1)
    assert cluster.verdict("Failed") == ("True", "CheckpointsLost")


def test_hazard_43_minted_and_derived_values_are_never_in_one_secret() -> None:
    cluster = ModelCluster()
    shapes = []
    original = cluster.ensure_secret

    async def record(shape):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        shapes.append(shape)
        await original(shape)

    cluster.ensure_secret = record  # type: ignore[method-assign]
    cluster.passes(3)
    assert shapes
    for shape in shapes:
        assert bool(shape.minted) != bool(shape.derived)
        assert ("receipt.key" in shape.minted) == ("tokens" in shape.manifest["metadata"]["name"])
