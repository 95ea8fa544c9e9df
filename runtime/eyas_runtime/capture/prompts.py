"""Prompts as JSON lines, found by byte offset, so that any producer can read any one without reading the others.

The files come from people and converters: every wrong line raises `UserError` with one sentence that names the file and
the line. Blank lines are skipped. A line is `{"messages": [{"role", "content"}, ...]}` (or `conversations`, as existing
collections call it) or `{"text": ...}`; other fields are ignored, because collections carry ids and sources.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Transient, UserError

LINE_BYTES_MAX: Final = 16 << 20
"""A line of more is no prompt: a lost newline, or a file of another kind."""
MESSAGES_MAX: Final = 4096
FILES_MAX: Final = 1 << 16
"""File indices travel as uint16."""
Role = Literal["system", "user", "assistant", "tool"]


class Message(msgspec.Struct, frozen=True):
    """One turn."""

    role: Role
    content: str


class _Line(msgspec.Struct, frozen=True):
    messages: list[Message] | None = None
    conversations: list[Message] | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Exactly one of the two: a conversation, or plain text of which every token is supervised."""

    messages: tuple[Message, ...] = ()
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """A prompt and where it was found."""

    prompt: Prompt
    file_index: int
    offset: int
    """Byte offset of the line in its file."""
    where: str
    """`<file> line <n>`, for messages to people."""


_DECODER: Final = msgspec.json.Decoder(_Line)


def parse(raw: bytes, where: str) -> Prompt:
    """The prompt in one line. Raises `UserError` naming `where`."""
    try:
        line = _DECODER.decode(raw)
    except UNDECODABLE as error:
        raise UserError(f"{where} is not a prompt: {error}") from error
    given = [value for value in (line.messages, line.conversations, line.text) if value is not None]
    if len(given) != 1:
        raise UserError(f"{where} needs exactly one of the fields messages and text; it has {len(given)}")
    if line.text is not None:
        if not line.text:
            raise UserError(f"{where} has an empty text")
        return Prompt(text=line.text)
    messages = line.messages if line.messages is not None else line.conversations or []
    if not 1 <= len(messages) <= MESSAGES_MAX:
        raise UserError(f"{where} has {len(messages)} messages; give 1 to {MESSAGES_MAX}")
    return Prompt(messages=tuple(messages))


def scan(files: tuple[str, ...]) -> Iterator[Located]:
    """All prompts of `files` in file order. Raises `UserError` for a wrong line or file, `Transient` for I/O."""
    if len(files) > FILES_MAX:
        raise UserError(f"data.prompts names {len(files)} files; join them into at most {FILES_MAX}")
    for file_index, name in enumerate(files):
        found = False
        for located in _scan_file(Path(name), file_index):
            found = True
            yield located
        if not found:
            raise UserError(f"{name} holds no prompt: every line is blank or the file is empty")


def _scan_file(path: Path, file_index: int) -> Iterator[Located]:
    try:
        with path.open("rb") as file:
            offset, number = 0, 0
            while raw := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                where = f"{path} line {number}"
                if len(raw) > LINE_BYTES_MAX:
                    raise UserError(f"{where} has more than {LINE_BYTES_MAX} bytes; split it or mend its newlines")
                if raw.strip():
                    yield Located(prompt=parse(raw, where), file_index=file_index, offset=offset, where=where)
                offset += len(raw)
    except OSError as error:
        raise _unreadable(path, error) from error


def held_out(data: tuple[str, ...], evaluation: tuple[str, ...]) -> Iterator[Located]:
    """All held-out prompts; their file numbers go on after those of `data`. Errors as in `scan`."""
    if len(data) + len(evaluation) > FILES_MAX:
        raise UserError(f"data.prompts and evaluation.prompts name more than {FILES_MAX} files; join them")
    for located in scan(evaluation):
        yield replace(located, file_index=len(data) + located.file_index)


def read_at(files: tuple[str, ...], file_index: int, offset: int) -> Located:
    """The prompt whose line starts at byte `offset`. Errors as in `scan`."""
    if not 0 <= file_index < len(files):
        raise UserError(f"the job has {len(files)} prompt files, but a prompt is in number {file_index}: they changed")
    path = Path(files[file_index])
    where = f"{path} at byte {offset}"
    try:
        with path.open("rb") as file:
            if offset:
                file.seek(offset - 1)
                if file.read(1) != b"\n":
                    raise UserError(f"{where} no line starts: the file changed since the job began")
            raw = file.readline(LINE_BYTES_MAX + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if not raw.strip() or len(raw) > LINE_BYTES_MAX:
        raise UserError(f"{where} no prompt starts: the file changed since the job began")
    return Located(prompt=parse(raw, where), file_index=file_index, offset=offset, where=where)


def _unreadable(path: Path, error: OSError) -> UserError | Transient:
    # A path that is wrong stays wrong; everything else (a stale handle, a slow server) may heal.
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError):
        return UserError(f"cannot read the prompts in {path}: {error.strerror}")
    return Transient(f"cannot read the prompts in {path}: {error.strerror}", retry_after_seconds=1.0)
