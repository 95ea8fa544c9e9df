"""The private API server of the tests is a real one: it authorises, and admits by Pod Security."""

import pytest

from support.kube_apiserver import KubeApiServer
from support.waiting import wait_until

pytestmark = pytest.mark.apiserver


def test_only_those_who_were_granted_something_may_do_it(kube: KubeApiServer) -> None:
    namespace = kube.namespace()
    path = f"/api/v1/namespaces/{namespace}/pods"
    assert kube.ask("GET", path, user="nobody").status == 403
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    kube.must("POST", f"{roles}/roles", {"metadata": {"name": "look"}, "rules": rules})
    binding = {
        "metadata": {"name": "look"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "look"},
        "subjects": [{"kind": "User", "name": "nobody"}],
    }
    kube.must("POST", f"{roles}/rolebindings", binding)
    # The authoriser learns of new bindings by a watch of its own.
    wait_until(lambda: kube.ask("GET", path, user="nobody").status == 200, "the binding is known")
    assert kube.ask("POST", path, {"metadata": {"name": "x"}}, user="nobody").status == 403


def test_privileged_pod_is_refused_in_a_restricted_namespace(kube: KubeApiServer) -> None:
    namespace = kube.namespace(enforce="restricted")
    container = {"name": "main", "image": "none", "securityContext": {"privileged": True}}
    pod = {"metadata": {"name": "bad"}, "spec": {"containers": [container]}}
    reply = kube.ask("POST", f"/api/v1/namespaces/{namespace}/pods", pod)
    assert reply.status == 403
    assert "violates PodSecurity" in reply.message


def test_kubeconfig_names_the_server_and_carries_no_more_than_one_user(kube: KubeApiServer) -> None:
    text = kube.kubeconfig("nobody").read_text()
    assert kube.url in text
    assert kube.tokens["nobody"] in text
    assert kube.tokens["admin"] not in text
