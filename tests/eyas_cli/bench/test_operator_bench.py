"""`eyas bench operator`: what it reads off the API server's records, and the whole of it on a small world."""

import json
from pathlib import Path
from typing import Any

import pytest

from eyas_cli.bench.operator.audit import AuditLog, quantile, reactions, requests, writes
from eyas_cli.bench.operator.measure import benchmark_operator
from eyas_cli.bench.operator.player import job_body, job_stem
from eyas_contract.errors import UserError
from eyas_operator.api.parse import parse
from eyas_operator.desired.build import own_store_nodes, producer_count

VICTIM = "job-3-0123abcd-producer-1-o1"


def record(user: str, verb: str, resource: str, name: str, second: int, number: str = "") -> dict[str, Any]:
    return {
        "auditID": number or f"{user}{verb}{name}{second}",
        "user": {"username": user},
        "verb": verb,
        "objectRef": {"resource": resource, "name": name},
        "requestReceivedTimestamp": f"2030-01-01T00:00:{second:02d}.250000Z",
    }


def test_a_reaction_lasts_from_the_death_to_the_creation_of_that_units_successor() -> None:
    records = [
        record("operator", "create", "pods", "job-3-0123abcd-producer-1-o1", 1),
        record("player", "patch", "pods", VICTIM, 2),
        record("operator", "create", "pods", "job-3-0123abcd-producer-0-o2", 3),
        record("operator", "create", "pods", "job-4-0123abcd-producer-1-o2", 4),
        record("operator", "delete", "pods", VICTIM, 5),
        record("operator", "create", "pods", "job-3-0123abcd-producer-1-o2", 6),
        record("operator", "create", "pods", "job-3-0123abcd-producer-1-o3", 9),
    ]
    assert reactions(records, [VICTIM]) == {VICTIM: 4.0}
    assert reactions(records[:-2], [VICTIM]) == {}


def test_a_watch_is_one_request_and_the_players_are_none() -> None:
    watch = record("operator", "watch", "pods", "", 1, "w")
    records = [watch, watch, record("player", "patch", "pods", VICTIM, 2), record("operator", "list", "pods", "", 3)]
    assert requests(records) == 2


def test_the_operators_own_lease_is_no_unrest() -> None:
    quiet = [record("operator", "update", "leases", "eyas-operator", 1), record("operator", "list", "pods", "", 2)]
    assert writes([*quiet, record("player", "patch", "pods", VICTIM, 3)]) == 0
    assert writes([*quiet, record("operator", "patch", "secrets", "x", 3)]) == 1


def test_a_stretch_of_the_log_has_whole_lines_only(tmp_path: Path) -> None:
    log = AuditLog(tmp_path / "audit.log")
    assert log.mark() == 0
    (tmp_path / "audit.log").write_text('{"a":1}\n{"a":2}\n{"a"')
    assert list(log.since(len('{"a":1}\n'))) == [{"a": 2}]


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_quantiles(share: float, value: int) -> None:
    assert quantile([4, 3, 2, 1], share) == value
    assert quantile([], share) is None


@pytest.mark.parametrize("pods", [5, 6, 20])
def test_a_job_has_as_many_pods_as_are_asked_for(pods: int) -> None:
    body = job_body("job-7", pods) | {"metadata": {"name": "job-7", "namespace": "default", "uid": "0" * 32}}
    spec = parse(body).spec
    nodes = own_store_nodes(spec)
    assert nodes is not None
    assert 2 + nodes.replicas + producer_count(spec) + spec.consumers.replicas == pods
    assert job_stem(VICTIM) == "job-3-0123abcd"


def test_fewer_pods_than_a_job_must_have_are_refused() -> None:
    with pytest.raises(UserError, match="at least 5 pods"):
        benchmark_operator(jobs=2, pods=9, deaths=1, seconds=1)


@pytest.mark.apiserver
@pytest.mark.slow
def test_both_arms_are_measured_and_only_the_naive_one_asks_for_each_job() -> None:
    figures = json.loads(json.dumps(benchmark_operator(jobs=3, pods=21, deaths=3, seconds=12)))
    ours, naive = figures["ours"], figures["naive"]
    assert figures["pods"] == 21
    for arm in (ours, naive):
        assert arm["reaction"]["deaths"] == 3
        assert arm["reaction"]["unanswered"] == 0
        assert arm["reaction"]["p50Seconds"] <= arm["reaction"]["p99Seconds"]
        assert arm["rest"]["passes"] >= 3
    assert ours["rest"]["requests"] * 2 < naive["rest"]["requests"], "at rest nothing is asked about a job"
    assert 0 < figures["requestsRatio"] < 0.5
