"""Admission by bytes: order of the rules, and that a full pool always gives way to the next window."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_runtime.core.pressure import View, decide, effective_cap

CALM = View(
    cap_bytes=1000,
    limit_bytes=1000,
    resident_bytes=0,
    garbage_bytes=0,
    kept_bytes=0,
    reserved_bytes=0,
    window_bytes=200,
    largest_group_bytes=100,
    next_window_end=8,
    group_first_sequence=20,
    group_bytes=100,
    group_end=24,
    evictable_bytes=0,
    checkpoint_frees_bytes=0,
    checkpoint_pending=False,
)
URGENT = replace(CALM, group_first_sequence=4, group_end=8)


def test_nothing_in_need_is_idle() -> None:
    assert decide(replace(CALM, group_first_sequence=None)).kind == "idle"


def test_reserve_is_left_for_the_next_window() -> None:
    assert decide(replace(CALM, resident_bytes=600)).kind == "lease"
    assert decide(replace(CALM, resident_bytes=601)).kind == "wait"
    assert decide(replace(CALM, resident_bytes=301, reserved_bytes=300)).kind == "wait"


def test_next_window_may_use_the_reserve() -> None:
    assert decide(replace(URGENT, resident_bytes=900)).kind == "lease"
    assert decide(replace(URGENT, resident_bytes=901)).kind != "lease"


def test_bytes_that_are_being_deleted_are_waited_for() -> None:
    view = replace(URGENT, resident_bytes=950, garbage_bytes=100, kept_bytes=50, checkpoint_frees_bytes=500)
    assert decide(view).kind == "wait"


def test_objects_of_later_epochs_go_before_anything_is_forced() -> None:
    for view in (CALM, URGENT):
        decision = decide(replace(view, resident_bytes=990, kept_bytes=40, checkpoint_frees_bytes=500))
        assert (decision.kind, decision.nbytes, decision.above_sequence) == ("evict", 40, view.group_end)


def test_checkpoint_is_ordered_before_anything_is_evicted() -> None:
    view = replace(URGENT, resident_bytes=990, checkpoint_frees_bytes=500, evictable_bytes=400)
    assert decide(view).kind == "checkpoint"
    assert decide(replace(view, checkpoint_pending=True)).kind == "wait"
    after = decide(replace(view, checkpoint_frees_bytes=0))
    assert (after.kind, after.nbytes, after.above_sequence) == ("evict", 90, 8)


def test_far_groups_wait_and_force_nothing() -> None:
    assert decide(replace(CALM, resident_bytes=990, checkpoint_frees_bytes=500, evictable_bytes=400)).kind == "wait"


def test_window_that_can_never_fit_is_said_with_what_to_change() -> None:
    decision = decide(replace(URGENT, resident_bytes=950))
    assert decision.kind == "impossible"
    assert "maxResidentBytes" in decision.reason
    assert decide(replace(URGENT, resident_bytes=850, reserved_bytes=100)).kind == "wait"


@pytest.mark.parametrize("left", [0, 60])
def test_window_that_fits_when_the_pool_is_whole_again_is_waited_for(left: int) -> None:
    decision = decide(replace(URGENT, cap_bytes=left))
    assert (decision.kind, decision.reason) == ("wait", f"the store holds {left} of 1000 bytes now")
    assert decide(replace(URGENT, cap_bytes=left, limit_bytes=99)).kind == "impossible"


SIZES = st.integers(0, 2000)


@given(
    resident=SIZES, garbage=SIZES, kept=SIZES, reserved=SIZES, frees=SIZES, evictable=SIZES, need=st.integers(1, 500),
    pending=st.booleans(), urgent=st.booleans(),
)  # fmt: skip
def test_whatever_is_leased_fits_under_the_cap(
    resident: int, garbage: int, kept: int, reserved: int, frees: int, evictable: int, need: int, pending: bool,
    urgent: bool,
) -> None:  # fmt: skip
    view = replace(
        URGENT if urgent else CALM,
        resident_bytes=resident,
        garbage_bytes=min(garbage, resident),
        kept_bytes=min(kept, resident),
        reserved_bytes=reserved,
        group_bytes=need,
        evictable_bytes=evictable,
        checkpoint_frees_bytes=frees,
        checkpoint_pending=pending,
    )
    decision = decide(view)
    fits = resident + reserved + need <= view.cap_bytes
    if decision.kind == "lease":
        assert fits
    if urgent:
        assert decision.kind == "lease" or not fits
    if decision.kind == "evict":
        assert decision.nbytes > 0
        assert decision.above_sequence >= view.group_end


@pytest.mark.parametrize(
    ("spec", "capacity", "external", "cap"),
    [(100, None, False, 100), (100, 1000, False, 100), (1000, 1000, False, 750), (1000, 400, False, 300),
     (1000, 400, True, 1000)],
    ids=["no-pool", "small-spec", "three-quarters", "node-died", "external"],
)  # fmt: skip
def test_cap_follows_what_the_pool_has_now(spec: int, capacity: int | None, external: bool, cap: int) -> None:
    assert effective_cap(spec_bytes=spec, pool_capacity_bytes=capacity, external=external) == cap
