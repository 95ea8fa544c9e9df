"""`DIR/result.json`: what came out, for scripts. Pure but for the one write; the words are a contract."""

from typing import Any

from eyas_contract.wire import StatusReply
from eyas_operator.api.status import JobStatus, dump_status
from eyas_operator.status import is_true
from eyas_operator.world import seconds_of


def result_of(status: JobStatus, report: StatusReply | None, *, created: float) -> dict[str, Any]:
    """The result of a job that ended; `report` is the last that the metadata service said, `created` Unix seconds."""
    result = status.result
    exact = next((condition for condition in status.conditions if condition.type == "Exact"), None)
    found = {
        "state": status.state,
        "exact": exact is not None and exact.status == "True",
        "steps": result.steps if result else status.progress.durable_step,
        "weightsSha256": result.weights_sha256 if result else "",
        "samplesTrained": result.samples_trained if result else status.progress.acked,
        "samplesEvaluated": result.samples_evaluated if result else status.progress.evaluated,
        "samplesDeadLettered": result.samples_dead if result else status.progress.dead_letters,
        "samplesLostAndRecaptured": report.samples_recaptured if report else 0,
        "incidents": dump_status(status).get("incidents", []),
        "wallSeconds": round(max(0.0, seconds_of(status.completion_time) - created), 3),
        "reason": _reason(status),
    }
    if result is not None and result.best is not None:
        best = result.best
        found["best"] = {"step": best.step, "evalLoss": float(best.eval_loss), "directory": best.directory}
    return found


def _reason(status: JobStatus) -> str:
    """Why it failed; empty for a job that is complete."""
    if not is_true(status, "Failed"):
        return ""
    failed = next(condition for condition in status.conditions if condition.type == "Failed")
    return f"{failed.reason}: {failed.message}"
