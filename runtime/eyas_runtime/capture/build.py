"""Which engine a job's data asks for; the one place that decides between running a target and reading files."""

import torch

from eyas_contract.config import JobConfig
from eyas_runtime.capture.content import DTYPES
from eyas_runtime.capture.engine import CaptureEngine
from eyas_runtime.capture.feature_files import FeatureFileEngine
from eyas_runtime.capture.parts import Parts
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.capture.prompt_engine import PromptEngine
from eyas_runtime.capture.sink import StoreSink
from eyas_runtime.capture.targets import target_shape
from eyas_runtime.capture.tokenise import Tokeniser, load_tokenizer
from eyas_runtime.capture.transformers_model import TransformersModel
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.store import FeatureStore


def real_parts(config: JobConfig) -> Parts:
    """What a producer that captures for training is made of. Raises `UserError`."""

    def sink(blobs: BlobStore) -> StoreSink:
        return StoreSink(FeatureStore(blobs, job_uid=config.job_uid, digest=config.store.digest))

    return Parts(engine=make_engine(config), prepare=prepare, sink=sink)


def make_engine(config: JobConfig, *, device: torch.device | None = None) -> CaptureEngine:
    """The job's capture engine on `device` (default: a GPU if this process sees one). Raises `UserError`."""
    data = config.data
    if data.features:
        shape = target_shape(config.target)
        return FeatureFileEngine(
            data.features,
            max_length=data.max_length,
            hidden_size=shape.hidden_size,
            vocab_size=shape.vocab_size,
            dtype=DTYPES[config.target.dtype],
        )
    tokeniser = Tokeniser(load_tokenizer(config.target), max_length=data.max_length, chat_template=data.chat_template)
    held_out = () if config.evaluation is None else config.evaluation.prompts
    files = (*data.prompts, *held_out)
    return PromptEngine(files, tokeniser, TransformersModel(config.target, device=device or default_device()))


def default_device() -> torch.device:
    """The first GPU that this process sees, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
