"""One tiny target for the whole folder; torch runs single-threaded."""

from pathlib import Path

import pytest
import torch

from support.tiny_target import make_tiny_target


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_target(tmp_path_factory.mktemp("target"))
