"""Half-dead job holds GPUs: a pod that finds no place makes the job give its other places back, and try again."""

from tests.support.model_cluster import ModelCluster
from tests.support.operator_world import a_body, a_report

from eyas_operator.api.incidents import Incident
from eyas_operator.world import seconds_of

LIMIT = 100
PAUSE = 20


def a_job(**spec: object) -> ModelCluster:
    """A job that has trained, whose consumer 1 was then lost and finds no node again."""
    recovery = {"recoveryTimeoutSeconds": LIMIT, "backoff": {"maxSeconds": PAUSE}}
    cluster = ModelCluster(a_body(recovery=recovery, **spec)).started()
    cluster.end("consumer-1-a1", 1)
    cluster.reconcile()
    unplaced(cluster, "consumer-1-a2")
    cluster.passes(2)
    return cluster


def unplaced(cluster: ModelCluster, hostname: str) -> None:
    cluster.pod(hostname).status = {"phase": "Pending", "stuck": True}
    cluster.condition(hostname, "PodScheduled", "False", "Unschedulable", "0/3 nodes have a GPU")


def after_the_limit(cluster: ModelCluster, *, quiet: float = LIMIT, step: int = 1) -> None:
    cluster.report = a_report(acked_step=step, samples_committed=16, gang="closed", seconds_since_advance=quiet)
    cluster.now += LIMIT
    cluster.passes(2)


def incidents_of(cluster: ModelCluster, klass: str) -> list[Incident]:
    return [incident for incident in cluster.status.incidents if incident.klass == klass]


def train_pods(cluster: ModelCluster) -> list[str]:
    return cluster.names_of("consumer") + cluster.names_of("producer")


def test_job_whose_pod_finds_no_place_gives_the_others_back() -> None:
    cluster = a_job()
    after_the_limit(cluster)
    assert train_pods(cluster) == []
    assert cluster.names_of("metadata"), "the database and the store stay"
    assert cluster.verdict("ConsumersReady") == ("False", "Released")
    assert cluster.verdict("Recovering") == ("True", "RecoveryTimeout")
    (told,) = incidents_of(cluster, "RecoveryTimeout")
    assert "Unschedulable 0/3 nodes have a GPU" in told.message
    assert not told.counted
    assert cluster.status.state == "Recovering"


def test_places_are_kept_until_the_limit() -> None:
    cluster = a_job()
    cluster.report = a_report(acked_step=1, samples_committed=16, seconds_since_advance=LIMIT)
    cluster.now += LIMIT - 10
    cluster.passes(3)
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"]


def test_pause_ends_by_itself_and_the_whole_gang_is_made_with_a_new_number() -> None:
    cluster = a_job()
    after_the_limit(cluster)
    cluster.now += PAUSE
    cluster.passes(2)
    assert cluster.names_of("consumer") == ["consumer-0-a3", "consumer-1-a3"]
    assert len(cluster.names_of("producer")) == 2
    assert cluster.status.released_time == ""
    assert cluster.status.restarts == 1, "only the crash is a restart"


def test_pass_is_due_when_the_pause_ends() -> None:
    cluster = a_job()
    after_the_limit(cluster)
    cluster.now = seconds_of(cluster.status.released_time) + PAUSE - 1
    assert cluster.reconcile().wake_seconds == 1


def test_wait_of_many_releases_is_one_incident_and_closes_with_the_next_step() -> None:
    cluster = a_job()
    for attempt in range(3, 8):
        after_the_limit(cluster)
        cluster.now += PAUSE
        cluster.reconcile()
        unplaced(cluster, f"consumer-1-a{attempt}")
    assert len(incidents_of(cluster, "RecoveryTimeout")) == 1
    cluster.pod("consumer-1-a7").status = {"phase": "Pending"}
    cluster.report = a_report(acked_step=1, samples_committed=16, attempt=7, incarnation="b" * 32, gang="open")
    cluster.passes(3)
    cluster.report = a_report(acked_step=2, samples_committed=16, attempt=7, incarnation="b" * 32, gang="open")
    cluster.passes(2)
    assert [incident.outcome for incident in cluster.status.incidents] == ["Recovered", "Recovered"]
    assert cluster.verdict("Recovering")[0] == "False"


def test_job_that_trains_on_without_one_producer_keeps_its_places() -> None:
    cluster = ModelCluster(a_body(recovery={"recoveryTimeoutSeconds": LIMIT})).started()
    cluster.end("producer-1-o1", 1)
    cluster.reconcile()
    unplaced(cluster, "producer-1-o2")
    after_the_limit(cluster, quiet=1.0)
    assert cluster.names_of("consumer") == ["consumer-0-a1", "consumer-1-a1"]
    assert incidents_of(cluster, "RecoveryTimeout") == []


def test_stalled_job_whose_pods_all_run_keeps_its_places() -> None:
    cluster = ModelCluster(a_body(recovery={"recoveryTimeoutSeconds": LIMIT})).started()
    after_the_limit(cluster)
    assert cluster.names_of("consumer") == ["consumer-0-a1", "consumer-1-a1"]


def test_metadata_pod_without_a_place_frees_the_gpus_too() -> None:
    cluster = ModelCluster(a_body(recovery={"recoveryTimeoutSeconds": LIMIT})).started()
    cluster.report = None
    cluster.end("metadata-e1-o1", 1)
    cluster.reconcile()
    unplaced(cluster, "metadata-e1-o2")
    cluster.passes(2)
    cluster.now += LIMIT
    cluster.passes(2)
    assert train_pods(cluster) == []
    assert cluster.names_of("metadata") == ["metadata-e1-o2"]


def test_before_the_first_step_after_a_pause_the_start_up_deadline_rules() -> None:
    cluster = ModelCluster(a_body(recovery={"recoveryTimeoutSeconds": LIMIT})).started()
    cluster.edit(suspend=True)
    cluster.passes(3)
    cluster.report = None
    cluster.edit(suspend=False)
    cluster.reconcile()
    unplaced(cluster, "consumer-1-a2")
    cluster.passes(2)
    after_the_limit(cluster, step=0)
    assert cluster.names_of("consumer") == ["consumer-0-a2", "consumer-1-a2"]


def test_pod_that_began_to_wait_late_in_a_long_stall_has_its_whole_time() -> None:
    cluster = ModelCluster(a_body(recovery={"recoveryTimeoutSeconds": LIMIT})).started()
    cluster.report = a_report(acked_step=1, samples_committed=16, seconds_since_advance=LIMIT)
    cluster.now += LIMIT
    cluster.end("producer-1-o1", 1)
    cluster.reconcile()
    unplaced(cluster, "producer-1-o2")
    cluster.passes(2)
    assert len(cluster.names_of("consumer")) == 2


def test_released_job_can_be_suspended_and_resumed() -> None:
    cluster = a_job()
    after_the_limit(cluster)
    cluster.edit(suspend=True)
    cluster.passes(3)
    assert cluster.status.state == "Suspended"
    cluster.edit(suspend=False)
    cluster.passes(2)
    assert cluster.names_of("consumer") == ["consumer-0-a3", "consumer-1-a3"]
    assert cluster.status.released_time == ""


def test_active_deadline_ends_a_released_job() -> None:
    cluster = a_job(activeDeadlineSeconds=LIMIT + 10)
    after_the_limit(cluster)
    cluster.now += 20
    cluster.passes(3)
    assert cluster.verdict("Failed") == ("True", "DeadlineExceeded")
    assert train_pods(cluster) == []
