"""The live screen of a run, and its plain lines where there is no terminal.

`View` is all that a screen shows; `lines()` and `screen()` are pure renderings of it, so that tests read them without
a terminal. Rates come from the service's own counters, never from log text.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from eyas_cli.incidents import IncidentNews, incident_line
from eyas_contract.states import Phase
from eyas_contract.wire import StatusReply
from eyas_operator.api.incidents import Incident

INCIDENTS_SHOWN = 6
_MIB = 1 << 20
PREPARING = "preparing the inputs"
RUNNING = "Running"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodLine:
    """One pod on the screen."""

    unit: str
    """For example `producer-1`."""
    state: str
    ready: bool
    restarts: int
    node: str
    why: str = ""
    """Why it does not run yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one moment of a run looks like."""

    name: str
    state: str
    attempt: int = 0
    roles: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Role to (ready, desired)."""
    status: StatusReply | None = None
    incidents: Sequence[Incident] = ()
    pods: Sequence[PodLine] = ()
    """Empty where there are processes instead."""
    notes: Sequence[str] = ()


def duration(seconds: float) -> str:
    """`95` to `1m 35s`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"


def remaining(status: StatusReply) -> str:
    """Time to the last step at the present rate, or an empty string without a rate or without a step to go."""
    if status.steps_per_second <= 0 or status.acked_step >= status.total_steps:
        return ""
    return duration((status.total_steps - status.acked_step) / status.steps_per_second)


def training(status: StatusReply, *, steady: bool) -> str:
    """Step, loss, acceptance and, while steps come steadily, time left, on one line."""
    parts = [f"step {status.acked_training_step}/{status.total_training_steps or '?'}"]
    metrics = status.last_metrics
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.4f}")
    if "acceptance_0" in metrics:
        parts.append(f"acceptance {metrics['acceptance_0']:.3f}")
    if "eval_loss" in metrics:
        parts.append(f"held-out loss {metrics['eval_loss']:.4f}")
    if status.best is not None:
        parts.append(f"best {status.best.eval_loss:.4f} at step {status.best.training_step}")
    if steady and (left := remaining(status)):
        parts.append(f"ETA {left}")
    return "  ".join(parts)


def capturing(status: StatusReply) -> str:
    """Samples captured, in the pool, trained and evaluated."""
    cap = f" of {_mebibytes(status.cap_bytes)}" if status.cap_bytes else ""
    pool = f"{_mebibytes(status.resident_bytes)}{cap} MiB"
    text = (
        f"captured {status.samples_committed}/{status.total_samples or '?'}  "
        f"in the pool {status.resident_objects} ({pool})  trained {status.samples_trained}"
    )
    text += f"  evaluated {status.samples_evaluated}" if status.samples_evaluated else ""
    return f"{text}  capture waits: {status.paused}" if status.paused else text


def _mebibytes(count: int) -> str:
    size = count / _MIB
    return f"{size:.1f}" if size < 10 else f"{size:.0f}"


def line(view: View) -> str:
    """One plain line for logs and pipes."""
    status = view.status
    if status is not None and status.total_steps:
        return f"{view.name} {view.state}  {training(status, steady=view.state == RUNNING)}  {capturing(status)}"
    waiting = ", ".join(role for role, (ready, desired) in view.roles.items() if ready < desired)
    doing = [PREPARING] if status is not None and status.phase is Phase.PREPARING else []
    doing += [f"waiting for {waiting}"] if waiting else []
    goes_on = doing and view.state not in ("Complete", "Failed", "Suspended")
    return f"{view.name} {view.state}" + (f": {'; '.join(doing)}" if goes_on else "")


def screen(view: View) -> RenderableType:
    """The live screen."""
    head = Text.assemble((view.name, "bold"), "  ", (view.state, "cyan"), f"  attempt {view.attempt}")
    rows: list[RenderableType] = [head]
    status = view.status
    if status is not None:
        if not status.exact:
            head.append(f"  not exact: {'; '.join(status.inexact_reasons)}", style="yellow")
        rows.append(_bars(view, status) if status.total_steps else Text(PREPARING))
    if any(desired for _, desired in view.roles.values()):
        rows.append(_roles(view.roles))
    if view.pods:
        rows.append(_pods(view.pods))
        rows.extend(Text(f"{pod.unit}: {pod.why}", style="yellow") for pod in view.pods if pod.why)
    rows.extend(Text(note, style="yellow") for note in view.notes)
    if view.incidents:
        rows.append(Text(f"incidents ({len(view.incidents)})", style="bold"))
        rows.extend(Text(f"  {incident_line(entry)}", style="red") for entry in view.incidents[-INCIDENTS_SHOWN:])
    return Group(*rows)


def _bars(view: View, status: StatusReply) -> RenderableType:
    bars = Table.grid(padding=(0, 2), expand=True)
    bars.add_column()
    bars.add_column(ratio=1)
    bars.add_column(ratio=3)
    samples, steps = status.total_samples or 1, status.total_steps
    bars.add_row("captured", ProgressBar(samples, status.samples_committed), capturing(status))
    text = training(status, steady=view.state == RUNNING)
    bars.add_row("trained", ProgressBar(steps, status.acked_step), text)
    durable = status.durable_training_step
    told = f"step {durable}" if durable >= 0 else f"window {status.durable_step} of {steps}"
    bars.add_row("durable", ProgressBar(steps, status.durable_step), told)
    return bars


def _pods(pods: Sequence[PodLine]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for head in ("pod", "state", "restarts", "node"):
        table.add_column(head, overflow="fold")
    for pod in pods:
        state = Text(pod.state, style="green" if pod.ready else "yellow")
        table.add_row(Text(pod.unit), state, Text(str(pod.restarts)), Text(pod.node or "-"))
    return table


def _roles(roles: Mapping[str, tuple[int, int]]) -> RenderableType:
    """Ready and desired pods of each role; a narrow screen breaks between roles."""
    counts = [
        Text(f"{role} {ready}/{desired}", style="green" if ready >= desired else "yellow")
        for role, (ready, desired) in roles.items()
    ]
    grid = Table.grid(padding=(0, 2))
    grid.add_row("roles   ", Columns(counts, padding=(0, 2)))
    return grid


class Progress:
    """Shows views as they come. A terminal gets a live screen; anything else gets a line when something moved."""

    def __init__(self, console: Console, *, quiet_seconds: float = 5.0) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False) if console.is_terminal else None
        self._quiet_seconds = quiet_seconds
        self._said = 0.0
        self._state = ""
        self._line = ""
        self._news = IncidentNews()

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, view: View) -> None:
        """Show `view`."""
        if self._live:
            self._live.update(screen(view))
            return
        for news in self._news.since_last(tuple(view.incidents)):
            self._console.print(news, highlight=False, soft_wrap=True, markup=False)
        now, text = time.monotonic(), line(view)
        if text != self._line and (view.state != self._state or now - self._said >= self._quiet_seconds):
            self._console.print(text, highlight=False, soft_wrap=True, markup=False)
            self._said, self._state, self._line = now, view.state, text
