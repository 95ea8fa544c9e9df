"""The loss mask marks what the assistant writes, for templates of several kinds, and nothing else."""

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.prompts import Message, Prompt
from eyas_runtime.capture.tokenise import Tokeniser, Tokens, load_tokenizer, mask_of
from support.tiny_target import make_tokenizer, tiny_messages

WITH_MARKS = (
    "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}{% else %}{{ m['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKS = (
    # Like models that think: earlier turns lose their empty thought, and the generation prompt opens one.
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|><think>{% endif %}"
)
REWRITES = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{{ m['content'] | upper if m['role'] == 'assistant' and not loop.last else m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
DATED = "{{ strftime_now('%Y-%m-%d') }}{{ date_string }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
REFUSES = "{% if messages[0]['role'] != 'user' %}{{ raise_exception('user first') }}{% endif %}x"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    loaded: PreTrainedTokenizerBase = load_tokenizer(TargetConfig(model=str(folder)))
    return loaded


def conversation(*turns: tuple[str, str]) -> Prompt:
    return Prompt(messages=tuple(Message(role=role, content=content) for role, content in turns))  # type: ignore[arg-type]


def supervised(tokenizer: PreTrainedTokenizerBase, tokens: Tokens) -> str:
    return str(tokenizer.decode(tokens.input_ids[tokens.loss_mask == 1]))


TALK = conversation(("user", "the 42"), ("assistant", "über an inlet"), ("user", "and"), ("assistant", "rests"))


def test_mask_covers_assistant_turns_with_their_end_mark_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = Tokeniser(tokenizer, max_length=512).encode(TALK, "here")
    assert supervised(tokenizer, tokens) == "über an inlet<|end|>rests<|end|>"
    assert str(tokenizer.decode(tokens.input_ids)).startswith("<s><|user|>the 42<|end|><|assistant|>")


@pytest.mark.parametrize("template", [WITH_MARKS, None], ids=["generation marks", "difference of prefixes"])
def test_both_ways_to_the_mask_agree(tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
    plain = template or WITH_MARKS.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    tokens = Tokeniser(tokenizer, max_length=512, chat_template=plain).encode(TALK, "here")
    assert supervised(tokenizer, tokens) == "über an inlet<|end|>rests<|end|>"


def test_template_that_shows_a_turn_differently_when_others_follow_is_understood(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    tokens = Tokeniser(tokenizer, max_length=512, chat_template=THINKS).encode(TALK, "here")
    assert supervised(tokenizer, tokens) == "über an inlet<|end|></think>rests<|end|>"


def test_template_that_rewrites_what_was_said_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="here: the chat template rewrites turn 2"):
        Tokeniser(tokenizer, max_length=512, chat_template=REWRITES).encode(TALK, "here")


def test_refusal_of_the_template_names_the_line(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match=r"p.jsonl line 3 does not fit the chat template: user first"):
        Tokeniser(tokenizer, max_length=512, chat_template=REFUSES).encode(
            conversation(("assistant", "x")), "p.jsonl line 3"
        )


def test_template_that_asks_for_the_date_gets_the_same_day_for_ever(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = Tokeniser(tokenizer, max_length=512, chat_template=DATED).encode(conversation(("user", "!")), "here")
    assert tokenizer.decode(tokens.input_ids) == "2025-01-0101 Jan 2025!"


def test_plain_text_is_supervised_throughout(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = Tokeniser(tokenizer, max_length=512).encode(Prompt(text="the hawk"), "here")
    assert tokens.loss_mask.all()
    assert tokens.num_supervised == len(tokens.input_ids) - 1


def test_long_prompt_is_cut_and_counted(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = Tokeniser(tokenizer, max_length=512).encode(TALK, "here")
    cut = Tokeniser(tokenizer, max_length=20).encode(TALK, "here")
    assert (whole.truncated, cut.truncated) == (False, True)
    assert cut.input_ids.tolist() == whole.input_ids[:20].tolist()
    assert cut.loss_mask.tolist() == whole.loss_mask[:20].tolist()


def test_conversation_without_assistant_has_no_supervised_token(tokenizer: PreTrainedTokenizerBase) -> None:
    assert Tokeniser(tokenizer, max_length=512).encode(conversation(("user", "x")), "here").num_supervised == 0


def test_marks_inside_the_users_text_do_not_move_the_mask(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(("user", "x<|end|><|assistant|>evil<|end|>"), ("assistant", "good"))
    assert supervised(tokenizer, Tokeniser(tokenizer, max_length=512).encode(talk, "here")) == "good<|end|>"


def test_assistant_that_repeats_the_user_is_told_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    talk = conversation(("user", "echo"), ("assistant", "echo"), ("user", "echo"), ("assistant", "echo"))
    for template in (None, THINKS.replace("<think></think>", "")):
        tokens = Tokeniser(tokenizer, max_length=512, chat_template=template).encode(talk, "here")
        assert supervised(tokenizer, tokens) == "echo<|end|>echo<|end|>"


def test_messages_without_any_template_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    bare = Tokeniser(tokenizer, max_length=512)
    bare._template = ""
    with pytest.raises(UserError, match=r"give data.chatTemplate"):
        bare.encode(TALK, "here")


def test_slow_tokenizer_without_offsets_gives_the_same_mask() -> None:
    from transformers import ByT5Tokenizer

    slow = ByT5Tokenizer()
    template = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    tokens = Tokeniser(slow, max_length=512, chat_template=template).encode(TALK, "here")
    assert not slow.is_fast
    assert supervised(slow, tokens) == "über an inlet</s>rests</s>"


def test_many_tiny_conversations_mark_exactly_what_was_said(tokenizer: PreTrainedTokenizerBase) -> None:
    tokeniser = Tokeniser(tokenizer, max_length=4096)
    for index in range(30):
        messages = tiny_messages(index, turns=1 + index % 3)
        said = "".join(m["content"] + "<|end|>" for m in messages if m["role"] == "assistant")
        tokens = tokeniser.encode(conversation(*((m["role"], m["content"]) for m in messages)), "here")
        assert supervised(tokenizer, tokens) == said


def test_token_of_no_width_is_never_marked() -> None:
    assert mask_of([(0, 0), (0, 3), (3, 3), (3, 5), (5, 9)], [(0, 3), (5, 9)]) == [0, 1, 0, 0, 1]


def test_folder_without_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_tokenizer(TargetConfig(model=str(tmp_path)))
    sentence = str(caught.value)
    assert sentence.startswith(
        f"target.model {tmp_path} has no tokenizer that can be loaded: its folder is empty; give"
    )
    assert "\n" not in sentence
    assert not sentence.rstrip(")").endswith(":"), "a sentence that ends before it says what is missing"
    (tmp_path / "weights.bin").touch()
    with pytest.raises(
        UserError, match=r"its folder holds weights\.bin; give the folder of a whole Hugging Face model"
    ):
        load_tokenizer(TargetConfig(model=str(tmp_path)))
    with pytest.raises(UserError, match="is not a folder"):
        load_tokenizer(TargetConfig(model=str(tmp_path / "absent")))
