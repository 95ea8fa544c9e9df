"""The operator's rights: the chart gives what `eyas_operator.rights` lists, where it is watched, and no more."""

from collections.abc import Iterable
from typing import Any

import pytest

from eyas_operator.rights import JOB_RIGHTS, OWN_RIGHTS, Right
from support.helm import NAMESPACE, POOL, Manifest, of_kind, rendered

pytestmark = pytest.mark.chart
Granted = set[tuple[str, str, str]]


def granted(rules: Iterable[dict[str, Any]]) -> Granted:
    """(group, resource, verb) of every rule; a rule with anything else, such as resource names, fails."""
    found: Granted = set()
    for rule in rules:
        assert set(rule) == {"apiGroups", "resources", "verbs"}
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                found |= {(group, resource, verb) for verb in rule["verbs"]}
    return found


def listed(rights: tuple[Right, ...]) -> Granted:
    return {(right.group, right.resource, verb) for right in rights for verb in right.verbs}


def role_of(manifests: list[Manifest], binding: Manifest) -> Manifest:
    return of_kind(manifests, binding["roleRef"]["kind"])[binding["roleRef"]["name"]]


@pytest.mark.parametrize("values", [{}, {"watchNamespaces": ["*"]}, {"watchNamespaces": ["a"]}], ids=str)
def test_what_is_given_is_what_the_code_lists(values: dict[str, Any]) -> None:
    manifests = rendered(values)
    bindings = of_kind(manifests, "RoleBinding") | of_kind(manifests, "ClusterRoleBinding")
    rules = [rule for binding in bindings.values() for rule in role_of(manifests, binding)["rules"]]
    assert granted(rules) == listed((*JOB_RIGHTS, *OWN_RIGHTS))


def test_no_right_is_a_wildcard_reads_a_secret_or_reaches_into_a_container() -> None:
    for group, resource, verb in listed((*JOB_RIGHTS, *OWN_RIGHTS)):
        assert "*" not in group + resource + verb
        assert resource != "secrets" or verb in ("create", "patch")
        assert resource not in ("pods/exec", "pods/attach", "pods/portforward", "nodes", "roles", "rolebindings")


def test_each_watched_namespace_has_its_own_role_and_nothing_is_cluster_wide() -> None:
    manifests = rendered({"watchNamespaces": ["team-a", "team-b"], "rbac": {"userRoles": False}})
    assert not of_kind(manifests, "ClusterRole")
    assert not of_kind(manifests, "ClusterRoleBinding")
    roles = [entry for entry in manifests if entry["kind"] == "Role"]
    places = {role["metadata"]["namespace"]: granted(role["rules"]) for role in roles}
    assert places == {
        "team-a": listed(JOB_RIGHTS),
        "team-b": listed(JOB_RIGHTS),
        NAMESPACE: listed(OWN_RIGHTS),
    }
    bound = [entry for entry in manifests if entry["kind"] == "RoleBinding"]
    assert {entry["metadata"]["namespace"] for entry in bound} == set(places)


def test_every_binding_names_the_account_of_the_deployment() -> None:
    for values in ({}, {"serviceAccount": {"name": "mine"}}, {"serviceAccount": {"create": False, "name": "mine"}}):
        manifests = rendered(values)
        account = of_kind(manifests, "Deployment")["eyas-operator"]["spec"]["template"]["spec"]["serviceAccountName"]
        for entry in manifests:
            if entry["kind"].endswith("RoleBinding") or entry["kind"].endswith("ClusterRoleBinding"):
                assert entry["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}]


def test_the_lease_may_be_taken_in_the_operators_own_namespace_alone() -> None:
    manifests = rendered({"watchNamespaces": ["*"]})
    for kind in ("Role", "ClusterRole"):
        for role in of_kind(manifests, kind).values():
            leases = [rule for rule in role["rules"] if "leases" in rule["resources"]]
            assert not leases or role["metadata"].get("namespace") == NAMESPACE


def test_people_who_may_only_look_can_neither_change_jobs_nor_read_secrets() -> None:
    roles = of_kind(rendered(), "ClusterRole")
    viewer, editor, curves = (roles[f"eyas-{name}"] for name in ("viewer", "editor", "curves"))
    assert {verb for _, _, verb in granted(viewer["rules"])} == {"get", "list", "watch"}
    for role in (viewer, editor):
        assert "secrets" not in {resource for _, resource, _ in granted(role["rules"])}
    assert not [key for key in curves["metadata"]["labels"] if "aggregate" in key]


def test_pods_of_the_pool_have_no_rights_at_all() -> None:
    without = {(entry["kind"], entry["metadata"]["name"]) for entry in rendered() if "Role" in entry["kind"]}
    assert {(e["kind"], e["metadata"]["name"]) for e in rendered(POOL) if "Role" in e["kind"]} == without
