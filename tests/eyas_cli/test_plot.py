"""Claims about the picture of a run, asked of the figure before it is thrown away."""

from pathlib import Path

import pytest

from eyas_cli.plot import draw
from eyas_contract.errors import UserError
from eyas_contract.wire import StepMetrics
from eyas_operator.api.incidents import Incident

STEPS = [
    StepMetrics(step=1, training_step=1, values={"loss": 9.0, "acceptance_0": 0.1}),
    StepMetrics(step=2, training_step=2, values={"loss": 8.0, "acceptance_0": 0.2}),
    StepMetrics(step=3, training_step=2, values={"eval_loss": 8.5}, evaluation=True),
    StepMetrics(step=4, training_step=3, values={"loss": 7.0, "acceptance_0": 0.3}),
]
KILLED = Incident(unit="consumers", klass="PodDeleted", source="Operator", message="", step_detected=3, seconds=4)


def test_a_run_without_a_step_has_nothing_to_draw(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="job has trained no step yet"):
        draw("job", STEPS[2:3], [], tmp_path / "plot.png")


def test_steps_evaluations_and_incidents_are_where_they_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib import pyplot

    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    file = draw("job", STEPS, [KILLED], tmp_path / "new" / "plot.png")
    assert file.read_bytes().startswith(b"\x89PNG")
    left, right = kept[0].axes
    loss, held_out, incident = left.lines
    assert left.get_title(loc="left") == "job: 3 steps, 1 incident"
    assert loss.get_xydata().tolist() == [[1, 9], [2, 8], [3, 7]]
    assert held_out.get_xydata().tolist() == [[2, 8.5]]
    # The incident knows a window, which was an evaluation: it stands at the optimizer step before.
    assert list(incident.get_xdata()) == [2, 2]
    assert [text.get_text() for text in left.texts] == [" consumers PodDeleted 4 s"]
    assert right.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.2], [3, 0.3]]
    assert all(float(tick).is_integer() for tick in left.get_xticks())
