"""Drills: jobs of the fake trainer that are small, yet long enough to be disturbed, and what must be true after them.

A drill is three pods: one producer, one rank, the metadata service. It trains what those of `support.pod_drill` do, so
that one undisturbed run serves all.
"""

from collections.abc import Callable
from typing import Any, Final

from support import pod_drill, waiting
from support.cluster_job import ClusterJob
from support.kubectl import Kubectl, Refused

STEPS: Final = pod_drill.STEPS
SAMPLES: Final = 4 * STEPS
Weights = Callable[[dict[str, Any]], str]
"""The fixture `undisturbed`: weights of a job that nobody touches."""
SETTLE_SECONDS: Final = 120.0
POLL_SECONDS: Final = 1.0
RESOURCES: Final = (
    "pods", "services", "configmaps", "secrets", "persistentvolumeclaims", "networkpolicies", "poddisruptionbudgets",
)  # fmt: skip
"""Every kind that a job's children are of."""


def drill(name: str, *, seconds: float = 0.3, **changes: object) -> dict[str, Any]:
    """A job of `STEPS` steps; each of its 128 samples takes `seconds` to capture, so that the run lasts as long."""
    small: dict[str, Any] = {"consumers.replicas": 1, "volumes.checkpoints.accessMode": None}
    return pod_drill.drill(name, seconds=seconds, **(small | changes))


def quick() -> dict[str, Any]:
    """What to ask the fixture `undisturbed` for: all drills train the same."""
    return drill("quick", seconds=0.05)


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """One condition; an empty one before the operator's first write."""
    found = [entry for entry in status.get("conditions", ()) if entry["type"] == kind]
    return found[0] if found else {"status": "", "reason": "", "message": ""}


def exact(status: dict[str, Any]) -> tuple[str, str]:
    """(status, reason) of the condition `Exact`."""
    found = condition(status, "Exact")
    return found["status"], found["reason"]


def roles(status: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """(desired, ready) of each role."""
    return {role["name"]: (role["desired"], role["ready"]) for role in status.get("roles", ())}


def wait_until(claim: str, probe: Callable[[], Any], seconds: float = SETTLE_SECONDS) -> Any:  # noqa: ANN401
    """The first true value of `probe`, which is asked again and again; fails with `claim`."""
    last: list[Any] = []

    def fact() -> Any:  # noqa: ANN401
        last[:] = [probe()]
        return last[0]

    said = lambda: f"{claim}; last seen: {last[0]!r}"  # noqa: E731
    return waiting.wait_until(fact, said, seconds=seconds, poll_seconds=POLL_SECONDS)


def wait_for(job: ClusterJob, claim: str, holds: Callable[[dict[str, Any]], object], seconds: float = 300.0) -> Any:  # noqa: ANN401
    """The first status of which `holds` is true."""
    seen: dict[str, Any] = {}

    def probe() -> dict[str, Any] | None:
        seen.clear()
        seen.update(job.status())
        return dict(seen) if seen and holds(seen) else None

    try:
        return wait_until(claim, probe, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{seen}") from None


def failed(job: ClusterJob, seconds: float = 300.0) -> dict[str, Any]:
    """Wait for the condition `Failed`; that condition."""
    return condition(wait_for(job, "Failed", lambda it: condition(it, "Failed")["status"] == "True", seconds), "Failed")


def uid_of(kubectl: Kubectl, name: str) -> str:
    """UID of the job."""
    found: str = kubectl.get("dtj", name)["metadata"]["uid"]
    return found


def children(kubectl: Kubectl, job_uid: str) -> list[str]:
    """`Kind/name` of everything that carries this job's UID."""
    found = kubectl.items(",".join(RESOURCES), "-l", f"eyas.dev/job-uid={job_uid}")
    return sorted(f"{it['kind']}/{it['metadata']['name']}" for it in found)


def gone(kubectl: Kubectl, job_uid: str, *, but: tuple[str, ...] = ()) -> None:
    """Wait until nothing of the job is left but `Kind/ending of name`."""

    def left() -> bool:
        seen[:] = [it for it in children(kubectl, job_uid) if not any(_is(it, kept) for kept in but)]
        return not seen

    seen: list[str] = []
    try:
        wait_until("nothing left", left)
    except AssertionError:
        raise AssertionError(f"left of the job: {seen}") from None


def _is(child: str, kept: str) -> bool:
    kind, _, ending = kept.partition("/")
    return child.startswith(f"{kind}/") and child.endswith(ending)


def assert_recovered(incident: dict[str, Any]) -> None:
    """The incident is over, by work that was seen after it, and its times are in order."""
    assert incident["outcome"] == "Recovered", incident
    assert incident["detectedTime"] <= incident["replacedTime"] <= incident["firstStepTime"], incident
    assert incident["seconds"] >= 0


def forgotten(kubectl: Kubectl, kind: str, name: str) -> bool:
    """The object is not there."""
    try:
        kubectl.run("get", kind, name)
    except Refused as error:
        return "NotFound" in str(error)
    return False
