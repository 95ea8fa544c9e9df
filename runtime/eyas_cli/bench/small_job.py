"""The job of `recovery` and `goodput` when none is given: steps of some hundredths of a second, so that what a restart
costs is what is measured; a real Mooncake pool, two producers, two ranks, as in the quickstart."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

WINDOW: Final = 4
SPEC: Final[dict[str, Any]] = {
    "target": {"model": "/models/tiny", "dtype": "float32"},
    "data": {"prompts": ["/data/prompts.jsonl"], "maxLength": 64, "groupSize": WINDOW},
    "draft": {"vocabSize": 64, "steps": 3},
    "training": {"windowSize": WINDOW, "learningRate": 1e-3, "checkpoint": {"everySteps": 20, "keep": 2}},
    "store": {"backend": "Mooncake", "maxResidentBytes": "16Mi", "mooncake": {"nodes": {"segmentSize": "128Mi"}}},
    "volumes": {"models": {"claimName": "models"}, "data": {"claimName": "data"}},
    "producers": {"replicas": 2},
    "consumers": {"replicas": 1, "processesPerPod": 2},
}


@contextlib.contextmanager
def small_job(steps: int) -> Iterator[tuple[Path, dict[str, Path]]]:
    """Path of a job of `steps` optimizer steps, and its volumes; both are gone after the block."""
    from eyas_runtime.demo.tiny_target import make_tiny_target, write_tiny_prompts

    with tempfile.TemporaryDirectory(prefix="eyas-small-job-") as name:
        folder = Path(name)
        volumes = {"models": folder / "models", "data": folder / "data"}
        make_tiny_target(volumes["models"] / "tiny")
        write_tiny_prompts(volumes["data"] / "prompts.jsonl", WINDOW * steps)
        body = {
            "apiVersion": "eyas.dev/v1alpha1", "kind": "DisaggTrainingJob", "metadata": {"name": "small"}, "spec": SPEC
        }  # fmt: skip
        job = folder / "job.yaml"
        job.write_text(yaml.safe_dump(body), encoding="utf-8")
        yield job, volumes
