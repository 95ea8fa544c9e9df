"""What is captured, from which layers, and that its bits depend on the group alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from eyas_contract.config import JobConfig, TargetConfig
from eyas_contract.errors import Bug, UserError
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import PromptTask
from eyas_contract.wire import Fingerprint
from eyas_runtime.capture.content import content_problem
from eyas_runtime.capture.engine import AUX, INPUT_IDS, LAST, LOSS_MASK, Advance, LeaseLost, Outcome
from eyas_runtime.capture.prompt_engine import PromptEngine
from eyas_runtime.capture.prompts import scan
from eyas_runtime.capture.tokenise import Tokeniser, load_tokenizer
from eyas_runtime.capture.transformers_model import TransformersModel, load_causal_lm, logit_scale
from support.tiny_target import VOCAB_SIZE, make_tiny_target, tiny_job, write_tiny_prompts

CPU = torch.device("cpu")


def nothing() -> None:
    return None


@pytest.fixture
def job(tmp_path: Path, target: Path) -> JobConfig:
    return tiny_job(tmp_path, target=target, prompts=(write_tiny_prompts(tmp_path / "p.jsonl", 8),))


@pytest.fixture(scope="module")
def model(target: Path) -> TransformersModel:
    return TransformersModel(TargetConfig(model=str(target)), device=CPU)


def tokeniser_of(job: JobConfig) -> Tokeniser:
    return Tokeniser(load_tokenizer(job.target), max_length=job.data.max_length)


def tasks_of(job: JobConfig, indices: Sequence[int], *, capture: Sequence[int] | None = None) -> list[PromptTask]:
    located = list(scan(job.data.prompts))
    tokeniser = tokeniser_of(job)
    return [
        PromptTask(
            sample_id=sample_id(index),
            sequence=index,
            prompt_index=index,
            file_index=located[index].file_index,
            offset=located[index].offset,
            num_tokens=len(tokeniser.encode(located[index].prompt, "here").input_ids),
            capture=capture is None or index in capture,
            key=ObjectKey("k"),
        )
        for index in indices
    ]


def features_of(outcomes: Sequence[Outcome]) -> dict[int, dict[str, Tensor]]:
    assert not any(outcome.problem for outcome in outcomes)
    return {outcome.task.sequence: dict(outcome.features or {}) for outcome in outcomes}


def longest(tasks: Sequence[PromptTask]) -> int:
    return max(task.num_tokens for task in tasks)


def equal(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_captured_layers_are_the_outputs_of_the_named_decoder_layers(job: JobConfig, model: TransformersModel) -> None:
    tasks = tasks_of(job, [0])
    captured = features_of(
        PromptEngine(job.data.prompts, tokeniser_of(job), model).capture(tasks, longest(tasks), nothing)
    )
    whole = load_causal_lm(job.target, dtype=torch.float32)
    with torch.inference_mode():
        states = whole(captured[0][INPUT_IDS][None], output_hidden_states=True).hidden_states
    assert model.layer_ids == (1, 2, 2)
    expected = torch.cat([states[index + 1][0] for index in model.layer_ids], dim=-1)
    assert torch.equal(captured[0][AUX], expected)
    assert torch.equal(captured[0][LAST], states[-1][0])


def test_last_state_is_after_the_final_norm_and_gives_the_logits(job: JobConfig, model: TransformersModel) -> None:
    tasks = tasks_of(job, [1])
    features = features_of(
        PromptEngine(job.data.prompts, tokeniser_of(job), model).capture(tasks, longest(tasks), nothing)
    )[1]
    whole = load_causal_lm(job.target, dtype=torch.float32)
    with torch.inference_mode():
        logits = whole(features[INPUT_IDS][None]).logits[0]
    assert torch.equal(features[LAST] @ whole.get_output_embeddings().weight.T, logits)


def test_last_decoder_layer_is_captured_before_the_norm(target: Path) -> None:
    last = TransformersModel(TargetConfig(model=str(target), capture_layers=(0, 1, 5)), device=CPU)
    rows = torch.arange(12)[None] + 7
    aux, normed = last.forward(rows, nothing)
    assert not torch.equal(aux[..., -32:], normed)
    weight = load_causal_lm(TargetConfig(model=str(target)), dtype=torch.float32).model.norm
    with torch.inference_mode():
        assert torch.equal(weight(aux[..., -32:]), normed)


def test_hazard_15_member_captured_again_alone_in_its_group_has_equal_bits(
    job: JobConfig, model: TransformersModel
) -> None:
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), model)
    together = tasks_of(job, [0, 1, 2, 3])
    first = features_of(engine.capture(together, longest(together), nothing))
    for index in range(4):
        again = features_of(engine.capture(tasks_of(job, [0, 1, 2, 3], capture=[index]), longest(together), nothing))
        assert list(again) == [index]
        assert equal(again[index], first[index])


def test_padding_never_reaches_a_true_position(job: JobConfig, model: TransformersModel) -> None:
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), model)
    short, long = tasks_of(job, [0]), tasks_of(job, [0])
    near = features_of(engine.capture(short, longest(short), nothing))[0]
    far = features_of(engine.capture(long, 90, nothing))[0]
    assert torch.allclose(near[AUX], far[AUX], rtol=1e-4, atol=1e-5)
    assert near[AUX].shape == far[AUX].shape


def test_mask_and_ids_are_those_of_the_tokeniser(job: JobConfig, model: TransformersModel) -> None:
    tasks = tasks_of(job, [0, 1])
    captured = features_of(
        PromptEngine(job.data.prompts, tokeniser_of(job), model).capture(tasks, longest(tasks), nothing)
    )
    for located, index in zip(scan(job.data.prompts), (0, 1), strict=False):
        tokens = tokeniser_of(job).encode(located.prompt, "here")
        assert captured[index][INPUT_IDS].tolist() == tokens.input_ids.tolist()
        assert captured[index][LOSS_MASK].tolist() == tokens.loss_mask.tolist()
        assert 0 < int(captured[index][LOSS_MASK].sum()) < len(tokens.input_ids)


def test_prompt_with_another_token_count_than_prepared_stops_the_job(job: JobConfig, model: TransformersModel) -> None:
    import msgspec

    tasks = [msgspec.structs.replace(task, num_tokens=task.num_tokens + 1) for task in tasks_of(job, [0])]
    with pytest.raises(UserError, match="when the job was prepared"):
        PromptEngine(job.data.prompts, tokeniser_of(job), model).capture(tasks, 96, nothing)


def test_losing_the_lease_interrupts_the_forward_pass(job: JobConfig, model: TransformersModel) -> None:
    def lost() -> None:
        raise LeaseLost("x")

    tasks = tasks_of(job, [0])
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), model)
    with pytest.raises(LeaseLost):
        engine.capture(tasks, longest(tasks), lost)
    assert features_of(engine.capture(tasks, longest(tasks), nothing))


class Faulty:
    """A target that fails in chosen ways; everything else is the real one's."""

    def __init__(self, model: TransformersModel) -> None:
        self.model = model
        self.hidden_size, self.vocab_size, self.dtype = model.hidden_size, model.vocab_size, model.dtype
        self.raises: dict[int, Exception] = {}
        self.not_finite: set[int] = set()
        self.heal_after: int | None = None
        self.calls = 0

    def fingerprint(self) -> Fingerprint:
        return self.model.fingerprint()

    def forward(self, rows: Tensor, advance: Advance) -> tuple[Tensor, Tensor]:
        """A row is bad when its first token after the header is a chosen one."""
        self.calls += 1
        healed = self.heal_after is not None and self.calls > self.heal_after
        aux, last = self.model.forward(rows, advance)
        last = last.clone()
        for place, row in enumerate(rows.tolist()):
            for mark, error in self.raises.items():
                if mark in row and not healed:
                    raise error
            if self.not_finite & set(row) and not healed:
                last[place, 1] = float("nan")
        return aux, last


