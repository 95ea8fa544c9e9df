"""`eyas local run`: the local operator with a screen in front and the curves kept beside it.

A thread of its own copies the training metrics from the service into the run's folder, so that neither the screen nor
a service that is away can hold up a pass of the operator.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from eyas_cli.progress import Progress, View
from eyas_cli.runs import Run
from eyas_contract.errors import EyasError
from eyas_contract.exits import Exit
from eyas_contract.words import counted
from eyas_operator.api.status import JobStatus
from eyas_operator.backends.local.run import RunEvent, local_run

METRICS_SECONDS = 1.0


def run_job(job: Path, workdir: Path, volumes: Mapping[str, Path]) -> int:
    """Run to the end; returns the exit code of `docs/exit-codes.md`."""
    console = Console()
    events = _Screen(workdir, console)
    try:
        with events.progress, _keep_metrics(workdir):
            code = local_run(job, workdir, volumes=volumes, on_event=events.show)
    except OSError as error:
        # Some calls of the system name no file; what is full is then the folder of the run.
        raise error if error.filename else OSError(error.errno, error.strerror, str(workdir)) from error
    _say_end(console, workdir, code, already=events.already)
    return code


class _Screen:
    """Turns events of the operator into views."""

    def __init__(self, workdir: Path, console: Console) -> None:
        self.progress = Progress(console)
        self.already = False
        self._workdir = workdir

    def show(self, event: RunEvent) -> None:
        self.already = event.already_complete
        self.progress.show(view(Run(self._workdir).name, event.status, event))


def view(name: str, status: JobStatus, event: RunEvent) -> View:
    """What the screen shows after a pass."""
    return View(
        name=name,
        state=status.state or "Pending",
        attempt=status.attempt,
        roles={role.name.value: (role.ready, role.desired) for role in status.roles},
        status=event.report,
        incidents=status.incidents,
    )


@contextlib.contextmanager
def _keep_metrics(workdir: Path) -> Iterator[None]:
    """Copy metrics while the block runs, and once more at its end."""
    ended = threading.Event()

    def copy() -> None:
        newest = 0
        while not ended.wait(METRICS_SECONDS):
            with contextlib.suppress(OSError):
                if (workdir / "job.yaml").exists():
                    newest = Run(workdir).record_metrics(newest)

    thread = threading.Thread(target=copy, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        # The service is gone by now, perhaps before the last copy; what it wrote is not.
        with contextlib.suppress(OSError, EyasError):
            if (workdir / "job.yaml").exists():
                Run(workdir).record_rest()


def _say_end(console: Console, workdir: Path, code: int, *, already: bool) -> None:
    """The last lines: what came out and where it lies."""
    result = Run(workdir).result()
    if code == Exit.TEMPORARY or not result:
        console.print(f"stopped; the same command with --workdir {workdir} goes on", highlight=False, soft_wrap=True)
        return
    if already:
        console.print(f"{workdir} had ended before: {result['state']}; nothing was started", highlight=False)
    for line in end_lines(workdir, result):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if result.get("reason"):
        print(result["reason"], file=sys.stderr)


def end_lines(workdir: Path, result: Mapping[str, Any]) -> list[str]:
    """What came out. Whether the weights are exact is said of weights that there are."""
    complete = bool(result["weightsSha256"])
    exact = (" (exact)" if result["exact"] else " (not exact)") if complete else ""
    restarts = sum(incident.get("outcome") == "Recovered" for incident in result["incidents"])
    count = len(result["incidents"])
    incidents = counted(count, "incident") + (f" ({restarts} recovered)" if count else "")
    evaluated = f"{result['samplesEvaluated']} evaluated, " if result.get("samplesEvaluated") else ""
    lines = [
        f"{result['state']}{exact} after {result['wallSeconds']:.0f} s: {counted(result['steps'], 'step')}, "
        f"{counted(result['samplesTrained'], 'sample')} trained, {evaluated}"
        f"{result['samplesLostAndRecaptured']} captured again, "
        f"{counted(result['samplesDeadLettered'], 'dead letter')}, {incidents}",
    ]
    lines += [f"weights  {result['weightsSha256']}"] if complete else []
    return [*lines, f"result   {workdir / 'result.json'}"]
