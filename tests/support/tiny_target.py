"""The tiny target of `eyas_runtime.demo.tiny_target` and a job configuration around it."""

from pathlib import Path
from typing import Any, cast

from eyas_contract.config import (
    CheckpointConfig,
    DataConfig,
    DraftConfig,
    Endpoints,
    JobConfig,
    RecoveryConfig,
    StoreConfig,
    TargetConfig,
    TrainingConfig,
)
from eyas_contract.ids import JobUid
from eyas_runtime.demo.tiny_target import (
    VOCAB_SIZE,
    make_tiny_target,
    make_tokenizer,
    tiny_messages,
    write_tiny_prompts,
)

__all__ = ["VOCAB_SIZE", "make_tiny_target", "make_tokenizer", "tiny_job", "tiny_messages", "write_tiny_prompts"]


def tiny_job(
    root: Path,
    *,
    target: Path,
    prompts: tuple[Path, ...] = (),
    features: tuple[Path, ...] = (),
    metadata_url: str = "http://127.0.0.1:1",
    data: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    draft: dict[str, Any] | None = None,
    **others: object,
) -> JobConfig:
    """A small job around `target`: windows of 4, groups of 2, a shared directory under `root` as store."""
    fields: dict[str, Any] = {
        "name": "tiny", "job_uid": JobUid("0123456789abcdef"), "store_epoch": 1, "producers": 1, "world_size": 1,
        "target": TargetConfig(model=str(target)),
        "data": DataConfig(
            prompts=tuple(map(str, prompts)), features=tuple(map(str, features)),
            **{"max_length": 96, "group_size": 2, **(data or {})},
        ),
        "draft": DraftConfig(**{"vocab_size": 64, "steps": 3, **(draft or {})}),
        "training": TrainingConfig(
            **{"window_size": 4, "checkpoint": CheckpointConfig(path=str(root / "checkpoints")), **(training or {})}
        ),
        "store": StoreConfig(backend="SharedDirectory", max_resident_bytes=1 << 26, path=str(root / "store")),
        "recovery": RecoveryConfig(),
        "endpoints": Endpoints(metadata_url=metadata_url, rendezvous_host="127.0.0.1", rendezvous_port=1),
    }  # fmt: skip
    return JobConfig(**cast("dict[str, Any]", {**fields, **others}))
