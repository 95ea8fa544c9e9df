"""The no-tensor rule: control-plane records never hold tensors.

Checked at every entry of the control plane, without importing torch or numpy: a value is tensor-like when its class
comes from one of those packages or when it has dtype, shape and device together.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Final

import msgspec

_SCALARS: Final = (str, bytes, int, float, bool, type(None))
_TENSOR_PACKAGES: Final = frozenset({"torch", "numpy"})


def assert_no_tensors(value: object, where: str = "<root>") -> None:
    """Raise `TypeError` naming the place of a tensor-like value in `value` (records, mappings, sequences, sets)."""
    stack: list[tuple[object, str]] = [(value, where)]
    while stack:
        item, place = stack.pop()
        if isinstance(item, _SCALARS) and type(item).__module__ == "builtins":
            continue
        if _is_tensor_like(item):
            raise TypeError(f"{place} holds a {type(item).__name__}; control-plane records carry refs, never tensors")
        if isinstance(item, msgspec.Struct):
            stack.extend((getattr(item, name), f"{place}.{name}") for name in item.__struct_fields__)
        elif isinstance(item, Mapping):
            stack.extend((entry, f"{place}[{key!r}]") for key, entry in item.items())
        elif isinstance(item, Sequence | Set) and not isinstance(item, str | bytes | bytearray):
            stack.extend((entry, f"{place}[{index}]") for index, entry in enumerate(item))
        elif hasattr(item, "__dict__"):
            stack.extend((entry, f"{place}.{name}") for name, entry in vars(item).items())


def _is_tensor_like(item: object) -> bool:
    package = type(item).__module__.partition(".")[0]
    if package in _TENSOR_PACKAGES:
        return True
    return all(hasattr(item, name) for name in ("dtype", "shape", "device"))
