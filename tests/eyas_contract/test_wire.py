"""Claims about messages: every one survives its own JSON, and nothing that is not one is taken for one."""

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas_contract import wire
from eyas_contract.errors import UserError
from support.messages import instances

MESSAGES = tuple(
    {
        kind.__name__: kind
        for kind in vars(wire).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__struct_fields__
        and kind is not wire.Endpoint
    }.values()
)  # fmt: skip
LARGE = 1 << 30


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
        wire.RENEW.path, wire.COMMIT.path, wire.CAPTURE_FAIL.path, wire.RETURN.path, wire.RESTART.path,
    }  # fmt: skip


def test_a_reader_changes_nothing() -> None:
    mine = {endpoint.path for endpoint in wire.ENDPOINTS if "reader" in endpoint.roles}
    assert mine == {wire.CHECKPOINTS.path, wire.STATUS.path, wire.METRICS.path, wire.AUDIT.path}
