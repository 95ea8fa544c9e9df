"""What keeps strangers out: Pod Security, tokens, policies, rights, and secrets that are said nowhere.

NetworkPolicies are objects here, not walls: the pod network of the tests' own node image does not enforce them, so a
stranger's pod does reach a metadata service, and only the token stands between. That is what the token tests need.
"""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest

from eyas_operator.rights import JOB_RIGHTS, OWN_RIGHTS
from support.cluster_drill import children, drill, uid_of, wait_for, wait_until
from support.cluster_http import ask, metadata_url, pod_of, token_file
from support.cluster_job import ClusterJob, applied
from support.cluster_operator import OPERATOR, PODS
from support.kubectl import NAMESPACE, Kubectl, Refused

pytestmark = pytest.mark.e2e
MOONCAKE = {"store": {"backend": "Mooncake", "maxResidentBytes": "64Mi",
                      "mooncake": {"protocol": "TCP", "nodes": {"replicas": 1, "segmentSize": "128Mi"}}}}  # fmt: skip
ROLES = ("metadata", "producer", "consumer", "store-master", "store-node")


@pytest.fixture(scope="module")
def victim(kubectl: Kubectl) -> Iterator[ClusterJob]:
    """A running job with a pod of every role."""
    with applied(kubectl, drill("locks-victim", seconds=4, **MOONCAKE)) as job:
        wait_for(job, "every role ready", lambda it: all(r["ready"] for r in it["roles"]) and it["progress"]["step"])
        yield job


@pytest.fixture(scope="module")
def stranger(kubectl: Kubectl, victim: ClusterJob) -> Iterator[ClusterJob]:
    """Another running job."""
    with applied(kubectl, drill("locks-stranger", seconds=4)) as job:
        wait_for(job, "its consumer", lambda it: all(role["ready"] for role in it["roles"]))
        yield job


def test_pod_security_restricted_is_enforced_and_a_job_of_all_roles_lives_under_it(
    kubectl: Kubectl, victim: ClusterJob
) -> None:
    labels = kubectl.get("namespace", NAMESPACE)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    assert [role for role in ROLES if not victim.pods(role)] == []
    pod = victim.pods("consumer")[0]
    del pod["spec"]["containers"][0]["securityContext"]
    loose = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "loose"}, "spec": pod["spec"]}
    with pytest.raises(Refused, match="violates PodSecurity"):
        kubectl.apply(loose, "--dry-run=server")


def test_a_pod_without_the_token_is_refused_by_the_metadata_service(
    kubectl: Kubectl, victim: ClusterJob, stranger: ClusterJob
) -> None:
    url, pod = metadata_url(victim), pod_of(stranger, "producer")
    assert ask(kubectl, pod, f"{url}/healthz")[0] == 200, "it cannot even be reached: nothing is shown"
    for path in ("/v1/status", "/v1/lease", "/v1/order", "/v1/audit", "/metrics"):
        assert ask(kubectl, pod, url + path)[0] == 401, path


def test_another_jobs_token_is_refused_by_the_metadata_service(
    kubectl: Kubectl, victim: ClusterJob, stranger: ClusterJob
) -> None:
    theirs, mine = metadata_url(victim), metadata_url(stranger)
    for role in ("producer", "consumer"):
        pod = pod_of(stranger, role)
        token = token_file(kubectl, pod, role)
        path = {"producer": "/v1/prepared", "consumer": "/v1/status"}[role]
        assert ask(kubectl, pod, mine + path, token)[0] == 200, "its own service knows it"
        assert ask(kubectl, pod, theirs + path, token)[0] == 401
    # A token opens the calls of its role alone, in its own job, too.
    assert ask(kubectl, pod, mine + "/v1/lease", token)[0] == 403


def test_each_pod_is_selected_by_the_policy_of_its_role_and_peers_are_of_its_job_as_objects_only(
    kubectl: Kubectl, victim: ClusterJob, stranger: ClusterJob
) -> None:
    """The objects; whether the pod network enforces them is the cluster's part (ours does not)."""
    job_uid = uid_of(kubectl, victim.name)
    policies = kubectl.items("networkpolicies", "-l", f"eyas.dev/job-uid={job_uid}")
    everybody = kubectl.items("pods")
    for policy in policies:
        spec = policy["spec"]
        assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
        role = spec["podSelector"]["matchLabels"]["eyas.dev/role"]
        chosen = {pod["metadata"]["name"] for pod in everybody if selects(spec["podSelector"], pod)}
        assert chosen == {pod_of(victim, role)}
        for rule in spec.get("ingress", ()):
            assert rule["from"], "an empty list would be everybody"
            for peer in rule["from"]:
                known = [pod for pod in everybody if selects(peer["podSelector"], pod)]
                assert {owner_of(pod) for pod in known} <= {job_uid, "operator"}
                assert ("namespaceSelector" in peer) == (known[0]["metadata"]["labels"].get("eyas.dev/role") is None)
    assert sorted(it["spec"]["podSelector"]["matchLabels"]["eyas.dev/role"] for it in policies) == sorted(ROLES)


