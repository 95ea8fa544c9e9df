"""Builders for operator tests: a job body, its identity, a status reply of the metadata service."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from eyas_contract.ids import JobUid
from eyas_contract.states import Gang, Phase
from eyas_contract.wire import StatusReply
from eyas_operator.environment import KubernetesEnvironment
from eyas_operator.names import JobIdentity
from eyas_operator.settings import Settings

UID = "1c9e0b52-7a64-4f0e-9d3a-5b8f2c6d7e81"
OTHER_UID = "00000000-1111-2222-3333-444444444444"
JOB = JobIdentity(namespace="default", name="demo", uid=UID)
ENVIRONMENT = KubernetesEnvironment(runtime_image="eyas-runtime:test", train_image="eyas-train:test")
SETTINGS = Settings(progress_seconds=10.0)
NOW = 1_800_000_000.0


T = TypeVar("T")


def run(call: Coroutine[object, object, T]) -> T:
    """The result of a call that never waits: the model of a cluster answers at once, so no event loop is needed."""
    try:
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the call waited for something")


def a_body(**spec: object) -> dict[str, Any]:
    """A small valid job; keyword arguments replace top-level fields of the spec."""
    base: dict[str, Any] = {
        "target": {"model": "/models/m", "dtype": "float32"},
        "data": {"prompts": ["/data/p.jsonl"], "maxLength": 256},
        "training": {"windowSize": 8},
        "store": {"backend": "Mooncake", "maxResidentBytes": "1Gi", "mooncake": {"nodes": {"replicas": 1}}},
        "volumes": {
            "models": {"claimName": "models"},
            "data": {"claimName": "data"},
            "checkpoints": {"size": "10Gi"},
        },
        "producers": {"replicas": 2},
        "consumers": {"replicas": 2, "processesPerPod": 2},
    }
    return {
        "apiVersion": "eyas.dev/v1alpha1",
        "kind": "DisaggTrainingJob",
        "metadata": {"name": JOB.name, "namespace": JOB.namespace, "uid": UID},
        "spec": base | spec,
    }


def a_report(**fields: object) -> StatusReply:
    """What the metadata service says of a job that has just begun."""
    base: dict[str, Any] = {
        "job_uid": JobUid(JOB.job_uid),
        "store_epoch": 1,
        "phase": Phase.RUNNING,
        "failure": "",
        "attempt": 1,
        "incarnation": "",
        "gang": Gang.CLOSED,
        "total_steps": 100,
        "total_samples": 800,
        "sealed_step": 0,
        "acked_step": 0,
        "durable_step": 0,
        "samples_ready": 0,
        "samples_lost": 0,
        "samples_dead": 0,
        "samples_committed": 0,
        "samples_recaptured": 0,
        "samples_trained": 0,
        "resident_objects": 0,
        "resident_bytes": 0,
        "reserved_bytes": 0,
        "cap_bytes": 2**30,
        "live_leases": 0,
        "paused": "",
        "exact": True,
        "inexact_reasons": (),
        "capture_drift": 0,
        "seconds_since_advance": 0.0,
        "steps_per_second": 0.0,
        "last_metrics": {},
        "checkpoint_directory": "",
        "weights_sha256": "",
        "dead_letters": (),
        "incidents": (),
    }
    merged = base | fields
    for name in ("total", "acked", "durable"):
        # Without evaluation every window is an optimizer step.
        field = "total_training_steps" if name == "total" else f"{name}_training_step"
        merged.setdefault(field, merged["total_steps" if name == "total" else f"{name}_step"])
    return StatusReply(**(merged | {"phase": Phase(merged["phase"]), "gang": Gang(merged["gang"])}))
