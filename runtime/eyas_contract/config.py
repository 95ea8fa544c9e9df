"""The job as the runtime receives it: one JSON file, written by the operator from the custom resource.

Everything is resolved here: paths are where this process finds them, sizes are bytes, addresses are literal.
The custom resource's own types (defaults, validation, field paths) are `eyas_operator.api`; a role reads only this.

A job may pin an older image than its operator's. Unknown fields are refused, for what they ask cannot be done, and
scalars at their defaults are not written: a field that is added later is one, and its default means what was done
before.
"""

from pathlib import Path
from typing import Literal

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import UserError
from eyas_contract.ids import JobUid

CONFIG_BYTES_MAX = 1 << 20
Dtype = Literal["float32", "bfloat16", "float16"]


class TargetConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The model whose hidden states are captured."""

    model: str
    """Folder of a Hugging Face causal LM (config, tokenizer, weights)."""
    gguf_file: str | None = None
    """File inside `model` when the weights are GGUF."""
    dtype: Dtype = "float32"
    """dtype of the forward pass and of the captured features."""
    capture_layers: tuple[int, int, int] | None = None
    """Decoder layers whose outputs are captured; None: 1, n // 2 - 1, n - 4."""
    threads: int = 1
    """CPU threads of one producer; part of the capture fingerprint."""


class DataConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is trained on: prompts to capture, or existing feature files."""

    prompts: tuple[str, ...] = ()
    """JSONL files, one `{"messages": [{"role", "content"}, ...]}` or `{"text": ...}` a line."""
    features: tuple[str, ...] = ()
    """Folders of SpecForge-layout feature files (`*.ckpt`, `*.ckpt.gz`); exclusive with `prompts`."""
    max_length: int = 2048
    """Tokens per sample; longer ones are cut."""
    epochs: int = 1
    seed: int = 42
    chat_template: str | None = None
    """Jinja text that replaces the tokenizer's own template."""
    group_size: int = 4
    """Sequence numbers captured in one batch; fixes the batch shape, hence the bits."""


class EvaluationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Held-out prompts, and how often the draft is measured on them."""

    prompts: tuple[str, ...]
    """JSONL files as in `DataConfig.prompts`; never trained."""
    every_steps: int
    """Optimizer steps between two evaluations; another one follows the last step."""


class DraftConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The draft model and its loss."""

    vocab_size: int = 32000
    steps: int = 7
    """Length of the unrolled training-time test."""
    decay: float = 0.8
    normalisation: Literal["AllPositions", "Supervised"] = "AllPositions"
    variant: Literal["eagle3", "eagle3.1"] = "eagle3"
    initial_from: str | None = None
    """Folder of an existing draft to start from."""
    seed: int = 42


class CheckpointConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """When and where checkpoints are written."""

    path: str
    """Folder of this job's checkpoints; its root marker file is `eyas-checkpoints.json`."""
    every_steps: int = 50
    keep: int = 3
    deadline_seconds: int = 600
    """A checkpoint begun but not committed for so long is a hang."""
    allow_restart_from_zero: bool = False


class ParallelismConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How many ranks one sample is split over; those of one sample are next to each other, tensor ranks innermost."""

    tensor: int = 1
    """Ranks that split heads, inner width and draft vocabulary."""
    sequence: int = 1
    """Ranks that split positions."""

    @property
    def ranks(self) -> int:
        """Ranks that take the same samples."""
        return self.tensor * self.sequence


class TrainingConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Optimizer and window."""

    window_size: int = 64
    """Q: samples per optimizer step."""
    micro_batch_size: int = 1
    packing_tokens: int | None = None
    """Tokens of one packed micro-batch; None: micro-batches of `micro_batch_size` padded samples."""
    learning_rate: float = 1e-4
    warmup_ratio: float = 0.015
    schedule: Literal["Cosine", "Constant"] = "Cosine"
    max_grad_norm: float = 0.5
    weight_decay: float = 0.0
    max_steps: int | None = None
    """None: as many as the epochs need."""
    threads: int = 1
    """CPU threads of one rank."""
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Dtype = "float32"
    """Compute dtype; master weights and optimizer state are always float32."""
    deterministic: bool = True
    parallelism: ParallelismConfig = ParallelismConfig()
    checkpoint: CheckpointConfig


class StoreConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The feature store of this job."""

    backend: Literal["Memory", "SharedDirectory", "Mooncake"]
    max_resident_bytes: int
    digest: Literal["blake3", "xxh3-128"] = "blake3"
    path: str | None = None
    """Folder of the shared directory."""
    master_address: str | None = None
    """`host:port` of the Mooncake master's RPC."""
    master_metrics_address: str | None = None
    """`host:port` of the Mooncake master's admin and metrics HTTP."""
    protocol: Literal["TCP", "RDMA"] = "TCP"
    rdma_devices: str = ""
    segment_bytes: int = 0
    """Bytes of one store node's segment."""
    pool_bytes: int = 0
    """Bytes of the segments of all store nodes of this job; 0 where it has none of its own."""
    call_deadline_seconds: float = 10.0
    external: bool = False
    """The pool is shared with other jobs."""


class RecoveryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Terms and deadlines of the runtime; durations only."""

    lease_seconds: float = 30.0
    """Term of a capture lease; renewals extend it."""
    capture_deadline_seconds: float = 600.0
    """No lease of a group is renewed past this; doubles each time a live holder exceeds it."""
    hang_seconds_min: float = 60.0
    """Floor of the hang term max(floor, 10 x median step)."""
    startup_deadline_seconds: float = 1800.0
    restarts_in_place: int = 5
    """Child restarts without progress before the pod gives up."""
    backoff_base_seconds: float = 1.0
    backoff_max_seconds: float = 60.0
    collective_timeout_seconds: float = 300.0


class Endpoints(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Literal addresses of the job's other parts."""

    metadata_url: str
    """`http://host:port` of the metadata service."""
    rendezvous_host: str
    """Host on which rank 0 listens."""
    rendezvous_port: int


class JobConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Everything a role needs to know about its job; no secrets."""

    name: str
    job_uid: JobUid
    store_epoch: int
    target: TargetConfig
    data: DataConfig
    draft: DraftConfig
    training: TrainingConfig
    store: StoreConfig
    recovery: RecoveryConfig
    endpoints: Endpoints
    producers: int
    """Replicas of producers that the job asks for (a hint: replicas may change while it runs)."""
    world_size: int
    """Ranks over all consumer pods."""
    colocated: bool = False
    evaluation: EvaluationConfig | None = None
    """None: nothing is held out."""


def read_config(path: str | Path) -> JobConfig:
    """Read and decode the job's configuration. Raises `UserError` naming the file and the field."""
    try:
        raw = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the job configuration {path}: {error.strerror}") from error
    if len(raw) > CONFIG_BYTES_MAX:
        raise UserError(f"the job configuration {path} has {len(raw)} bytes; at most {CONFIG_BYTES_MAX} are read")
    try:
        return msgspec.json.decode(raw, type=JobConfig)
    except UNDECODABLE as error:
        raise UserError(f"the job configuration {path} is not valid: {error}") from error
