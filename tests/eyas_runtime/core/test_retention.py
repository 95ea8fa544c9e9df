"""What may be deleted: never the newest kept ones, never what somebody may still need."""

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.ids import JobUid, object_key
from eyas_runtime.core.retention import RecordedCheckpoint, garbage_checkpoints, sweep_candidates, sweepable

State = Literal["listed", "committed", "struck"]


def _row(step: int, state: State = "committed", name: str = "", best: str = "") -> RecordedCheckpoint:
    name = name or f"{state}-{step}"
    return RecordedCheckpoint(directory=name, step=step, store_epoch=1, state=state, best_directory=best)


def test_newest_committed_ones_are_kept() -> None:
    rows = [_row(step) for step in (10, 20, 30, 40)]
    assert garbage_checkpoints(rows, keep=2, durable_step=40, in_use=()) == ("committed-10", "committed-20")
    assert garbage_checkpoints(rows, keep=9, durable_step=40, in_use=()) == ()
    assert garbage_checkpoints(rows, keep=0, durable_step=40, in_use=())[-1] == "committed-30"


def test_what_is_loaded_now_is_spared() -> None:
    rows = [_row(step) for step in (10, 20, 30)]
    assert garbage_checkpoints(rows, keep=1, durable_step=30, in_use={"committed-10"}) == ("committed-20",)


def test_best_one_as_of_any_kept_one_is_spared_and_no_other() -> None:
    rows = [_row(10), _row(20, best="committed-20"), _row(30, best="committed-20"), _row(40, best="committed-30")]
    assert garbage_checkpoints(rows, keep=1, durable_step=40, in_use=()) == ("committed-10", "committed-20")
    assert garbage_checkpoints(rows, keep=2, durable_step=40, in_use=()) == ("committed-10",)


def test_best_one_of_a_restored_store_is_spared_although_its_commit_is_not_on_record() -> None:
    rows = [_row(10, "listed"), _row(20, "listed"), _row(40, best="listed-10")]
    assert garbage_checkpoints(rows, keep=1, durable_step=40, in_use=()) == ("listed-20",)


def test_struck_goes_as_soon_as_a_commit_stands_and_not_before() -> None:
    rows = [_row(50, "struck")]
    assert garbage_checkpoints(rows, keep=3, durable_step=0, in_use=()) == ()
    assert garbage_checkpoints([*rows, _row(20)], keep=3, durable_step=20, in_use=()) == ("struck-50",)


def test_stray_directory_goes_when_enough_newer_commits_stand() -> None:
    stray = _row(15, "listed")
    assert garbage_checkpoints([stray, _row(20)], keep=2, durable_step=20, in_use=()) == ()
    assert garbage_checkpoints([stray, _row(20), _row(30)], keep=2, durable_step=30, in_use=()) == ("listed-15",)
    above = _row(40, "listed")
    assert garbage_checkpoints([above, _row(20), _row(30)], keep=1, durable_step=30, in_use=()) == ("committed-20",)


@given(
    rows=st.lists(st.tuples(st.integers(1, 9), st.sampled_from(["listed", "committed", "struck"])), max_size=9),
    keep=st.integers(0, 4),
    durable=st.integers(0, 9),
)
def test_newest_kept_are_never_garbage(rows: list[tuple[int, State]], keep: int, durable: int) -> None:
    recorded = [_row(step, state, f"d{number}") for number, (step, state) in enumerate(rows)]
    garbage = garbage_checkpoints(recorded, keep=keep, durable_step=durable, in_use=())
    line = sorted((r for r in recorded if r.state == "committed" and r.step <= durable), key=lambda r: r.step)
    assert not {r.directory for r in line[-max(keep, 1) :]} & set(garbage) or len({r.step for r in line}) < len(line)
    survivors = [r for r in line if r.directory not in garbage]
    assert len(survivors) >= min(max(keep, 1), len(line))
    assert all(r.step <= durable or r.state == "struck" for r in recorded if r.directory in garbage)


def test_sweep_looks_at_keys_of_this_job_and_of_no_newer_epoch() -> None:
    mine, other = JobUid("testjob0001"), JobUid("otherjob001")
    keys = [object_key(job, epoch, 1, f"{epoch:032x}") for job in (mine, other) for epoch in (1, 2, 3)]
    listed = [*keys, "eyas.testjob0001.rubbish", "../../etc/passwd", "notes.txt"]
    assert sweep_candidates(listed, job_uid=mine, store_epoch=2) == (keys[0], keys[1])


def test_sweep_spares_what_is_live() -> None:
    keys = [object_key(JobUid("testjob0001"), 1, number, f"{number:032x}") for number in (1, 2)]
    assert sweepable(keys, frozenset(keys[:1])) == (keys[1],)
