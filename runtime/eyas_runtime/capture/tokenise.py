"""Prompt -> token ids and a loss mask that is 1 on assistant turns only; for any Hugging Face tokenizer.

The mask comes from the template itself: from its `{% generation %}` marks where it has them, else from the difference
between the conversation rendered up to a turn and the whole of it, in characters, which the tokenizer's own offsets
carry over to tokens. Nothing knows the name of a model. Rendering is a pure function of the conversation: templates
that ask for today's date get a fixed one, because a sample captured again tomorrow must have the same tokens.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
import numpy.typing as npt

from eyas_contract.config import TargetConfig
from eyas_contract.errors import UserError
from eyas_runtime.capture.prompts import Message, Prompt

_GENERATION: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
_FIXED_DATE: Final = "01 Jan 2025"
_FIXED_PARTS: Final = {
    "%d": "01", "%m": "01", "%Y": "2025", "%y": "25", "%b": "Jan", "%B": "January", "%a": "Wed", "%A": "Wednesday",
    "%H": "00", "%M": "00", "%S": "00",
}  # fmt: skip
"""What templates get when they ask for the date: the first of January 2025."""
_CLOCK: Final = "strftime_now"
_NAMES_MAX: Final = 8
Span = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One sample before capture."""

    input_ids: npt.NDArray[np.int64]
    """int64 [L]."""
    loss_mask: npt.NDArray[np.uint8]
    """uint8 [L]: 1 on tokens of assistant turns."""
    truncated: bool

    @property
    def num_supervised(self) -> int:
        """Positions with loss_mask 1, the last position excluded (it has no next hidden state to learn from)."""
        return int(self.loss_mask[:-1].sum())


def load_tokenizer(target: TargetConfig) -> Any:  # noqa: ANN401 - transformers has no common typed base
    """The tokenizer in the target's folder; no code from the folder is run. Raises `UserError`."""
    from transformers import AutoTokenizer

    options = {"gguf_file": target.gguf_file} if target.gguf_file else {}
    if not Path(target.model).is_dir():
        raise UserError(f"target.model {target.model} is not a folder; give the folder of a Hugging Face model")
    try:
        return AutoTokenizer.from_pretrained(
            target.model, local_files_only=True, trust_remote_code=False, use_fast=True, **options
        )
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(
            f"target.model {target.model} has no tokenizer that can be loaded: its folder {_content(target.model)}; "
            "give the folder of a whole Hugging Face model, tokenizer files included "
            f"(transformers says: {_first_line(error)})"
        ) from error


def _content(folder: str) -> str:
    names = sorted(entry.name for entry in Path(folder).iterdir())
    if not names:
        return "is empty"
    more = f" and {len(names) - _NAMES_MAX} more" if len(names) > _NAMES_MAX else ""
    return f"holds {', '.join(names[:_NAMES_MAX])}{more}"


class Tokeniser:
    """Tokenises prompts in one way, for `prepare` and for every capture alike."""

    def __init__(self, tokenizer: Any, *, max_length: int, chat_template: str | None = None) -> None:  # noqa: ANN401
        if max_length < 2:
            raise UserError(f"data.maxLength is {max_length}; a sample needs at least 2 tokens")
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._template = fixed_template(chat_template or getattr(tokenizer, "chat_template", None))
        self._has_marks = bool(_GENERATION.search(self._template))

    def encode(self, prompt: Prompt, where: str) -> Tokens:
        """Token ids and mask, cut at max_length. Raises `UserError` naming `where` for what cannot be rendered."""
        if prompt.text is not None:
            ids = list(self._tokenizer(prompt.text, add_special_tokens=True)["input_ids"])
            mask = [1] * len(ids)
        else:
            ids, mask = self._conversation(prompt.messages, where)
        if not ids:
            raise UserError(f"{where} gives no token at all")
        return Tokens(
            input_ids=np.asarray(ids[: self._max_length], dtype=np.int64),
            loss_mask=np.asarray(mask[: self._max_length], dtype=np.uint8),
            truncated=len(ids) > self._max_length,
        )

    def _conversation(self, messages: Sequence[Message], where: str) -> tuple[list[int], list[int]]:
        dicts = [{"role": message.role, "content": message.content} for message in messages]
        if self._has_marks and getattr(self._tokenizer, "is_fast", False):
            encoded = _apply(
                self._tokenizer, self._template, dicts, where,
                tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
            )  # fmt: skip
            return list(encoded["input_ids"]), list(encoded["assistant_masks"])
        text, spans = assistant_spans(dicts, self._renderer(where), where)
        return self._encode_text(text, spans)

    def _renderer(self, where: str) -> Callable[[list[dict[str, str]], bool], str]:
        return lambda part, opened: rendered(self._tokenizer, self._template, part, where, opened=opened)

    def _encode_text(self, text: str, spans: Sequence[Span]) -> tuple[list[int], list[int]]:
        if getattr(self._tokenizer, "is_fast", False):
            encoded = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            return list(encoded["input_ids"]), mask_of(encoded["offset_mapping"], spans)
        # Without offsets the text is cut at the turns; they begin and end at special tokens, which never merge.
        ids: list[int] = []
        mask: list[int] = []
        for start, end, supervised in _pieces(len(text), spans):
            piece = self._tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
            ids += piece
            mask += [int(supervised)] * len(piece)
        return ids, mask


