"""One tiny target for all suites of the runtime."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from support.tiny_target import make_tiny_target

    return make_tiny_target(tmp_path_factory.mktemp("target"))