def marked(tmp_path: Path, target: Path) -> tuple[JobConfig, int]:
    """A job of three prompts of which the second alone holds the byte token of `~`."""
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"text": "the hawk"}\n{"text": "evil ~ line"}\n{"text": "and the air over the inlet"}\n', encoding="utf-8"
    )
    job = tiny_job(tmp_path, target=target, prompts=(path,))
    return job, int(load_tokenizer(job.target).encode("~")[0])


def test_values_that_are_not_finite_are_poison_of_that_member_alone(
    tmp_path: Path, target: Path, model: TransformersModel
) -> None:
    job, mark = marked(tmp_path, target)
    faulty = Faulty(model)
    faulty.not_finite = {mark}
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), faulty)
    tasks = tasks_of(job, [0, 1, 2])
    outcomes = engine.capture(tasks, longest(tasks), nothing)
    assert [bool(outcome.problem) for outcome in outcomes] == [False, True, False]
    assert "not finite" in outcomes[1].problem


def test_error_that_one_row_raises_by_itself_is_poison_and_spares_the_others(
    tmp_path: Path, target: Path, model: TransformersModel
) -> None:
    job, mark = marked(tmp_path, target)
    faulty = Faulty(model)
    faulty.raises = {mark: IndexError("index out of range in self")}
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), faulty)
    tasks = tasks_of(job, [0, 1, 2])
    outcomes = engine.capture(tasks, longest(tasks), nothing)
    assert "index out of range" in outcomes[1].problem
    first = features_of([outcomes[0], outcomes[2]])
    again = engine.capture(tasks_of(job, [0, 1, 2], capture=[2]), longest(tasks), nothing)
    assert equal(features_of(again)[2], first[2])


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(RuntimeError("CUDA error: device-side assert triggered"), id="device"),
        pytest.param(RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 bytes"), id="cpu memory"),
        pytest.param(torch.OutOfMemoryError("no"), id="gpu memory"),
        pytest.param(OSError(5, "Input/output error"), id="io"),
        pytest.param(MemoryError(), id="memory"),
    ],
)
def test_memory_device_and_io_errors_are_never_poison(
    tmp_path: Path, target: Path, model: TransformersModel, error: Exception
) -> None:
    job, mark = marked(tmp_path, target)
    faulty = Faulty(model)
    faulty.raises = {mark: error}
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), faulty)
    tasks = tasks_of(job, [0, 1, 2])
    with pytest.raises(type(error)):
        engine.capture(tasks, longest(tasks), nothing)


