"""Hypothesis strategies for messages of the wire, built from what their fields say."""

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import strategies as st

Likely = Mapping[str, st.SearchStrategy[Any]]
"""Strategies for fields of these names, wherever they occur."""


def instances(kind: type[msgspec.Struct], likely: Likely | None = None) -> st.SearchStrategy[Any]:
    """Instances of a message type; fields named in `likely` are drawn from there."""
    return st.deferred(lambda: _of(msgspec.inspect.type_info(kind), likely or {}))


def _of(info: msgspec.inspect.Type, likely: Likely) -> st.SearchStrategy[Any]:
    i = msgspec.inspect
    if isinstance(info, i.StructType):
        fields = {field.name: likely.get(field.name, _of(field.type, likely)) for field in info.fields}
        return st.builds(info.cls, **fields)
    if isinstance(info, i.VarTupleType):
        return st.lists(_of(info.item_type, likely), max_size=2).map(tuple)
    if isinstance(info, i.DictType):
        return st.dictionaries(_of(info.key_type, likely), _of(info.value_type, likely), max_size=2)
    if isinstance(info, i.UnionType):
        return st.one_of([_of(each, likely) for each in info.types])
    if isinstance(info, i.LiteralType):
        return st.sampled_from(info.values)
    if isinstance(info, i.EnumType):
        return st.sampled_from(list(info.cls))
    if isinstance(info, i.StrType):
        if info.pattern is not None:
            return st.from_regex(info.pattern)
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    if isinstance(info, i.IntType):
        return st.integers(-(2**53) if info.ge is None else info.ge, 2**53 if info.le is None else info.le)
    if isinstance(info, i.FloatType):
        return st.floats(info.ge, info.le, allow_nan=False, allow_infinity=False)
    simple = {
        i.BoolType: st.booleans(),
        i.NoneType: st.none(),
    }
    return simple[type(info)]
