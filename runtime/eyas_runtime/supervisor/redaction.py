"""The secrets that a pod knows, and text without them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from eyas_contract import env

REDACTED: Final = "[redacted]"
SECRET_CHARACTERS_MIN: Final = 8
"""Shorter values are found in any text and are no secrets worth the name."""
_SECRET_BYTES_MAX: Final = 4096
_NAMES: Final = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|KEY", re.IGNORECASE)
_OURS: Final = "EYAS_"
"""Variables with this prefix hold paths and numbers, never a secret."""


def known_secrets(environ: Mapping[str, str]) -> list[str]:
    """The job's own tokens, from their files, and what variables hold that are called secrets; longest first."""
    named = [value for name, value in environ.items() if _NAMES.search(name) and not name.startswith(_OURS)]
    folder = environ.get(env.TOKEN_DIRECTORY)
    found = {text.strip() for text in (*named, *(_files(Path(folder)) if folder else ()))}
    return sorted((text for text in found if len(text) >= SECRET_CHARACTERS_MIN), key=len, reverse=True)


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` with every secret replaced."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return text


def _files(folder: Path) -> Iterable[str]:
    try:
        paths = [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return
    for path in paths:
        try:
            with path.open("rb") as file:
                yield file.read(_SECRET_BYTES_MAX).decode("utf-8", "replace")
        except OSError:
            continue
