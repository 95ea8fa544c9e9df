"""Claims about messages: every one survives its own JSON, and nothing that is not one is taken for one."""

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas_contract import wire
from eyas_contract.errors import UserError

MESSAGES = tuple(
    {
        kind.__name__: kind
        for kind in vars(wire).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_fields__
        and kind is not wire.Endpoint
    }.values()
)  # fmt: skip
LARGE = 1 << 30


def instances(kind: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Instances of a message type, built from what its fields say."""
    return st.deferred(lambda: _of(msgspec.inspect.type_info(kind)))


def _of(info: msgspec.inspect.Type) -> st.SearchStrategy[Any]:
    i = msgspec.inspect
    if isinstance(info, i.StructType):
        fields = {field.name: _of(field.type) for field in info.fields}
        return st.builds(info.cls, **fields)
    if isinstance(info, i.VarTupleType):
        return st.lists(_of(info.item_type), max_size=2).map(tuple)
    if isinstance(info, i.DictType):
        return st.dictionaries(_of(info.key_type), _of(info.value_type), max_size=2)
    if isinstance(info, i.UnionType):
        return st.one_of([_of(each) for each in info.types])
    if isinstance(info, i.LiteralType):
        return st.sampled_from(info.values)
    if isinstance(info, i.EnumType):
        return st.sampled_from(list(info.cls))
    simple = {
        i.StrType: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        i.IntType: st.integers(-(2**53), 2**53),
        i.FloatType: st.floats(allow_nan=False, allow_infinity=False),
        i.BoolType: st.booleans(),
        i.NoneType: st.none(),
    }
    return simple[type(info)]


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_message_survives_its_own_json(kind: type[msgspec.Struct], data: st.DataObject) -> None:
    message = data.draw(instances(kind))
    assert wire.decode(wire.encode(message), kind, bytes_max=LARGE) == message


@pytest.mark.parametrize("kind", MESSAGES, ids=lambda kind: kind.__name__)
def test_unknown_fields_are_refused(kind: type[msgspec.Struct]) -> None:
    with pytest.raises(UserError, match=kind.__name__):
        wire.decode(b'{"surprise": 1}', kind, bytes_max=LARGE)


def test_the_limit_is_checked_before_anything_is_parsed() -> None:
    with pytest.raises(UserError, match="over the limit of 10"):
        wire.decode(b"{" * 11, wire.Empty, bytes_max=10)


def test_paths_are_unique_and_every_endpoint_has_a_role() -> None:
    paths = [endpoint.path for endpoint in wire.ENDPOINTS]
    assert len(set(paths)) == len(paths)
    assert all(endpoint.roles and endpoint.path.startswith("/v1/") for endpoint in wire.ENDPOINTS)


def test_a_producer_can_neither_ack_nor_release_nor_reconcile() -> None:
    mine = {endpoint.path for endpoint in wire.ENDPOINTS if "producer" in endpoint.roles}
    assert mine == {
        wire.REGISTER.path, wire.PREPARE.path, wire.PREPARE_COMMIT.path, wire.PREPARED.path, wire.LEASE.path,
        wire.RENEW.path, wire.COMMIT.path, wire.CAPTURE_FAIL.path, wire.RETURN.path,
    }  # fmt: skip


def test_a_reader_changes_nothing() -> None:
    mine = {endpoint.path for endpoint in wire.ENDPOINTS if "reader" in endpoint.roles}
    assert mine == {wire.CHECKPOINTS.path, wire.STATUS.path, wire.METRICS.path, wire.AUDIT.path}
