"""What prepare records is a pure function of the inputs, and a change of any input is named."""

import base64
import os
import shutil
from array import array
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from eyas_contract.config import EvaluationConfig, JobConfig
from eyas_contract.errors import UserError
from eyas_contract.wire import Prepared
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.capture.prompts import read_at
from eyas_runtime.capture.tokenise import Tokeniser, load_tokenizer
from eyas_runtime.capture.watch import InputsWatch
from eyas_runtime.inputs import check_inputs, digest_inputs
from support.tiny_target import VOCAB_SIZE, make_tiny_target, tiny_job, write_tiny_prompts


@pytest.fixture
def job(tmp_path: Path, target: Path) -> JobConfig:
    copied = tmp_path / "target"
    shutil.copytree(target, copied)
    return tiny_job(tmp_path, target=copied, prompts=(write_tiny_prompts(tmp_path / "p.jsonl", 12, turns=2),))


def run(job: JobConfig) -> Prepared:
    return prepare(job, digest_inputs(job), lambda: None)


def column(text: str, code: str) -> list[int]:
    return list(array(code, base64.b64decode(text)))


def test_every_prompt_is_recorded_with_its_place_and_counts(job: JobConfig) -> None:
    prepared = run(job)
    tokeniser = Tokeniser(load_tokenizer(job.target), max_length=job.data.max_length)
    assert prepared.prompt_count == 12
    for file, offset, count, supervised in zip(
        column(prepared.file_indices, "H"), column(prepared.offsets, "Q"), column(prepared.token_counts, "I"),
        column(prepared.supervised_counts, "I"), strict=True,
    ):  # fmt: skip
        tokens = tokeniser.encode(read_at(job.data.prompts, file, offset).prompt, "here")
        assert (len(tokens.input_ids), tokens.num_supervised) == (count, supervised)


def test_vocabulary_is_that_of_the_supervised_tokens(job: JobConfig) -> None:
    prepared = run(job)
    offsets = np.frombuffer(base64.b64decode(prepared.draft_to_target), dtype="<i8")
    kept = set((offsets + np.arange(len(offsets))).tolist())
    tokenizer = load_tokenizer(job.target)
    assert len(offsets) == job.draft.vocab_size
    assert tokenizer.convert_tokens_to_ids("<|end|>") in kept
    assert tokenizer.convert_tokens_to_ids("<|user|>") not in kept - set(range(64))


def test_draft_vocabulary_is_never_larger_than_the_targets(job: JobConfig) -> None:
    prepared = run(msgspec.structs.replace(job, draft=msgspec.structs.replace(job.draft, vocab_size=32000)))
    assert len(base64.b64decode(prepared.draft_to_target)) == 8 * VOCAB_SIZE == 8 * prepared.target_vocab_size


def test_prepare_twice_gives_equal_bytes(job: JobConfig) -> None:
    assert msgspec.json.encode(run(job)) == msgspec.json.encode(run(job))


def test_cut_and_unsupervised_prompts_are_counted(job: JobConfig, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"messages": [{"role": "user", "content": "only a question"}]}\n'
        '{"text": "' + "the hawk " * 100 + '"}\n{"text": "short"}\n'
    )
    data = msgspec.structs.replace(job.data, prompts=(str(path),))
    prepared = run(msgspec.structs.replace(job, data=data))
    assert (prepared.truncated_prompts, prepared.empty_prompts) == (1, (0,))
    assert column(prepared.token_counts, "I")[1] == job.data.max_length


def test_data_without_a_single_supervised_token_is_refused(job: JobConfig, tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}\n')
    data = msgspec.structs.replace(job.data, prompts=(str(path),))
    with pytest.raises(UserError, match="no prompt has a supervised token"):
        run(msgspec.structs.replace(job, data=data))


def test_tokenizer_of_another_target_is_refused(job: JobConfig) -> None:
    config = Path(job.target.model) / "config.json"
    config.write_text(config.read_text().replace(f'"vocab_size": {VOCAB_SIZE}', '"vocab_size": 100'))
    with pytest.raises(UserError, match=r"p\.jsonl line 1 gives a token id outside 0..99"):
        run(job)


def test_wrong_line_stops_the_job_before_a_single_capture(job: JobConfig) -> None:
    with Path(job.data.prompts[0]).open("a") as file:
        file.write("{]\n")
    with pytest.raises(UserError, match=r"p\.jsonl line 13 is not a prompt"):
        run(job)


def test_reserved_bytes_cover_what_is_stored(job: JobConfig) -> None:
    prepared = run(job)
    assert prepared.bytes_per_token == 4 * 32 * 4 + 8 + 1
    assert prepared.hidden_size == 32


