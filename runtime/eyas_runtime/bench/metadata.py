"""`eyas bench metadata`: what durable commits and acks cost, and how long a restart takes with a million refs.

Two arms on one disk, taking turns: *ours* (a transaction for each capture group and each ack) and *naive* (the ledger
that comes to mind first, one transaction for each row, reconciled ref by ref). Both sync the disk at every transaction.
Times are seconds, sizes bytes. Peak memory is this process's, measured from the moment before the call.
"""

import os
import statistics
import tempfile
import time
import traceback
from array import array
from base64 import b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Bug, UserError
from eyas_contract.ids import Incarnation, JobUid, LeaseToken, sample_id
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_runtime.metadata.port import JobFacts, LeaseGrant
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.bench import SPECS, NaiveLedger, fill

GROUP: Final = 16
WINDOW: Final = 64
JOB: Final = JobUid("benchmeta0000")
HOLDER: Final = wire.Holder(index=0, ordinal=1, restart=0)
FINGERPRINT: Final = wire.Fingerprint(facts={}, digest="blake3:bench")
SAMPLES_MIN: Final = 4 * WINDOW
_FEATURES: Final = msgspec.json.decode(SPECS, type=tuple[FeatureSpec, ...])
_PEAK: Final = Path("/proc/self/status")
_RESET: Final = Path("/proc/self/clear_refs")
Figures = dict[str, float]


def benchmark_metadata(
    *, folder: str | Path | None = None, samples: int = 2048, refs: Sequence[int] = (50_000, 200_000, 1_000_000)
) -> dict[str, object]:
    """Latencies of commits and acks over `samples` samples, and reconcile times over each count of `refs`.

    `folder` is where the databases are made (the disk that is measured); None: the system's temporary folder. Returns
    `disk_sync` (the floor), `commit` and `ack` (p50 and p99 of both arms, and the ratio of ours to naive for equally
    many samples) and `reconcile` (seconds and peak bytes a case and a count).
    """
    if samples < SAMPLES_MIN or any(count < SAMPLES_MIN for count in refs):
        raise UserError(f"at least {SAMPLES_MIN} samples and refs are needed for figures that say something")
    with tempfile.TemporaryDirectory(dir=folder, prefix="eyas-bench-") as scratch:
        disk = _figures(_bare_syncs(Path(scratch) / "disk", 256))
        commit, ack = _latencies(Path(scratch), samples - samples % WINDOW)
        cases = {str(count): _reconciles(Path(scratch), count) for count in refs}
    shape = {"samples": samples, "group": GROUP, "window": WINDOW, "cores": os.cpu_count()}
    return shape | {"disk_sync": disk, "commit": commit, "ack": ack, "reconcile": cases}


# --- latencies -----------------------------------------------------------------------------------------------------


