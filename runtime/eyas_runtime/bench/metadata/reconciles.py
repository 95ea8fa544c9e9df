"""How long a restart takes: reconciles of both arms over as many refs, each case in a process of its own."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from eyas_contract import wire
from eyas_contract.errors import Bug
from eyas_runtime.bench.metadata.job import WINDOW, example_ref, open_store, present, reconcile
from eyas_runtime.bench.metadata.measuring import Figures, measured
from eyas_runtime.metadata.sqlite.bench import NaiveLedger, fill


def reconciles(folder: Path, count: int) -> dict[str, Figures]:
    """A crash, a step back over half of the samples, a lost volume; and the row loop over as many refs, half acked."""
    half, whole = count // WINDOW // 2, count // WINDOW
    path, empty, ledger = (folder / f"{count}-{name}.sqlite" for name in ("ours", "empty", "naive"))

    def prepare() -> Figures:
        store = open_store(path, count)
        fill(store, refs=count, durable_step=half)
        reconcile(store, present(half), 1)
        store.close()
        naive = NaiveLedger(ledger)
        naive.fill(count, count // 2, msgspec.json.encode(example_ref()).decode())
        naive.close()
        return {}

    def ours(where: Path, shown: wire.PresentedCheckpoint | None, attempt: int) -> Figures:
        store = open_store(where, count)
        figures = measured(lambda: reconcile(store, shown, attempt))
        store.close()
        return figures

    def theirs() -> Figures:
        naive = NaiveLedger(ledger)
        figures = measured(naive.reconcile)
        naive.close()
        return figures

    _alone(prepare)
    found = {
        "crash": _alone(lambda: ours(path, present(half), 2)),
        "step_back": _alone(lambda: ours(path, None, 3)),
        "older_rows": _alone(lambda: ours(path, present(whole, attempt=4), 4)),
        "lost_volume": _alone(lambda: ours(empty, present(whole), 5)),
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