def fixed_template(template: str | dict[str, str] | None) -> str:
    """`template` (of several, the one called `default`) with a clock that stands still; empty if there is none."""
    text = template.get("default", "") if isinstance(template, dict) else template or ""
    if _CLOCK not in text:
        return text
    # A macro of the same name hides the function that reads the real clock.
    filters = "".join(f"|replace('{mark}','{value}')" for mark, value in _FIXED_PARTS.items())
    return f"{{%- macro {_CLOCK}(format) -%}}{{{{ format{filters} }}}}{{%- endmacro %}}{text}"


def rendered(tokenizer: Any, template: str, messages: list[dict[str, str]], where: str, *, opened: bool) -> str:  # noqa: ANN401
    """The conversation as text, with the assistant's header at its end if `opened`. Raises `UserError`."""
    if not template:
        raise UserError(f"{where} has messages, but the tokenizer has no chat template; give data.chatTemplate")
    return str(_apply(tokenizer, template, messages, where, tokenize=False, add_generation_prompt=opened))


def _apply(tokenizer: Any, template: str, messages: list[dict[str, str]], where: str, **options: object) -> Any:  # noqa: ANN401
    try:
        return tokenizer.apply_chat_template(messages, chat_template=template, date_string=_FIXED_DATE, **options)
    except (jinja2.TemplateError, ValueError, TypeError, KeyError, IndexError) as error:
        raise UserError(f"{where} does not fit the chat template: {_first_line(error)}") from error


def assistant_spans(
    messages: list[dict[str, str]], render: Callable[[list[dict[str, str]], bool], str], where: str
) -> tuple[str, list[Span]]:
    """The rendered conversation and the character ranges that the model itself would have written.

    `render(messages, opened)` renders a conversation, with the assistant's header at its end if `opened`. A range
    begins after that header and ends after the end-of-turn mark.
    """
    text = render(messages, False)
    spans: list[Span] = []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start = _start(text, messages[:index], render) if index else max(text.find(message["content"].strip()), 0)
        through = render(messages[: index + 1], False)
        end = len(through) if text.startswith(through) else _end(text, start, message["content"], through)
        if start < 0 or end < start:
            raise UserError(
                f"{where}: the chat template rewrites turn {index + 1}, so its tokens cannot be told from the others; "
                "give data.chatTemplate with generation marks"
            )
        spans.append((start, end))
    return text, spans


def _start(text: str, earlier: list[dict[str, str]], render: Callable[[list[dict[str, str]], bool], str]) -> int:
    """Where the assistant's header after the turns `earlier` ends in `text`; -1 if they read differently there."""
    before = render(earlier, True)
    if text.startswith(before):
        return len(before)
    # A template may end its generation prompt with text (an empty thought) that a finished turn has not; the header is
    # what both have in common, provided that the turns before it are the same.
    if not text.startswith(render(earlier, False)):
        return -1
    return next((i for i, (a, b) in enumerate(zip(text, before, strict=False)) if a != b), min(len(text), len(before)))


def _end(text: str, start: int, content: str, through: str) -> int:
    """End of a turn that reads differently when others follow: its content, then the mark that ended it; or -1."""
    body = content.strip()
    found = text.find(body, max(start, 0))
    alone = through.rfind(body)
    if not body or found < 0 or alone < 0:
        return -1
    tail = through[alone + len(body) :]
    end = found + len(body)
    return end + len(tail) if text.startswith(tail, end) else -1


def mask_of(offsets: Sequence[Span], spans: Sequence[Span]) -> list[int]:
    """1 for each token whose first character lies in one of `spans` (ascending, disjoint)."""
    mask = [0] * len(offsets)
    position = 0
    for index, (start, end) in enumerate(offsets):
        while position < len(spans) and spans[position][1] <= start:
            position += 1
        if position < len(spans) and spans[position][0] <= start and end > start:
            mask[index] = 1
    return mask


def _pieces(length: int, spans: Sequence[Span]) -> list[tuple[int, int, bool]]:
    pieces: list[tuple[int, int, bool]] = []
    position = 0
    for start, end in spans:
        pieces += [(position, start, False), (start, end, True)]
        position = end
    pieces.append((position, length, False))
    return [piece for piece in pieces if piece[1] > piece[0]]


def _first_line(error: BaseException) -> str:
    """What the error says first, whole: a line that ends with a colon is only the head of what follows."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    head = next((place for place, line in enumerate(lines) if not line.endswith(":")), 0)
    return " ".join(lines[: head + 1])[:300] or type(error).__name__
