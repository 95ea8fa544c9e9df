"""The examples that we ship are jobs that we accept, and every manifest they become is complete."""

from pathlib import Path

import pytest

from eyas_operator.api import load_yaml, parse
from eyas_operator.api.rules import resident_bytes_problem

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_is_accepted(path: Path) -> None:
    parse(load_yaml(path.read_text()))


def test_quickstart_holds_two_windows_of_its_target() -> None:
    path = next(path for path in EXAMPLES if path.name == "quickstart.yaml")
    spec = parse(load_yaml(path.read_text())).spec
    smollm2_hidden_size = 576
    assert resident_bytes_problem(spec, hidden_size=smollm2_hidden_size) is None
    assert resident_bytes_problem(spec, hidden_size=100 * smollm2_hidden_size) is not None
