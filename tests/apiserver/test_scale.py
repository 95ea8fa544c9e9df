"""Many jobs on one replica: it starts, answers deaths, asks for nothing at rest, and its memory stays where it is.

`EYAS_SCALE=500x10000` (jobs x pods) runs these tests at full size; without it they take seconds, not minutes.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from eyas_cli.bench.operator.audit import AuditLog, reactions, requests
from eyas_cli.bench.operator.control_plane import ControlPlane, control_plane
from eyas_cli.bench.operator.measure import build, settle
from eyas_cli.bench.operator.player import Player
from eyas_cli.bench.operator.services import services
from eyas_cli.bench.operator.subject import Subject, subject
from support.waiting import wait_until

pytestmark = [pytest.mark.apiserver, pytest.mark.slow]
JOBS, PODS = map(int, os.environ.get("EYAS_SCALE", "25x500").split("x"))
PAGE = 500
PATIENCE = 600
SPARE_BYTES = 48 << 20
"""What allocators keep and metrics of new pods cost, whatever the size of the world."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """An API server."""
    with control_plane(tmp_path_factory.mktemp("scale") / "plane") as started:
        yield started


@pytest.fixture(scope="module")
def player(plane: ControlPlane) -> Iterator[Player]:
    """Whoever is not the operator; all pods run when it comes."""
    with services() as played:
        found = Player(plane, played)
        try:
            build(plane, found, JOBS, PODS)
            yield found
        finally:
            found.close()


def everything_was_looked_at(operator: Subject) -> None:
    wait_until(operator.ready, "the replica leads and has listed everything", seconds=PATIENCE)
    wait_until(lambda: operator.read().passes >= JOBS, "every job had a pass", seconds=PATIENCE)


def lists_of_everything() -> int:
    """Requests of one list of all kinds: jobs, pods, claims, and four kinds of which a job has a few."""
    return 7 + sum(count // PAGE for count in (JOBS, PODS, 2 * JOBS, 4 * JOBS, JOBS, 6 * JOBS, 3 * JOBS))


def test_a_start_lists_everything_and_asks_for_no_single_job(plane: ControlPlane, player: Player) -> None:
    log = AuditLog(plane.audit_log)
    mark = log.mark()
    with subject(plane, "starts", "eyas_operator") as operator:
        everything_was_looked_at(operator)
        assert player.pods() == PODS
        assert operator.read().errors == 0
        records = list(log.since(mark))
    assert not [it for it in records if asks(it, "get", "disaggtrainingjobs")], "a job at rest was read by itself"
    streams = 2 * 7
    leases = [it for it in records if asks(it, "get", "leases") or asks(it, "update", "leases")]
    # kopf lists once more before it watches, and asks what kinds there are.
    assert requests(records) - len(leases) <= 2 * lists_of_everything() + streams + 10


def test_every_death_is_answered(plane: ControlPlane, player: Player) -> None:
    with subject(plane, "answers", "eyas_operator") as operator:
        everything_was_looked_at(operator)
        log = AuditLog(plane.audit_log)
        mark, victims = log.mark(), player.producers()[:JOBS]
        for victim in victims:
            player.crash(victim)
        wait_until(
            lambda: len(reactions(log.since(mark), victims)) == len(victims),
            lambda: f"{len(reactions(log.since(mark), victims))} of {len(victims)} deaths are answered",
            seconds=PATIENCE,
        )
        wait_until(lambda: player.start_pending() == 0 and player.pods() == PODS, "successors run", seconds=PATIENCE)
        settle(plane)
        assert player.pods() == PODS
        assert operator.read().errors == 0


def test_lists_and_deaths_leave_no_memory_behind(plane: ControlPlane, player: Player) -> None:
    with subject(plane, "lists", "eyas_operator", RELIST_SECONDS="1") as operator:
        everything_was_looked_at(operator)
        log = AuditLog(plane.audit_log)

        def listed(times: int) -> None:
            mark = log.mark()
            wait_until(
                lambda: sum(asks(it, "list", "disaggtrainingjobs") for it in log.since(mark)) >= times,
                f"{times} lists of all jobs",
                seconds=PATIENCE,
            )

        listed(3)
        before = operator.peak_bytes()
        for victim in player.producers()[-JOBS:]:
            player.crash(victim)
        wait_until(lambda: player.start_pending() == 0 and player.pods() == PODS, "successors run", seconds=PATIENCE)
        listed(10)
        assert operator.peak_bytes() <= before + before // 4 + SPARE_BYTES


def asks(record: dict[str, Any], verb: str, resource: str) -> bool:
    return record["verb"] == verb and record.get("objectRef", {}).get("resource") == resource
