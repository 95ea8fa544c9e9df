"""The fake capture: every prompt becomes a verifiable blob, and nothing of it needs torch."""

from pathlib import Path

import pytest

from eyas_contract import env
from eyas_contract.config import JobConfig
from eyas_contract.errors import UserError
from eyas_runtime import digests
from eyas_runtime.capture.fake import fake_parts, payload_of
from eyas_runtime.capture.produce import make_parts
from eyas_runtime.capture.prompts import scan
from eyas_runtime.features.config import open_blobs
from support.metadata_service import running_service, store_of
from support.producers import ProducerProcess, first_window, wait_ready
from support.tiny_target import tiny_job, write_tiny_prompts

PROMPTS = 8


def job_in(folder: Path, target: Path) -> JobConfig:
    prompts = write_tiny_prompts(folder / "p.jsonl", PROMPTS)
    return tiny_job(folder, target=target, prompts=(prompts,), training={"window_size": PROMPTS})


def without_torch(folder: Path) -> dict[str, str]:
    """Environment in which importing torch fails, as in the runtime image."""
    blocked = folder / "blocked"
    blocked.mkdir()
    for name in ("torch", "transformers", "jinja2", "safetensors"):
        (blocked / f"{name}.py").write_text("raise ImportError('not in the runtime image')")
    return {"PYTHONPATH": str(blocked)}


@pytest.mark.slow
def test_a_fake_producer_without_torch_commits_every_prompt_as_a_verifiable_blob(tmp_path: Path, target: Path) -> None:
    config = job_in(tmp_path, target)
    with running_service(tmp_path, config) as service:
        producer = ProducerProcess(
            tmp_path, service.settings.config, **{env.CAPTURE: "fake"}, **without_torch(tmp_path)
        )
        try:
            wait_ready(tmp_path, service, PROMPTS, producer)
            blobs = open_blobs(store_of(tmp_path, config))
            found = {bytes(blobs.get(ref.key, ref.length)): ref for ref in first_window(tmp_path, service).values()}
        finally:
            producer.stop()
    texts = {data.split(b"\n", 1)[1] for data in found}
    assert texts == {payload_of(located.prompt) for located in scan(config.data.prompts)}
    for data, ref in found.items():
        assert data.startswith(b"%d\n" % ref.sequence)
        digests.check(digests.digest_of([data], digests.algorithm_of(ref.digest)), ref.digest, ref.sample_id)


@pytest.mark.parametrize("kind", ["fakes", "fake:soon", "fake:-1", "fake:1e9", ""])
def test_an_unknown_capture_is_refused_with_its_name(tmp_path: Path, target: Path, kind: str) -> None:
    with pytest.raises(UserError, match=r"EYAS_CAPTURE|seconds"):
        make_parts(kind, job_in(tmp_path, target))


def test_a_fake_capture_refuses_inputs_that_it_does_not_know(tmp_path: Path, target: Path) -> None:
    config = tiny_job(tmp_path, target=target, features=(str(tmp_path),))
    with pytest.raises(UserError, match="prompts only"):
        fake_parts(config, seconds=0)
