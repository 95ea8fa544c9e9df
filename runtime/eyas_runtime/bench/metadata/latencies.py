"""What a commit and an ack cost: both arms on one disk, taking turns, beside the bare sync that neither can beat."""

import os
import statistics
from pathlib import Path

import msgspec

from eyas_contract import wire
from eyas_contract.ids import sample_id
from eyas_runtime.bench.metadata.job import GROUP, WINDOW, capture_group, commit_refs, open_store, reconcile
from eyas_runtime.bench.metadata.measuring import figures_of, seconds_of
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.bench import NaiveLedger


def latencies(folder: Path, samples: int) -> tuple[dict[str, object], dict[str, object]]:
    """Figures of commits and of acks over `samples` samples, both arms and their ratio."""
    store = open_store(folder / "ours.sqlite", samples)
    naive = NaiveLedger(folder / "naive.sqlite")
    batch: list[float] = []
    single: list[float] = []
    rows: list[float] = []
    for number in range(samples // GROUP):
        refs, lease = capture_group(store, number)
        text = msgspec.json.encode(refs[0]).decode()
        if number % 2:
            batch.append(seconds_of(lambda refs=refs, lease=lease: commit_refs(store, lease, refs)))  # type: ignore[misc]
        else:
            single += [seconds_of(lambda r=r, lease=lease: commit_refs(store, lease, [r])) for r in refs]  # type: ignore[misc]
        rows += [seconds_of(lambda r=r, text=text: naive.commit(r.sample_id, text)) for r in refs]  # type: ignore[misc]
    ours_acks, naive_acks = _acks(store, naive, samples)
    store.close()
    naive.close()
    commit: dict[str, object] = {
        "ours_group": figures_of(batch),
        "ours_single": figures_of(single),
        "naive_row": figures_of(rows),
        "ours_to_naive_a_sample": statistics.mean(batch) / GROUP / statistics.mean(rows),
    }
    ack: dict[str, object] = {
        "ours_window": figures_of(ours_acks),
        "naive_window": figures_of(naive_acks),
        "ours_to_naive": statistics.mean(ours_acks) / statistics.mean(naive_acks),
    }
    return commit, ack


def _acks(store: SQLiteMetadataStore, naive: NaiveLedger, samples: int) -> tuple[list[float], list[float]]:
    incarnation = reconcile(store, None, 1).incarnation
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
        ours.append(seconds_of(lambda request=request: store.record_train_ack(request, now=0.0)))  # type: ignore[misc]
        ids: list[str] = [sample_id(entry.sequence) for entry in order.entries]
        theirs.append(seconds_of(lambda ids=ids: _ack_rows(naive, ids)))  # type: ignore[misc]
    return ours, theirs


def _ack_rows(naive: NaiveLedger, ids: list[str]) -> None:
    for each in ids:
        naive.ack(each)


def bare_syncs(path: Path, count: int) -> list[float]:
    """What the disk takes for one page and one sync: the floor of any durable transaction."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        return [seconds_of(lambda: _write_and_sync(descriptor)) for _ in range(count)]
    finally:
        os.close(descriptor)


def _write_and_sync(descriptor: int) -> None:
    os.write(descriptor, bytes(4096))
    os.fdatasync(descriptor)
