"""What `eyas local status`, `logs` and `plot` show, from a run's files and its live service."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from eyas_cli.plot import draw
from eyas_cli.progress import View, screen
from eyas_cli.runs import Run
from eyas_contract.errors import UserError

FOLLOW_SECONDS = 0.3


def view_of(run: Run) -> View:
    """The present moment of a run."""
    status = run.typed_status()
    return View(
        name=run.name,
        state=status.state or "Pending",
        attempt=status.attempt,
        roles={role.name.value: (role.ready, role.desired) for role in status.roles},
        status=run.live_status() if run.processes() else None,
        incidents=status.incidents,
    )


def status_screen(workdir: Path, *, as_json: bool) -> None:
    """Print the status once."""
    run = Run(workdir)
    if as_json:
        print(json.dumps(run.resource_status(), indent=2))
        return
    console = Console()
    view, result = view_of(run), run.result()
    console.print(screen(view))
    if result:
        console.print(f"result    {result['state']}, {result['steps']} steps, weights {result['weightsSha256']}")
        if best := result.get("best"):
            console.print(f"best      step {best['step']}, held-out loss {best['evalLoss']:.4f}, {best['directory']}")
    elif not run.processes():
        console.print("nothing is running here; eyas local run with the same folder resumes it")


def draw_run(workdir: Path, output: Path | None) -> Path:
    """Draw the run's plot."""
    run = Run(workdir)
    return draw(run.name, run.metrics(), run.typed_status().incidents, output or workdir / "plot.png")


def print_logs(workdir: Path, role: str | None, tail: int, *, follow: bool) -> None:
    """Print the last lines of the role's logs, then, if asked, what comes."""
    folder = Run(workdir).workdir / "logs"
    files = [path for path in sorted(folder.glob("*.log")) if role is None or _is_of(path.stem, role)]
    if not files:
        known = ", ".join(path.stem for path in sorted(folder.glob("*.log"))) or "none"
        raise UserError(f"no log of {role or 'any role'} in {folder}; there are: {known}")
    width = max(len(path.stem) for path in files)
    positions: dict[Path, int] = {}
    for path in files:
        lines = path.read_text(errors="replace").splitlines()
        positions[path] = path.stat().st_size
        for line in lines[-tail:] if tail > 0 else []:
            print(f"{path.stem:<{width}}  {line}")
    while follow:
        for path in files:
            for line in _news(path, positions):
                print(f"{path.stem:<{width}}  {line}", flush=True)
        time.sleep(FOLLOW_SECONDS)


def _is_of(stem: str, role: str) -> bool:
    return stem == role or stem.rpartition("-")[0] == role


def _news(path: Path, positions: dict[Path, int]) -> Iterator[str]:
    """Complete lines that were appended since the last look."""
    with path.open("rb") as file:
        file.seek(positions[path])
        fresh = file.read()
    complete = fresh[: fresh.rfind(b"\n") + 1]
    positions[path] += len(complete)
    yield from complete.decode(errors="replace").splitlines()
