"""What people read: conditions, progress, roles, a one-word state. All from what was observed, none read back.

Pure. Condition types are adjectives; `Complete` and `Failed` are written once by the policies and never touched here.
`lastTransitionTime` moves only when a condition's status flips.
"""

from dataclasses import replace
from typing import Final, Literal

from eyas_contract.wire import StatusReply
from eyas_operator import names
from eyas_operator.api.progress import CheckpointStatus, Progress
from eyas_operator.api.status import Condition, JobStatus, RoleStatus, Stage
from eyas_operator.desired.build import roles_of
from eyas_operator.names import Role
from eyas_operator.policies.lifecycle import own_report
from eyas_operator.policies.moment import Moment
from eyas_operator.policies.units import capture_is_over, failure_of, ready_members

Truth = Literal["True", "False", "Unknown"]
CONDITIONS: Final = (
    "Accepted", "StoreReady", "ProducersReady", "ConsumersReady", "Ready", "Recovering", "Stalled", "Exact",
    "Suspended", "Complete", "Failed",
)  # fmt: skip
"""Every type, in the order in which it is written; all are there from the first visit."""
TERMINAL: Final = frozenset({"Complete", "Failed"})
MESSAGE_CHARACTERS_MAX: Final = 1024
Verdict = tuple[Truth, str, str]
"""(status, reason, message)."""


def summarise(moment: Moment, status: JobStatus, before: JobStatus) -> JobStatus:
    """`status` with everything that people read, as of now. `before` is the status as it was stored."""
    status = replace(status, observed_generation=moment.generation)
    status = replace(
        status,
        roles=_roles(moment, status),
        producer_replicas=len([view for view in moment.observed.of_role(Role.PRODUCER) if not view.deleting]),
        producer_selector=f"{names.LABEL_JOB_UID}={moment.job.uid},{names.LABEL_ROLE}={Role.PRODUCER}",
    )
    status = _checkpoint(moment, status)
    verdicts = _verdicts(moment, status)
    status = replace(status, conditions=merged(status.conditions, verdicts, moment.time, moment.generation))
    status = replace(status, state=state_of(status))
    return _with_progress(moment, status, before)


def merged(
    stored: tuple[Condition, ...], verdicts: dict[str, Verdict], time: str, generation: int
) -> tuple[Condition, ...]:
    """All known conditions, with transition times kept where the status did not flip."""
    known = {condition.type: condition for condition in stored}
    conditions = []
    for kind in CONDITIONS:
        old = known.get(kind)
        if old is not None and kind in TERMINAL and old.status == "True":
            conditions.append(old)
            continue
        truth, reason, message = verdicts.get(kind, ("Unknown", "NotObserved", "not observed yet"))
        flipped = old is None or old.status != truth
        conditions.append(
            Condition(
                type=kind,
                status=truth,
                reason=reason,
                message=message[:MESSAGE_CHARACTERS_MAX],
                last_transition_time=time if flipped or old is None else old.last_transition_time,
                observed_generation=generation,
            )
        )
    return tuple(conditions)


def is_true(status: JobStatus, kind: str) -> bool:
    """The condition is known and True."""
    return any(condition.type == kind and condition.status == "True" for condition in status.conditions)


def _verdicts(moment: Moment, status: JobStatus) -> dict[str, Verdict]:
    verdicts: dict[str, Verdict] = {
        "Accepted": _accepted(moment),
        "StoreReady": _store_ready(moment, status),
        "ProducersReady": _producers_ready(moment, status),
        "ConsumersReady": _pods_ready(moment, status, (Role.CONSUMER,)),
        "Recovering": _recovering(status),
        "Stalled": _stalled(moment, status),
        "Exact": _exact(moment, status),
        "Suspended": _suspended(status),
        "Complete": ("False", "NotFinished", "training is not complete"),
        "Failed": ("False", "NotFinished", "the job has not failed"),
    }
    parts = [verdicts[kind][0] for kind in ("StoreReady", "ProducersReady", "ConsumersReady")]
    ready = all(part == "True" for part in parts)
    verdicts["Ready"] = (
        ("True", "AllReady", "store, producers and consumers are ready")
        if ready
        else ("False", "PartsNotReady", "see StoreReady, ProducersReady and ConsumersReady")
    )
    return verdicts


