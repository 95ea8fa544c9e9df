"""Claims about messages: every one survives its own JSON, and nothing that is not one is taken for one."""

import json

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas_contract import wire
from eyas_contract.errors import UserError
from support.messages import instances
from support.operator_world import a_report

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


TOLD_LATER = (
    "reached_step", "samples_waiting", "samples_replayed", "samples_applied_twice", "samples_missing",
    "lost_work_seconds", "goodput_ratio",
)  # fmt: skip


def test_a_reply_of_an_older_service_says_of_later_fields_that_they_are_not_told() -> None:
    status = a_report(samples_recaptured=3)
    old = {name: value for name, value in json.loads(wire.encode(status)).items() if name not in TOLD_LATER}
    decoded = wire.decode(json.dumps(old).encode(), wire.StatusReply, bytes_max=LARGE)
    assert decoded == status
    assert decoded.reached_step == 0
    assert {getattr(decoded, name) for name in TOLD_LATER[1:]} == {None}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [(name, -1) for name in TOLD_LATER]
    + [("goodput_ratio", 1.001), ("samples_replayed", 1 << 53), ("samples_applied_twice", 0.5)],
)
def test_a_count_beyond_its_bounds_is_no_report(name: str, wrong: float) -> None:
    raw = json.dumps(json.loads(wire.encode(a_report())) | {name: wrong}).encode()
    with pytest.raises(UserError, match=name):
        wire.decode(raw, wire.StatusReply, bytes_max=LARGE)