def test_error_that_does_not_come_again_is_no_poison(tmp_path: Path, target: Path, model: TransformersModel) -> None:
    job, mark = marked(tmp_path, target)
    faulty = Faulty(model)
    faulty.not_finite, faulty.heal_after = {mark}, 1
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), faulty)
    tasks = tasks_of(job, [0, 1, 2])
    assert len(features_of(engine.capture(tasks, longest(tasks), nothing))) == 3


def test_machine_that_fails_for_padding_too_blames_no_content(
    tmp_path: Path, target: Path, model: TransformersModel
) -> None:
    job, _ = marked(tmp_path, target)
    faulty = Faulty(model)
    faulty.not_finite = set(range(VOCAB_SIZE))
    engine = PromptEngine(job.data.prompts, tokeniser_of(job), faulty)
    tasks = tasks_of(job, [0, 1, 2])
    with pytest.raises(RuntimeError, match="machine is to blame"):
        engine.capture(tasks, longest(tasks), nothing)


def test_wrong_names_widths_and_dtypes_are_our_bug_not_poison() -> None:
    good = {
        INPUT_IDS: torch.zeros(3, dtype=torch.int64), LOSS_MASK: torch.zeros(3, dtype=torch.uint8),
        AUX: torch.zeros(3, 12), LAST: torch.zeros(3, 4),
    }  # fmt: skip
    assert content_problem(good, hidden_size=4, dtype=torch.float32) == ""
    for name, wrong in (
        (INPUT_IDS, torch.zeros(3, dtype=torch.int32)),
        (LOSS_MASK, torch.zeros(2, dtype=torch.uint8)),
        (AUX, torch.zeros(3, 11)),
        (LAST, torch.zeros(3, 4, dtype=torch.bfloat16)),
        ("extra", torch.zeros(3)),
    ):
        with pytest.raises(Bug):
            content_problem({**good, name: wrong}, hidden_size=4, dtype=torch.float32)


@pytest.mark.parametrize("ids", [(1, 1, 2), (2, 1, 3), (1, 2, 6), (-1, 2, 3)], ids=str)
def test_impossible_capture_layers_are_refused(target: Path, ids: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="captureLayers"):
        TransformersModel(TargetConfig(model=str(target), capture_layers=ids), device=CPU)


def test_captured_dtype_is_the_targets(target: Path) -> None:
    half = TransformersModel(TargetConfig(model=str(target), dtype="bfloat16"), device=CPU)
    aux, last = half.forward(torch.arange(8)[None] + 7, nothing)
    assert (aux.dtype, last.dtype) == (torch.bfloat16, torch.bfloat16)


def test_fingerprint_names_what_changes_bits(target: Path, model: TransformersModel) -> None:
    here = model.fingerprint()
    assert {"torch", "transformers", "dtype", "threads", "isa", "device", "layers", "attention"} <= here.facts.keys()
    other = TransformersModel(TargetConfig(model=str(target), threads=2), device=CPU).fingerprint()
    assert other.digest != here.digest
    assert TransformersModel(TargetConfig(model=str(target)), device=CPU).fingerprint() == here


def test_weights_that_are_pickles_are_never_loaded(tmp_path: Path) -> None:
    folder = make_tiny_target(tmp_path / "t")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="safetensors"):
        TransformersModel(TargetConfig(model=str(folder)), device=CPU)


def test_logit_scale_of_the_mup_family_is_put_back() -> None:
    from transformers import CohereConfig, GraniteConfig, LlamaConfig

    assert logit_scale(LlamaConfig()) == 1.0
    assert logit_scale(CohereConfig(logit_scale=0.25)) == 0.25
    assert logit_scale(GraniteConfig(logits_scaling=8.0)) == 0.125


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "gpt_neox", "opt", "mistral"])
def test_other_architectures_are_captured_from_the_same_places(tmp_path: Path, kind: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 8, "num_attention_heads": 2, "vocab_size": 50,
        "num_key_value_heads": 2, "ffn_dim": 32, "word_embed_proj_dim": 16, "max_position_embeddings": 64,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        whole = cast("Any", AutoModelForCausalLM).from_config(AutoConfig.for_model(kind, **sizes)).eval()
    whole.save_pretrained(tmp_path)
    model = TransformersModel(TargetConfig(model=str(tmp_path)), device=CPU)
    rows = torch.arange(10)[None] + 3
    aux, last = model.forward(rows, nothing)
    with torch.inference_mode():
        states = whole(rows, output_hidden_states=True, use_cache=False).hidden_states
    assert torch.equal(aux, torch.cat([states[index + 1] for index in model.layer_ids], dim=-1))
    assert torch.equal(last, states[-1])
