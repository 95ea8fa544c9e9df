"""Bearer tokens in files: one token a line, at most two, so that a token can be rotated without a gap.

The first line is what a client sends; a service accepts both. Tokens never travel in argv, the environment or logs.
"""

from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError

TOKEN_LENGTH_MIN: Final = 32
"""Characters: 128 bits in hex is the least that is worth a constant-time comparison."""
TOKEN_LENGTH_MAX: Final = 512
TOKENS_MAX: Final = 2
_FILE_BYTES_MAX: Final = 4096


def read_tokens(path: str | Path) -> tuple[str, ...]:
    """The one or two tokens in the file `path`. Raises `UserError` naming the file when there is none or a bad one."""
    try:
        with open(path, "rb") as file:
            raw = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UserError(f"cannot read the token file {path}: {error.strerror}") from error
    if len(raw) > _FILE_BYTES_MAX:
        raise UserError(f"the token file {path} is larger than {_FILE_BYTES_MAX} bytes")
    try:
        tokens = tuple(line for line in (part.strip() for part in raw.decode("ascii").splitlines()) if line)
    except UnicodeDecodeError as error:
        raise UserError(f"the token file {path} holds something else than ASCII text") from error
    if not tokens:
        raise UserError(f"the token file {path} is empty; it must hold one or two tokens, one a line")
    if len(tokens) > TOKENS_MAX:
        raise UserError(f"the token file {path} holds {len(tokens)} tokens; at most {TOKENS_MAX} are valid at a time")
    for token in tokens:
        if not TOKEN_LENGTH_MIN <= len(token) <= TOKEN_LENGTH_MAX or not token.isprintable() or " " in token:
            raise UserError(
                f"the token file {path} holds a token that is not {TOKEN_LENGTH_MIN} to {TOKEN_LENGTH_MAX} "
                "printable characters without spaces"
            )
    return tokens