def test_feature_files_are_prepared_like_prompts(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    for index, length in enumerate((5, 9)):
        torch.save(
            {
                "input_ids": torch.full((1, length), 10 + index), "loss_mask": torch.ones(1, length),
                "hidden_state": torch.zeros(1, length, 32), "aux_hidden_state": torch.zeros(1, length, 96),
            },
            folder / f"{index}.ckpt",
        )  # fmt: skip
    job = tiny_job(tmp_path, target=target, features=(folder,))
    prepared = run(job)
    assert column(prepared.token_counts, "I") == [5, 9]
    assert column(prepared.supervised_counts, "I") == [4, 8]
    assert column(prepared.offsets, "Q") == [0, 1]
    (folder / "1.ckpt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"1\.ckpt"):
        run(job)


def edit(path: Path, old: bytes, new: bytes) -> None:
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        pytest.param("p.jsonl", b"the", b"The", "training data", id="data"),
        pytest.param("target/tokenizer.json", b'"the"', b'"teh"', "tokenizer", id="tokenizer"),
        pytest.param("target/chat_template.jinja", b"<|end|>", b"<|eod|>", "chat template", id="template"),
        pytest.param("target/config.json", b'"rope', b'"Rope', "target's configuration", id="config"),
        pytest.param("target/model.safetensors", b"\x3d", b"\x3e", "weights", id="weights"),
    ],
)
def test_hazard_16_change_of_any_input_is_named(
    job: JobConfig, tmp_path: Path, file: str, old: bytes, new: bytes, named: str
) -> None:
    before = digest_inputs(job)
    check_inputs(before, digest_inputs(job))
    edit(tmp_path / file, old, new)
    with pytest.raises(UserError, match="changed since this job was prepared") as caught:
        check_inputs(before, digest_inputs(job))
    assert named in str(caught.value)


def test_another_length_or_template_in_the_job_is_a_change(job: JobConfig) -> None:
    before = digest_inputs(job)
    for change in ({"max_length": 95}, {"chat_template": "x"}):
        other = msgspec.structs.replace(job, data=msgspec.structs.replace(job.data, **change))
        with pytest.raises(UserError, match=r"chat template or data\.maxLength"):
            check_inputs(before, digest_inputs(other))


def test_feature_file_that_changes_within_its_size_is_noticed(tmp_path: Path, target: Path) -> None:
    folder = tmp_path / "features"
    folder.mkdir()
    value = {"input_ids": torch.zeros(1, 200_000), "loss_mask": torch.zeros(1, 200_000)}
    torch.save(value, folder / "a.ckpt")
    job = tiny_job(tmp_path, target=target, features=(folder,))
    before, size = digest_inputs(job), (folder / "a.ckpt").stat().st_size
    value["input_ids"][0, 100_000] = 1
    torch.save(value, folder / "a.ckpt")
    assert (folder / "a.ckpt").stat().st_size == size
    assert digest_inputs(job).data != before.data


def test_hazard_16_edit_in_mid_run_is_noticed_at_the_next_group(job: JobConfig) -> None:
    watch = InputsWatch(job, digest_inputs(job))
    watch.check()
    os.utime(job.data.prompts[0], ns=(5, 5))
    watch.check()
    edit(Path(job.data.prompts[0]), b"the", b"The")
    with pytest.raises(UserError, match="training data"):
        watch.check()
    Path(job.data.prompts[0]).unlink()
    with pytest.raises(UserError, match="is gone"):
        watch.check()


def test_missing_weights_are_one_sentence(tmp_path: Path) -> None:
    folder = make_tiny_target(tmp_path / "t")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="safetensors"):
        digest_inputs(tiny_job(tmp_path, target=folder, prompts=(write_tiny_prompts(tmp_path / "p.jsonl", 1),)))


def evaluating(job: JobConfig, path: Path) -> JobConfig:
    evaluation = EvaluationConfig(prompts=(str(path),), every_steps=2)
    return msgspec.structs.replace(job, evaluation=evaluation)


def test_held_out_prompts_come_behind_the_trained_ones_and_change_nothing_of_theirs(
    job: JobConfig, tmp_path: Path
) -> None:
    """The draft's vocabulary above all: it decides the weights."""
    path = write_tiny_prompts(tmp_path / "held-out.jsonl", 5, seed=9)
    without, prepared = run(job), run(evaluating(job, Path(path)))
    assert (prepared.prompt_count, prepared.held_out_count) == (12, 5)
    assert (without.held_out_count, without.inputs.evaluation) == (0, "")
    assert prepared.draft_to_target == without.draft_to_target
    assert column(prepared.file_indices, "H") == [0] * 12 + [1] * 5
    assert column(prepared.token_counts, "I")[:12] == column(without.token_counts, "I")
    files = (*job.data.prompts, str(path))
    tokeniser = Tokeniser(load_tokenizer(job.target), max_length=job.data.max_length)
    offset, count = column(prepared.offsets, "Q")[14], column(prepared.token_counts, "I")[14]
    assert len(tokeniser.encode(read_at(files, 1, offset).prompt, "here").input_ids) == count


def test_held_out_prompts_are_an_input_of_their_own(job: JobConfig, tmp_path: Path) -> None:
    path = Path(write_tiny_prompts(tmp_path / "held-out.jsonl", 5, seed=9))
    subject = evaluating(job, path)
    before = digest_inputs(subject)
    assert before.data == digest_inputs(job).data
    edit(path, b"the", b"The")
    with pytest.raises(UserError, match="held-out prompts"):
        check_inputs(before, digest_inputs(subject))


def test_held_out_prompts_without_a_supervised_token_are_refused(job: JobConfig, tmp_path: Path) -> None:
    path = tmp_path / "held-out.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "the"}]}\n')
    with pytest.raises(UserError, match="no held-out prompt has a supervised token"):
        run(evaluating(job, path))