def _accepted(moment: Moment) -> Verdict:
    if moment.observed.refusal:
        return "False", "ClusterRefused", moment.observed.refusal
    return "True", "SpecValid", "the job is valid"


def _pods_ready(moment: Moment, status: JobStatus, roles: tuple[Role, ...]) -> Verdict:
    wanted = sum(role.desired for role in status.roles if role.name in roles)
    ready = sum(role.ready for role in status.roles if role.name in roles)
    if not wanted:
        return "False", _absence(status), "no pods are wanted now"
    if ready >= wanted:
        return "True", "PodsReady", f"{ready} of {wanted} pods are ready"
    waiting = sorted(
        view.waiting for identity, view in moment.observed.pods.items() if identity.role in roles and view.waiting
    )
    reason = "PodsWaiting" if waiting else "PodsNotReady"
    return "False", reason, f"{ready} of {wanted} pods are ready{f'; {waiting[0]}' if waiting else ''}"


def _absence(status: JobStatus) -> str:
    """Why no pod is wanted. After the end the reason is the end: nothing is about to start."""
    by_stage = {
        Stage.SUSPENDED: "Suspended",
        Stage.SUSPENDING: "Suspending",
        Stage.FINISHING: "Finishing",
        Stage.ENDED: "Ended",
    }
    waits = "Draining" if status.gang.draining_reason else "Released" if status.released_time else "NotStarted"
    return by_stage.get(status.stage, waits)


def _store_ready(moment: Moment, status: JobStatus) -> Verdict:
    if own_report(moment, status) is None and status.stage in (Stage.RUNNING, Stage.SUSPENDING, Stage.FINISHING):
        return "False", "MetadataUnreachable", "the metadata service does not answer"
    return _pods_ready(moment, status, (Role.METADATA, Role.STORE_MASTER, Role.STORE_NODE))


def _producers_ready(moment: Moment, status: JobStatus) -> Verdict:
    if Role.PRODUCER not in roles_of(moment.spec):
        return "True", "NotNeeded", "capture happens inside the consumers"
    units = [unit for unit in status.units if unit.role is Role.PRODUCER and not unit.idle]
    ends = [failure_of(moment, status, unit) for unit in units]
    over = [end is not None and capture_is_over(moment, unit, end) for unit, end in zip(units, ends, strict=True)]
    if units and all(over):
        return "True", "CaptureFinished", "every sample is captured"
    return _pods_ready(moment, status, (Role.PRODUCER,))


def _recovering(status: JobStatus) -> Verdict:
    if status.stage in (Stage.ENDED, Stage.SUSPENDED):
        return "False", "NotRunning", "the job does not run"
    incidents = [incident for incident in status.incidents if incident.restart and incident.open]
    if not incidents:
        return "False", "NoOpenIncident", "work was seen after every incident"
    newest = incidents[-1]
    return "True", newest.klass, f"{newest.unit}: {newest.message}"


def _stalled(moment: Moment, status: JobStatus) -> Verdict:
    if status.stage is not Stage.RUNNING:
        return "False", "NotRunning", "the job does not train now"
    report = own_report(moment, status)
    if report is None:
        return "Unknown", "MetadataUnreachable", "the metadata service does not answer"
    limit = moment.spec.recovery.stall_seconds
    if report.seconds_since_advance < limit:
        return "False", "Advancing", "steps advance"
    why = f": {report.paused}" if report.paused else ""
    return "True", "NoProgress", f"no new step for more than {limit} seconds{why}"


def _exact(moment: Moment, status: JobStatus) -> Verdict:
    stored = next((condition for condition in status.conditions if condition.type == "Exact"), None)
    report = own_report(moment, status)
    if stored is not None and stored.status == "False":
        return "False", stored.reason, stored.message
    if report is None:
        unknown: Verdict = ("Unknown", "NotObserved", "not observed yet")
        return unknown if stored is None else (stored.status, stored.reason, stored.message)
    if not report.exact:
        return "False", "Deviated", "; ".join(report.inexact_reasons) or "the run deviated"
    return "True", "NoDeviation", "nothing was seen that changes bits"


def _suspended(status: JobStatus) -> Verdict:
    if status.stage is Stage.SUSPENDED:
        return "True", "JobSuspended", "no pods run; set spec.suspend back to go on"
    if status.stage is Stage.SUSPENDING:
        return "False", "Suspending", "pods write a checkpoint and stop"
    return "False", "NotSuspended", "the job is not suspended"


