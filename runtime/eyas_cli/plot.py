"""The plot of a run: loss and acceptance over steps, with every incident marked where it happened.

matplotlib is imported inside the function: the command line must answer `--help` at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eyas_contract.errors import UserError
from eyas_contract.wire import StepMetrics
from eyas_operator.api.incidents import Incident

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_INK = "#1f2937"
_LOSS = "#2563eb"
_ACCEPTANCE = "#059669"
_INCIDENT = "#dc2626"
_INCIDENT_LABELS_MAX = 12
"""More labels than this cannot be read; the rest keep their line."""


def draw(name: str, steps: Sequence[StepMetrics], incidents: Sequence[Incident], output: Path) -> Path:
    """Write a PNG of loss (left axis) and acceptance rate of the first unrolled step (right axis) over steps.

    Raises `UserError` when no step has been trained yet.
    """
    trained = [entry for entry in steps if not entry.evaluation]
    if not trained:
        raise UserError(f"{name} has trained no step yet: there is nothing to plot")
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, left = pyplot.subplots(figsize=(10, 5), dpi=120)
    left.set_title(
        f"{name}: {_count(len(trained), 'step')}, {_count(len(incidents), 'incident')}", color=_INK, loc="left"
    )
    _curve(left, trained, "loss", _LOSS, "loss")
    _measured(left, steps)
    left.set_xlabel("optimizer step")
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.margins(x=0.02)
    left.grid(alpha=0.25)
    right = left.twinx()
    _curve(right, trained, "acceptance_0", _ACCEPTANCE, "acceptance rate, first draft token")
    right.set_ylim(0, 1)
    right.spines["top"].set_visible(False)
    left.spines["top"].set_visible(False)
    _mark(left, steps, incidents)
    figure.tight_layout()
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, format="png")
    pyplot.close(figure)
    return output


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _curve(axis: "Axes", steps: Sequence[StepMetrics], key: str, colour: str, label: str) -> None:
    points = [(entry.training_step, entry.values[key]) for entry in steps if key in entry.values]
    if points:
        axis.plot(*zip(*points, strict=True), color=colour, linewidth=1.6, marker="o" if len(points) < 60 else "", ms=3)
    axis.set_ylabel(label, color=colour)
    axis.tick_params(axis="y", colors=colour)


def _measured(axis: "Axes", steps: Sequence[StepMetrics]) -> None:
    """The loss on held-out prompts, in the colour of the loss: broken, with a mark at every evaluation."""
    points = [(entry.training_step, entry.values["eval_loss"]) for entry in steps if "eval_loss" in entry.values]
    if points:
        axis.plot(*zip(*points, strict=True), color=_LOSS, linestyle="--", marker="D", ms=4, label="held-out loss")
        axis.legend(loc="upper right", frameon=False)


def _training_step(steps: Sequence[StepMetrics], window: int) -> int:
    """Incidents know windows; people know optimizer steps."""
    return max((entry.training_step for entry in steps if entry.step <= window), default=0)


def _mark(axis: "Axes", steps: Sequence[StepMetrics], incidents: Sequence[Incident]) -> None:
    """One thin line an incident; labels stand at the top, turned, and only where they can be read."""
    for number, incident in enumerate(incidents):
        place = _training_step(steps, incident.step_detected)
        axis.axvline(place, color=_INCIDENT, linewidth=0.8, alpha=0.5)
        if number < _INCIDENT_LABELS_MAX:
            seconds = f" {incident.seconds} s" if incident.seconds >= 0 else ""
            axis.text(
                place, 0.98, f" {incident.unit} {incident.klass}{seconds}", rotation=90, fontsize=7,
                color=_INCIDENT, va="top", ha="right", transform=axis.get_xaxis_transform(),
            )  # fmt: skip
