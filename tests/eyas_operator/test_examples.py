"""The examples that we ship are jobs that we accept, and every manifest they become is complete."""

from pathlib import Path

import pytest

from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse

SMOLLM2_HIDDEN_SIZE = 576
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted(path: Path) -> None:
    parse(load_yaml(path.read_text()))


def test_quickstart_holds_two_windows_of_its_target() -> None:
    path = next(path for path in EXAMPLES if path.name == "quickstart.yaml")
    spec = parse(load_yaml(path.read_text())).spec
    element_bytes = 4 if spec.target.dtype == "float32" else 2
    token_bytes = 4 * SMOLLM2_HIDDEN_SIZE * element_bytes + 9
    assert spec.store.max_resident_bytes >= 2 * spec.training.window_size * spec.data.max_length * token_bytes
