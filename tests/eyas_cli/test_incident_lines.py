"""What a person reads of a run: every line says only what was seen, and says it once."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from eyas_cli.incidents import IncidentNews, incident_line, outcome
from eyas_cli.progress import Progress, View, line
from eyas_cli.runner import end_lines
from eyas_contract.states import Phase
from eyas_operator.api.incidents import Incident
from support.operator_world import a_report

KILLED = Incident(
    klass="ChildExited", unit="consumers", source="Service", message="rank 1 ended with SIGKILL", serial=1,
    detected_time="2026-01-01T00:00:00.000Z",
)  # fmt: skip
REPLACED = replace(KILLED, replaced_time="2026-01-01T00:00:01.250Z")
OVER = replace(REPLACED, first_step_time="2026-01-01T00:00:03.400Z", seconds=3, outcome="Recovered", windows_replayed=2)


@pytest.mark.parametrize(
    ("incident", "words"),
    [
        pytest.param(KILLED, "not back yet", id="open"),
        pytest.param(REPLACED, "back after 1.2 s, no work seen yet", id="back"),
        pytest.param(OVER, "next step after 3.4 s, 2 steps trained again", id="recovered"),
        pytest.param(replace(OVER, windows_replayed=1), "next step after 3.4 s, 1 step trained again", id="one step"),
        pytest.param(replace(OVER, unit="store-master"), "back after 1.2 s", id="no ranks"),
        pytest.param(replace(KILLED, outcome="Suspended"), "the job was suspended before work went on", id="suspended"),
        pytest.param(replace(KILLED, outcome="Ended"), "the job ended before work went on", id="ended"),
        pytest.param(replace(KILLED, outcome="Removed"), "its unit is not wanted any more", id="removed"),
    ],
)
def test_an_incident_says_what_became_of_it_and_no_more(incident: Incident, words: str) -> None:
    assert outcome(incident) == words
    assert incident_line(incident).endswith(f"consumers ChildExited: rank 1 ended with SIGKILL ({words})") or (
        incident.unit != "consumers"
    )


def test_lost_samples_are_over_when_they_are_captured_again() -> None:
    lost = replace(OVER, klass="SampleLost", unit="store", replaced_time="")
    assert outcome(lost) == "captured again after 3.4 s"


def test_an_incident_is_told_when_it_is_seen_and_when_it_is_over_and_not_in_between() -> None:
    news = IncidentNews()
    told = [list(news.since_last((incident,))) for incident in (KILLED, KILLED, REPLACED, OVER, OVER)]
    assert [len(lines) for lines in told] == [1, 0, 0, 1, 0]
    assert told[0][0].startswith("incident ")
    assert told[3][0].startswith("over ")
    assert "next step after 3.4 s" in told[3][0]


def test_an_older_incident_that_appears_late_is_told_too() -> None:
    """Lists are bounded and sorted: a place in them says nothing about what is new."""
    news = IncidentNews()
    list(news.since_last((KILLED, OVER)))
    other = replace(KILLED, unit="producer-0", detected_time="2025-12-31T23:59:59.000Z")
    assert len(list(news.since_last((other, KILLED)))) == 1


def a_view(**changes: Any) -> View:  # noqa: ANN401
    values: dict[str, Any] = {"name": "demo", "state": "Running", "status": a_report(acked_step=5, total_samples=800)}
    return View(**(values | changes))


def test_before_the_inputs_are_prepared_no_numbers_are_shown() -> None:
    preparing = a_report(phase=Phase.PREPARING, total_steps=0, total_samples=0)
    roles = {"metadata": (1, 1), "producer": (0, 2)}
    text = line(a_view(state="Starting", status=preparing, roles=roles))
    assert text == "demo Starting: preparing the inputs; waiting for producer"
    assert line(a_view(state="Starting", status=None, roles=roles)) == "demo Starting: waiting for producer"
    assert line(a_view(state="Failed", status=preparing, roles=roles)) == "demo Failed"


def test_time_left_is_told_only_while_steps_come_steadily() -> None:
    status = a_report(acked_step=50, steps_per_second=1.0)
    assert "ETA 50s" in line(a_view(status=status))
    assert "ETA" not in line(a_view(status=status, state="Recovering"))
    assert "ETA" not in line(a_view(status=a_report(acked_step=100, steps_per_second=1.0)))


def test_a_line_that_says_nothing_new_is_not_repeated() -> None:
    out = io.StringIO()
    with Progress(Console(file=out, width=200), quiet_seconds=0.0) as progress:
        for _ in range(3):
            progress.show(a_view())
        progress.show(a_view(state="Recovering"))
    assert [text.split()[1] for text in out.getvalue().splitlines()] == ["Running", "Recovering"]


def result(**changes: Any) -> dict[str, Any]:  # noqa: ANN401
    values: dict[str, Any] = {
        "state": "Complete", "exact": True, "steps": 4, "weightsSha256": "ab", "samplesTrained": 16,
        "samplesDeadLettered": 0, "samplesLostAndRecaptured": 2, "wallSeconds": 12.3, "reason": "",
        "incidents": [{"outcome": "Recovered"}, {"outcome": "Ended"}],
    }  # fmt: skip
    return values | changes


def test_the_end_tells_what_came_out_and_calls_no_failure_exact() -> None:
    text = "\n".join(end_lines(Path("d"), result()))
    assert "Complete (exact) after 12 s: 4 steps" in text
    assert "2 incidents (1 recovered)" in text
    assert "16 samples trained, 2 captured again" in text
    evaluated = "\n".join(end_lines(Path("d"), result(samplesEvaluated=6)))
    assert "16 samples trained, 6 evaluated, 2 captured again" in evaluated
    failed = "\n".join(end_lines(Path("d"), result(state="Failed", weightsSha256="", incidents=[])))
    assert failed.startswith("Failed after 12 s: 4 steps")
    assert "exact" not in failed
