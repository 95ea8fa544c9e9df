"""The operator as a real process on a real API server, with the rights of the chart and nothing beyond them."""

import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from eyas_operator import names
from eyas_operator.names import JobIdentity, Role
from eyas_operator.rights import JOB_RIGHTS, OWN_RIGHTS
from support.kube_apiserver import MERGE, KubeApiServer
from support.kube_operator import JOBS, Kubelet, status_of, submit
from support.operator_process import OperatorProcess, operator_process
from support.waiting import wait_until
from support.watch_proxy import watch_proxy

pytestmark = pytest.mark.apiserver

ALL = {
    "metadata-e1-o1", "store-master-o1", "store-node-0-o1", "producer-0-o1", "producer-1-o1", "consumer-0-a1",
    "consumer-1-a1",
}  # fmt: skip
RULES = [
    {"apiGroups": [right.group], "resources": [right.resource], "verbs": list(right.verbs)}
    for right in (*JOB_RIGHTS, *OWN_RIGHTS)
]
STREAMS = 7
"""Jobs and six kinds of children."""
LEASE = "/apis/coordination.k8s.io/v1/namespaces/{}/leases/eyas-operator"


@pytest.fixture
def place(jobs: KubeApiServer) -> Kubelet:
    """A namespace in which the user `operator` has the chart's rights, and its kubelet."""
    namespace = jobs.namespace()
    jobs.grant(namespace, RULES)
    return Kubelet(jobs, namespace)


def hostnames(kubelet: Kubelet) -> set[str]:
    return {pod["spec"]["hostname"] for pod in kubelet.pods()}


def wait_pods(kubelet: Kubelet, wanted: set[str], operator: OperatorProcess) -> None:
    """Play the kubelet until exactly these pods are there."""

    def there() -> bool:
        kubelet.work()
        return hostnames(kubelet) == wanted

    wait_until(there, lambda: f"pods are {hostnames(kubelet)}, not {wanted}: {operator.lines()[-6:]}")


