"""What decoding bytes of others may raise, in one place, because it is more than a decode error.

msgspec checks UTF-8 only of the strings that it builds and leaves nesting to the interpreter's own limit, so bytes
no message can end in `UnicodeDecodeError` or `RecursionError`; a `str` with lone surrogates in `UnicodeEncodeError`.
Whoever reads bytes from a file, a socket or a pod catches all of `UNDECODABLE` and raises a class of `errors`.
"""

from typing import Final

import msgspec

UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
"""For `except`, around `msgspec.json.decode`."""
NOT_JSON: Final = (ValueError, RecursionError)
"""For `except`, around `json.loads`, whose two errors of content are both `ValueError`."""