def state_of(status: JobStatus) -> str:
    """One word for the printer column."""
    for kind in ("Failed", "Complete"):
        if is_true(status, kind):
            return kind
    if status.stage in (Stage.SUSPENDED, Stage.SUSPENDING, Stage.FINISHING):
        return status.stage.value
    for kind, word in (("Recovering", "Recovering"), ("Stalled", "Stalled"), ("Ready", "Running")):
        if is_true(status, kind):
            return word
    return "Running" if status.first_step_seen else "Starting"


def _roles(moment: Moment, status: JobStatus) -> tuple[RoleStatus, ...]:
    rows = []
    for role in roles_of(moment.spec):
        units = [unit for unit in status.units if unit.role is role]
        awake = [unit for unit in units if not unit.idle]
        size = status.gang.replicas if role is Role.CONSUMER else 1
        rows.append(
            RoleStatus(
                name=role,
                desired=size * len(awake),
                ready=sum(ready_members(moment, status, unit) for unit in awake),
                restarts=sum(unit.restarts for unit in units),
            )
        )
    return tuple(rows)


def _checkpoint(moment: Moment, status: JobStatus) -> JobStatus:
    report = own_report(moment, status)
    if report is None or not report.checkpoint_directory:
        return status
    same = (report.durable_step, report.checkpoint_directory)
    if same == (status.checkpoint.step, status.checkpoint.directory):
        return status
    newest = CheckpointStatus(step=report.durable_step, directory=report.checkpoint_directory, time=moment.time)
    return replace(status, checkpoint=newest)


def _with_progress(moment: Moment, status: JobStatus, before: JobStatus) -> JobStatus:
    """Fast numbers reach the status with any other change, alone only once in `progress_seconds`."""
    report = own_report(moment, status)
    if report is None:
        return status
    fresh = _progress(moment, status, report)
    unchanged = replace(fresh, observed_time=status.progress.observed_time) == status.progress
    alone = replace(status, progress=before.progress) == before
    early = moment.since(before.progress.observed_time) < moment.settings.progress_seconds
    if unchanged or (alone and early and before.progress.observed_time):
        return status
    return replace(status, progress=fresh)


def _progress(moment: Moment, status: JobStatus, report: StatusReply) -> Progress:
    advanced = report.acked_step > status.progress.step or not status.progress.last_advance_time
    loss = report.last_metrics.get("loss")
    return Progress(
        step=report.acked_step,
        durable_step=report.durable_step,
        total_steps=report.total_steps,
        training_step=report.acked_training_step,
        total_training_steps=report.total_training_steps,
        produced=report.samples_committed,
        acked=report.samples_trained,
        evaluated=report.samples_evaluated,
        # A service of an older image tells less.
        lag=report.samples_ready if report.samples_waiting is None else report.samples_waiting,
        lost=report.samples_recaptured,
        replayed=report.samples_replayed,
        applied_twice=report.samples_applied_twice,
        missing=report.samples_missing,
        lost_work_seconds="" if report.lost_work_seconds is None else f"{report.lost_work_seconds:.3f}",
        goodput="" if report.goodput_ratio is None else f"{report.goodput_ratio:.2f}",
        dead_letters=report.samples_dead,
        total_samples=report.total_samples,
        resident_bytes=report.resident_bytes,
        steps_per_second=f"{report.steps_per_second:.3g}",
        loss=f"{loss:.6g}" if loss is not None else "",
        last_advance_time=moment.time if advanced else status.progress.last_advance_time,
        observed_time=moment.time,
    )


def rejected(status: JobStatus, reason: str, message: str, time: str, generation: int) -> JobStatus:
    """The spec cannot work as it is: say so and touch nothing else."""
    verdicts: dict[str, Verdict] = {
        condition.type: (condition.status, condition.reason, condition.message) for condition in status.conditions
    }
    verdicts["Accepted"] = ("False", reason, message)
    conditions = merged(status.conditions, verdicts, time, generation)
    state = status.state if status.stage not in (Stage.NEW, Stage.RUNNING) else "Invalid"
    return replace(status, conditions=conditions, observed_generation=generation, state=state)
