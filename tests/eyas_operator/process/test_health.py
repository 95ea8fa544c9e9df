"""Probes: what makes a restart useful, and what makes a process ready."""

from dataclasses import replace

import pytest

from eyas_operator.process.health import Vitals, illness, unreadiness

LEADER = Vitals(
    leading=True, synced=True, lease_try_age=1.0, lease_look_age=1.0, oldest_pass=1.0, relist_age=10.0,
    relist_seconds=60.0, stale_relists=0,
)  # fmt: skip
CANDIDATE = replace(LEADER, leading=False, synced=False)


def test_a_leader_and_a_candidate_that_do_their_part_are_healthy_and_ready() -> None:
    for vitals in (LEADER, CANDIDATE):
        assert illness(vitals) == unreadiness(vitals) == ""


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("lease_try_age", 61.0, "lease"),
        ("oldest_pass", 200.0, "pass"),
        ("relist_age", 301.0, "list of everything"),
        ("stale_relists", 5, "streams"),
    ],
)
def test_each_way_of_being_stuck_is_named(field: str, value: float, word: str) -> None:
    assert word in illness(replace(LEADER, **{field: value}))
    assert word in unreadiness(replace(LEADER, **{field: value}))


def test_a_candidate_is_not_judged_by_what_only_a_leader_does() -> None:
    assert illness(replace(CANDIDATE, relist_age=1e6, oldest_pass=1e6)) == ""


def test_an_api_server_that_is_away_makes_nobody_sick_but_a_candidate_unready() -> None:
    away = replace(CANDIDATE, lease_look_age=100.0)
    assert illness(away) == ""
    assert "seen" in unreadiness(away)


def test_a_leader_is_ready_only_when_it_has_seen_everything() -> None:
    assert illness(replace(LEADER, synced=False)) == ""
    assert "first list" in unreadiness(replace(LEADER, synced=False))