def asked(records: Iterable[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of every request."""
    found = set()
    for record in records:
        at = record["objectRef"]
        part = f"/{at['subresource']}" if "subresource" in at else ""
        found.add((at.get("apiGroup", ""), at["resource"] + part, record["verb"]))
    return found


def start(kube: KubeApiServer, kubelet: Kubelet, folder: Path, name: str = "op-1", **settings: str) -> Any:  # noqa: ANN401
    config = kube.kubeconfig("operator", namespace=kubelet.namespace, url=settings.pop("url", ""))
    return operator_process(name, config, kubelet.namespace, folder, **settings)


def test_a_job_lives_and_dies_within_the_listed_rights(jobs: KubeApiServer, place: Kubelet, tmp_path: Path) -> None:
    with start(jobs, place, tmp_path) as operator:
        operator.leading()
        job = submit(jobs, place.namespace)
        wait_pods(place, ALL, operator)
        place.end("producer-0-o1", 3, message="out of luck")
        wait_pods(place, ALL - {"producer-0-o1"} | {"producer-0-o2"}, operator)
        place.end("consumer-1-a1", 1)
        wait_pods(
            place,
            ALL - {"producer-0-o1", "consumer-0-a1", "consumer-1-a1"}
            | {"producer-0-o2", "consumer-0-a2", "consumer-1-a2"},
            operator,
        )
        where = f'job="demo",namespace="{place.namespace}"'
        assert operator.metric(f'eyas_job_info{{{where},state="Running"}}') == 1
        restarts = f'eyas_restarts_total{{class="Crash",{where},role="consumers"}}'
        assert operator.metric(restarts) == 1, operator.get("metrics", "/metrics")[1]
        found = jobs.must("GET", f"{JOBS.format(place.namespace)}/{job.name}")
        jobs.must("DELETE", f"{JOBS.format(place.namespace)}/{job.name}")
        wait_until(lambda: where not in operator.get("metrics", "/metrics")[1], "the series of the job end with it")
        assert operator.end() == 0
    records = jobs.audit(place.namespace)
    refused = [record["requestURI"] for record in records if record["responseStatus"]["code"] == 403]
    assert not refused
    assert asked(records) <= {(r.group, r.resource, verb) for r in (*JOB_RIGHTS, *OWN_RIGHTS) for verb in r.verbs}
    assert_kopf_only_looked(records, found)
    assert_told_before_deleted(jobs, job, records)


def assert_kopf_only_looked(records: list[dict[str, Any]], job: dict[str, Any]) -> None:
    """No finalizer, no annotation, no progress: kopf lists and watches, with our selector at the server."""
    kopf = [record for record in records if record["userAgent"].startswith("kopf/")]
    assert {record["verb"] for record in kopf} == {"list", "watch"}
    for record in kopf:
        own = record["objectRef"]["resource"] == names.PLURAL
        assert own or "labelSelector=eyas.dev/job-uid" in unquote(record["requestURI"]), record["requestURI"]
    assert "finalizers" not in job["metadata"]
    assert "annotations" not in job["metadata"]
    assert "kopf" not in job["status"]
    assert {entry["manager"] for entry in job["metadata"]["managedFields"]} <= {names.FIELD_MANAGER, "python-urllib3"}


def assert_told_before_deleted(kube: KubeApiServer, job: JobIdentity, records: list[dict[str, Any]]) -> None:
    """The facts of a crash were posted before the pod that they came from was deleted."""
    events = kube.must("GET", f"/apis/events.k8s.io/v1/namespaces/{job.namespace}/events")["items"]
    note = next(event["note"] for event in events if event["reason"] == "PodReplaced")
    assert "producer-0" in note
    assert "out of luck" in note
    told = [
        record["requestReceivedTimestamp"]
        for record in records
        if record["verb"] == "create" and record["objectRef"]["resource"] == "events"
    ]
    deleted = next(
        record["requestReceivedTimestamp"]
        for record in records
        if record["verb"] == "delete" and record["objectRef"].get("name", "").endswith("producer-0-o1")
    )
    assert min(told) < deleted


def test_an_operator_that_was_killed_goes_on_where_it_stopped(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with start(jobs, place, tmp_path) as operator:
        operator.leading()
        job = submit(jobs, place.namespace)
        wait_until(place.pods, lambda: f"a first pod: {operator.lines()[-5:]}")
        assert operator.end(signal.SIGKILL) == -signal.SIGKILL
        place.work()
    # The same pod, its container started again: it need not wait for its own lease to run out.
    with start(jobs, place, tmp_path) as operator:
        operator.leading()
        units = sorted(name.rpartition("-")[0] for name in ALL)

        def complete() -> bool:
            # A pod that was announced and never made gives up its number, a gang with one all of its pods, which go:
            # in the end there is one of each.
            place.work()
            return sorted(name.rpartition("-")[0] for name in hostnames(place)) == units

        wait_until(complete, lambda: f"pods are {hostnames(place)}: {operator.lines()[-6:]}")
        assert status_of(jobs, job)["incidents"] == []
        assert status_of(jobs, job)["gang"]["replicas"] == 2


def test_deaf_watches_lose_nothing_as_everything_is_listed_again(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with (
        watch_proxy(jobs) as proxy,
        start(jobs, place, tmp_path, url=proxy.url, relist_seconds="1") as operator,
    ):
        operator.leading()
        submit(jobs, place.namespace)
        wait_pods(place, ALL, operator)
        proxy.go_deaf()
        place.kill("producer-1-o1")
        wait_pods(place, ALL - {"producer-1-o1"} | {"producer-1-o2"}, operator)
        wait_until(lambda: operator.metric("eyas_operator_watch_missed_changes") > 0, "missed changes are counted")
        submit(jobs, place.namespace, "second")
        wait_until(lambda: len(place.pods()) > len(ALL), lambda: f"a new job is seen: {operator.lines()[-5:]}")
        assert operator.end() == 0


def test_an_edit_is_heard_of_by_the_streams_alone_and_then_no_pass_looks_again(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with start(jobs, place, tmp_path, relist_seconds="3600") as operator:
        operator.leading()
        job = submit(jobs, place.namespace)
        wait_pods(place, ALL, operator)
        service = place.path("services", names.service(job, Role.METADATA))
        wanted = jobs.must("GET", service)
        jobs.must("PATCH", service, {"spec": {"selector": {"app": "mine"}}}, content=MERGE)
        wait_until(lambda: jobs.must("GET", service)["spec"] == wanted["spec"], "the selector is as before")
        # To a stream that asks for the label this looks like a deletion.
        jobs.must("PATCH", service, {"metadata": {"labels": {names.LABEL_JOB_UID: None}}}, content=MERGE)
        wait_until(
            lambda: jobs.must("GET", service)["metadata"]["labels"] == wanted["metadata"]["labels"], "it is found again"
        )

        def passes() -> float:
            return operator.metric('eyas_operator_reconcile_total{result="done"}')

        def lists() -> int:
            return sum(
                it["objectRef"]["resource"] == "services" and it["verb"] == "list" for it in jobs.audit(place.namespace)
            )

        def quiet() -> bool:
            before, made = lists(), passes()
            note = {"metadata": {"annotations": {"note": str(made)}}}
            jobs.must("PATCH", f"{JOBS.format(place.namespace)}/{job.name}", note, content=MERGE)
            wait_until(lambda: passes() >= made + 2, "two more passes")
            return lists() == before

        wait_until(quiet, lambda: f"passes that look at what they know: {operator.lines()[-3:]}")
        assert operator.end() == 0


def test_streams_go_on_with_new_credentials_after_the_old_ones_are_refused(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with watch_proxy(jobs) as proxy, start(jobs, place, tmp_path, url=proxy.url, relist_seconds="3600") as operator:
        operator.leading()
        submit(jobs, place.namespace)
        wait_pods(place, ALL, operator)
        proxy.refuse_streams(STREAMS)
        wait_until(lambda: proxy.refused >= STREAMS, "every stream was refused once")
        wait_until(lambda: proxy.streams >= 2 * STREAMS, "every stream is open again")
        place.kill("producer-1-o1")
        wait_pods(place, ALL - {"producer-1-o1"} | {"producer-1-o2"}, operator)
        assert operator.end() == 0


@pytest.mark.parametrize("everywhere", [False, True], ids=["named", "cluster-wide"])
def test_jobs_of_all_watched_namespaces_are_served(jobs: KubeApiServer, tmp_path: Path, *, everywhere: bool) -> None:
    own, first, second = (Kubelet(jobs, jobs.namespace()) for _ in range(3))
    watched = "*" if everywhere else f"{first.namespace},{second.namespace}"
    config = jobs.kubeconfig("admin", namespace=own.namespace)
    with operator_process("op-1", config, own.namespace, tmp_path, watch_namespaces=watched) as operator:
        operator.leading()
        for place in (own, first, second):
            submit(jobs, place.namespace)
        for place in (first, second):
            wait_pods(place, ALL, operator)
        assert bool(own.pods()) == everywhere
        first.kill("producer-0-o1")
        wait_pods(first, ALL - {"producer-0-o1"} | {"producer-0-o2"}, operator)
        assert operator.end() == 0


def test_a_namespace_that_is_closed_to_the_operator_holds_up_no_other_one_and_is_served_once_it_opens(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    closed = Kubelet(jobs, jobs.namespace())
    settings = {"watch_namespaces": f"{closed.namespace},{place.namespace}", "relist_seconds": "1"}
    for each in (place, closed):
        submit(jobs, each.namespace)
    with start(jobs, place, tmp_path, **settings) as operator:
        operator.leading()
        wait_pods(place, ALL, operator)
        place.kill("producer-0-o1")
        wait_pods(place, ALL - {"producer-0-o1"} | {"producer-0-o2"}, operator)
        assert "forbidden" in operator.wait_said("a namespace is not served")["error"]
        jobs.grant(closed.namespace, RULES)
        assert operator.wait() == 75, "begun again, it opens streams there, too"
    with start(jobs, place, tmp_path, **settings) as operator:
        operator.leading()
        wait_pods(closed, ALL, operator)
        assert operator.end() == 0


def test_a_stream_that_fails_for_good_ends_the_process_and_frees_the_lease(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with watch_proxy(jobs) as proxy, start(jobs, place, tmp_path, url=proxy.url) as operator:
        operator.leading()
        wait_until(lambda: proxy.streams, "streams are open")
        proxy.fail_streams()
        submit(jobs, place.namespace)
        assert operator.wait() == 75
        assert "WatchingError" in operator.wait_said("what should never end has ended")["error"]
    assert not jobs.must("GET", LEASE.format(place.namespace))["spec"].get("holderIdentity")


def test_a_leader_whose_lease_has_another_name_ends_at_once(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with start(jobs, place, tmp_path) as operator:
        operator.leading()
        change = {"spec": {"holderIdentity": "somebody-else"}}
        jobs.must("PATCH", LEASE.format(place.namespace), change, content="application/merge-patch+json")
        assert operator.wait() == 86
        assert operator.said("another operator may lead: this process ends at once")
    lease = jobs.must("GET", LEASE.format(place.namespace))
    assert lease["spec"]["holderIdentity"] == "somebody-else"


def test_a_process_without_rights_waits_and_says_why(jobs: KubeApiServer, tmp_path: Path) -> None:
    namespace = jobs.namespace()
    config = jobs.kubeconfig("nobody", namespace=namespace)
    with operator_process("op-1", config, namespace, tmp_path) as operator:
        operator.started()
        line = operator.wait_said("the lease cannot be reached")
        assert "forbidden" in line["error"]
        assert operator.metric("eyas_operator_leader") == 0
        assert operator.end() == 0


@pytest.mark.slow
def test_of_two_operators_one_leads_and_the_other_takes_over_without_a_second_attempt(
    jobs: KubeApiServer, place: Kubelet, tmp_path: Path
) -> None:
    with start(jobs, place, tmp_path, "op-1") as first, start(jobs, place, tmp_path, "op-2") as second:
        wait_until(lambda: first.said("this process leads") or second.said("this process leads"), "one leads")
        leader, other = (first, second) if first.said("this process leads") else (second, first)
        leader.leading()
        wait_until(lambda: other.get("probes", "/readyz")[0] == 200, "the other is ready too")
        assert other.metric("eyas_operator_leader") == 0
        job = submit(jobs, place.namespace)
        wait_pods(place, ALL, leader)
        assert leader.end(signal.SIGKILL) == -signal.SIGKILL
        place.end("consumer-0-a1", 1)
        other.leading()
        after = ALL - {"consumer-0-a1", "consumer-1-a1"} | {"consumer-0-a2", "consumer-1-a2"}
        wait_pods(place, after, other)
        assert (status_of(jobs, job)["attempt"], status_of(jobs, job)["restarts"]) == (2, 1)
        with start(jobs, place, tmp_path, "op-3") as third:
            third.started()
            assert other.end() == 0
            # Given back: nobody waits for a term to run out.
            assert not jobs.must("GET", LEASE.format(place.namespace))["spec"].get("holderIdentity") or third.said(
                "this process leads"
            )
            third.leading()
            assert hostnames(place) == after


@pytest.mark.slow
def test_two_hundred_jobs_at_once_all_get_their_children(jobs: KubeApiServer, place: Kubelet, tmp_path: Path) -> None:
    with start(jobs, place, tmp_path) as operator:
        operator.leading()
        for index in range(200):
            submit(jobs, place.namespace, f"job-{index}")

        def served() -> bool:
            page = jobs.must("GET", f"{place.path('pods')}?limit=1")
            return int(page["metadata"].get("remainingItemCount", 0)) + 1 == 200 * len(ALL)

        wait_until(served, lambda: f"every job has its pods: {operator.lines()[-3:]}", seconds=400)
        assert operator.get("probes", "/healthz")[0] == 200
        assert not [line for line in operator.lines() if line.get("level") == "ERROR"]
    jobs.must("DELETE", JOBS.format(place.namespace))


def test_settings_that_cannot_work_end_it_with_one_sentence(tmp_path: Path) -> None:
    with operator_process("op-1", tmp_path / "none", "default", tmp_path, workers="few") as operator:
        assert operator.wait() == 78
    assert operator.log.read_text() == "eyas-operator: EYAS_OPERATOR_WORKERS: must be a int, not 'few'\n"