def selects(selector: dict[str, Any], pod: dict[str, Any]) -> bool:
    assert set(selector) == {"matchLabels"}
    return set(selector["matchLabels"].items()) <= set(pod["metadata"]["labels"].items())


def owner_of(pod: dict[str, Any]) -> str:
    labels = pod["metadata"]["labels"]
    return str(labels.get("eyas.dev/job-uid") or labels.get("app.kubernetes.io/component", "nobody"))


Rules = set[tuple[str, str, str]]
RULES = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews"


def rules_of(kubectl: Kubectl, account: str, namespace: str = NAMESPACE) -> Rules:
    """(group, resource, verb): what `kubectl auth can-i --list --as=...` prints."""
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    review = {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    }  # fmt: skip
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated")
    flags = [flag for group in groups for flag in ("--as-group", group)]
    told = kubectl.run("create", "--raw", RULES, "-f", "-", "--as", user, *flags, given=json.dumps(review))
    status = json.loads(told)["status"]
    assert not status["incomplete"]
    return {
        (group, resource, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operators_account_may_do_exactly_what_its_code_lists(kubectl: Kubectl) -> None:
    everybody = rules_of(kubectl, "an-account-that-nobody-made")
    listed = {(it.group, it.resource, verb) for it in (*JOB_RIGHTS, *OWN_RIGHTS) for verb in it.verbs}
    assert rules_of(kubectl, OPERATOR) - everybody == listed
    assert rules_of(kubectl, OPERATOR, "kube-system") == everybody, "it may do something elsewhere"


def test_the_account_of_a_jobs_pods_may_nothing_and_is_not_even_mounted(kubectl: Kubectl, victim: ClusterJob) -> None:
    assert rules_of(kubectl, "default") == rules_of(kubectl, "an-account-that-nobody-made")
    for role in ROLES:
        (pod,) = victim.pods(role)
        assert (pod["spec"]["serviceAccountName"], pod["spec"]["automountServiceAccountToken"]) == ("default", False)
        with pytest.raises(Refused):
            kubectl.run("exec", pod_of(victim, role), "--", "ls", "/var/run/secrets/kubernetes.io")


def test_no_secret_value_is_said_in_any_object_event_log_environment_or_command_line(
    kubectl: Kubectl, victim: ClusterJob, stranger: ClusterJob
) -> None:
    # Events and logs have something to tell only when something happened.
    kubectl.run("delete", "pod", pod_of(victim, "producer"), "--force", "--grace-period=0")
    wait_until("the incident", lambda: victim.status()["incidents"])
    wait_until("its successor", lambda: [pod for pod in victim.pods("producer") if pod["status"]["phase"] == "Running"])
    values = secret_values(kubectl, victim, stranger)
    assert len(values) >= 11, "two jobs with five each, and the operator's key"
    places = {kind: kubectl.run("get", kind, "-o", "json", "--show-managed-fields") for kind in SAID_IN}
    places |= {f"log of {pod}": kubectl.run("logs", pod, "--tail=-1") for pod in names(kubectl, "-l", PODS)}
    for job in (victim, stranger):
        for pod in names(kubectl, "-l", f"eyas.dev/job-name={job.name}"):
            places[f"log of {pod}"] = kubectl.run("logs", pod, "--tail=-1")
            places[f"processes of {pod}"] = kubectl.run("exec", pod, "--", "sh", "-c", PROCESSES)
            assert "EYAS_ROLE" in places[f"processes of {pod}"], "no environment was read"
    assert all(len(text) > 50 for name, text in places.items() if not name.startswith("log")), "a place was empty"
    for name, text in places.items():
        assert not [key for key, value in values.items() if any(form in text for form in forms(value))], name


SAID_IN = ("events", "dtj", "pods", "configmaps", "services", "networkpolicies", "persistentvolumeclaims", "leases")
PROCESSES = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\000' '\\n'; true"


def names(kubectl: Kubectl, *selector: str) -> list[str]:
    return [pod["metadata"]["name"] for pod in kubectl.items("pods", *selector)]


def secret_values(kubectl: Kubectl, *jobs: ClusterJob) -> dict[str, str]:
    """`Secret/key` to value, of these jobs and of the operator."""
    wanted = [it for job in jobs for it in children(kubectl, uid_of(kubectl, job.name)) if it.startswith("Secret/")]
    found = {}
    for name in (*(it.partition("/")[2] for it in wanted), f"{OPERATOR}-key"):
        for key, value in kubectl.get("secret", name)["data"].items():
            found[f"{name}/{key}"] = base64.b64decode(value).decode().strip()
    return found


def forms(value: str) -> tuple[str, ...]:
    """As it is, and as Kubernetes writes it."""
    assert len(value) >= 32
    return value, base64.b64encode(value.encode()).decode().rstrip("=")[:-2]