def _latencies(folder: Path, samples: int) -> tuple[dict[str, object], dict[str, object]]:
    store = _open(folder / "ours.sqlite", samples)
    naive = NaiveLedger(folder / "naive.sqlite")
    batch: list[float] = []
    single: list[float] = []
    rows: list[float] = []
    for number in range(samples // GROUP):
        refs, lease = _captured(store, number)
        text = msgspec.json.encode(refs[0]).decode()
        if number % 2:
            batch.append(_seconds(lambda refs=refs, lease=lease: _commit(store, lease, refs)))  # type: ignore[misc]
        else:
            single += [_seconds(lambda r=r, lease=lease: _commit(store, lease, [r])) for r in refs]  # type: ignore[misc]
        rows += [_seconds(lambda r=r, text=text: naive.commit(r.sample_id, text)) for r in refs]  # type: ignore[misc]
    ours_acks, naive_acks = _acks(store, naive, samples)
    store.close()
    naive.close()
    commit: dict[str, object] = {
        "ours_group": _figures(batch),
        "ours_single": _figures(single),
        "naive_row": _figures(rows),
        "ours_to_naive_a_sample": statistics.mean(batch) / GROUP / statistics.mean(rows),
    }
    ack: dict[str, object] = {
        "ours_window": _figures(ours_acks),
        "naive_window": _figures(naive_acks),
        "ours_to_naive": statistics.mean(ours_acks) / statistics.mean(naive_acks),
    }
    return commit, ack


def _acks(store: SQLiteMetadataStore, naive: NaiveLedger, samples: int) -> tuple[list[float], list[float]]:
    incarnation = _reconcile(store, None, 1).incarnation
    ours: list[float] = []
    theirs: list[float] = []
    for step in range(1, samples // WINDOW + 1):
        order = store.give_train_order(incarnation, step - 1, step, now=0.0)
        request = wire.AckRequest(
            incarnation=incarnation,
            step=step,
            version=order.version,
            verdicts=(),
            metrics={"loss": 1.0, "learning_rate": 1e-4, "grad_norm": 0.5, "step_seconds": 0.4},
        )
        ours.append(_seconds(lambda request=request: store.record_train_ack(request, now=0.0)))  # type: ignore[misc]
        ids: list[str] = [sample_id(entry.sequence) for entry in order.entries]
        theirs.append(_seconds(lambda ids=ids: _ack_rows(naive, ids)))  # type: ignore[misc]
    return ours, theirs


def _ack_rows(naive: NaiveLedger, ids: list[str]) -> None:
    for each in ids:
        naive.ack(each)


def _bare_syncs(path: Path, count: int) -> list[float]:
    """What the disk takes for one page and one sync: the floor of any durable transaction."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return [_seconds(lambda: _write_and_sync(descriptor)) for _ in range(count)]
    finally:
        os.close(descriptor)


def _write_and_sync(descriptor: int) -> None:
    os.write(descriptor, bytes(4096))
    os.fdatasync(descriptor)


def _captured(store: SQLiteMetadataStore, number: int) -> tuple[list[SampleRef], wire.CaptureLease]:
    lease = store.grant(
        LeaseGrant(
            holder=HOLDER,
            request_id=f"r{number}",
            group=number,
            lease_id=f"l{number}",
            token=LeaseToken(f"t{number}"),
            randoms=tuple(f"{number * GROUP + place:032x}" for place in range(GROUP)),
            reserved_bytes=1,
            term_seconds=30.0,
            deadline_seconds=600.0,
        ),
        now=0.0,
    )
    refs = [
        SampleRef(
            sample_id=task.sample_id,
            sequence=task.sequence,
            key=task.key,
            generation=task.generation,
            digest=f"blake3:{task.sequence:064x}",
            payload_digest=f"blake3:{task.sequence:064x}",
            length=4_000_000,
            num_tokens=task.num_tokens,
            num_supervised=300,
            feature_specs=_FEATURES,
        )
        for task in lease.tasks
        if task.key is not None
    ]
    return refs, lease


def _commit(store: SQLiteMetadataStore, lease: wire.CaptureLease, refs: list[SampleRef]) -> None:
    store.commit_samples(HOLDER, lease.lease_id, lease.token, refs, now=0.0)


# --- reconcile -----------------------------------------------------------------------------------------------------


def _reconciles(folder: Path, count: int) -> dict[str, Figures]:
    """A crash, a step back over half of the samples, a lost volume; and the row loop over as many refs, half acked."""
    half, whole = count // WINDOW // 2, count // WINDOW
    path, empty, ledger = (folder / f"{count}-{name}.sqlite" for name in ("ours", "empty", "naive"))

    def prepare() -> Figures:
        store = _open(path, count)
        fill(store, refs=count, durable_step=half)
        _reconcile(store, _present(half), 1)
        store.close()
        naive = NaiveLedger(ledger)
        naive.fill(count, count // 2, msgspec.json.encode(_example()).decode())
        naive.close()
        return {}

    def ours(where: Path, shown: wire.PresentedCheckpoint | None, attempt: int) -> Figures:
        store = _open(where, count)
        figures = _measured(lambda: _reconcile(store, shown, attempt))
        store.close()
        return figures

    def theirs() -> Figures:
        naive = NaiveLedger(ledger)
        figures = _measured(naive.reconcile)
        naive.close()
        return figures

    _alone(prepare)
    found = {
        "crash": _alone(lambda: ours(path, _present(half), 2)),
        "step_back": _alone(lambda: ours(path, None, 3)),
        "older_rows": _alone(lambda: ours(path, _present(whole, attempt=4), 4)),
        "lost_volume": _alone(lambda: ours(empty, _present(whole), 5)),
        "naive_crash": _alone(theirs),
    }
    for file in folder.glob(f"{count}-*"):
        file.unlink()
    return found


def _alone(call: Callable[[], Figures]) -> Figures:
    """The figures of `call` in a process of its own, so that no case sees the memory of another."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            os.write(writer, msgspec.json.encode(call()))
            code = 0
        except Exception:  # noqa: BLE001 the top frame of the child
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        raw = answer.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise Bug("a case of the metadata benchmark failed in its process; its traceback is above")
    return msgspec.json.decode(raw, type=Figures)


def _reconcile(store: SQLiteMetadataStore, shown: wire.PresentedCheckpoint | None, attempt: int) -> wire.ReconcileReply:
    request = wire.ReconcileRequest(
        attempt=attempt, world_size=1, process=f"p{attempt}", fingerprint=FINGERPRINT, checkpoint=shown
    )
    return store.reconcile_on_restart(request, Incarnation(f"{attempt:032x}"), receipt_valid=True, now=0.0)


def _present(step: int, *, attempt: int = 1) -> wire.PresentedCheckpoint:
    state = wire.CheckpointState(
        job_uid=JOB,
        store_epoch=1,
        step=step,
        inputs=None,
        dead_letters=(),
        capture_fingerprint="",
        inexact_reasons=(),
        generation_floor=0,
        attempt=attempt,
    )
    return wire.PresentedCheckpoint(
        directory=f"step-{step:09d}.a{attempt}.{attempt:08x}",
        step=step,
        store_epoch=1,
        attempt=attempt,
        incarnation=Incarnation(f"{attempt:032x}"),
        manifest_digest=f"blake3:{attempt}-{step}",
        receipt="",
        state=state,
    )


def _open(path: Path, count: int) -> SQLiteMetadataStore:
    facts = JobFacts(
        job_uid=JOB,
        store_epoch=1,
        window_size=WINDOW,
        group_size=GROUP,
        epochs=1,
        max_steps=None,
        seed=1,
        retain_objects=False,
        allow_restart_from_zero=True,
    )
    store = SQLiteMetadataStore(path, facts)
    zeros = {kind: b64encode(array(kind, bytes(count * array(kind).itemsize)).tobytes()).decode() for kind in "HQI"}
    inputs = wire.Inputs(data="", tokenizer="", template="", target="")
    store.commit_prepared(
        wire.Prepared(
            inputs=inputs,
            prompt_count=count,
            file_indices=zeros["H"],
            offsets=zeros["Q"],
            token_counts=zeros["I"],
            supervised_counts=zeros["I"],
            draft_to_target="",
            target_vocab_size=32000,
            hidden_size=896,
            bytes_per_token=7168,
            bytes_per_sample=4096,
        ),
        now=0.0,
    )
    store.register(HOLDER, FINGERPRINT, now=0.0)
    return store


def _example() -> SampleRef:
    key = f"eyas.{JOB}.e1.g1.{0:032x}"
    return msgspec.convert(
        {
            "sample_id": sample_id(0),
            "sequence": 0,
            "key": key,
            "generation": 1,
            "digest": "blake3:" + "0" * 64,
            "payload_digest": "blake3:" + "0" * 64,
            "length": 4_000_000,
            "num_tokens": 512,
            "num_supervised": 300,
            "feature_specs": msgspec.to_builtins(_FEATURES),
        },
        type=SampleRef,
    )


# --- measuring -----------------------------------------------------------------------------------------------------


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _measured(call: Callable[[], object]) -> Figures:
    """Seconds of wall and processor time (a busy machine stretches the first), and what the call added at its peak."""
    _RESET.write_text("5")
    before, processor = _peak_bytes(), time.process_time()
    seconds = _seconds(call)
    return {
        "seconds": seconds,
        "processor_seconds": time.process_time() - processor,
        "peak_bytes": float(_peak_bytes()),
        "added_peak_bytes": float(_peak_bytes() - before),
    }


def _peak_bytes() -> int:
    line = next(line for line in _PEAK.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _figures(values: list[float]) -> Figures:
    ordered = sorted(values)
    return {
        "p50_seconds": ordered[len(ordered) // 2],
        "p99_seconds": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
        "mean_seconds": statistics.mean(ordered),
        "count": float(len(ordered)),
    }
