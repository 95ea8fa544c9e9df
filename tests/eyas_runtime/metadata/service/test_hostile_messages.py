"""No message that decodes can crash the service: whatever a caller with a token says is answered or refused."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eyas_contract import wire
from eyas_contract.errors import Bug, Corrupt, EyasError
from eyas_contract.ids import object_key, sample_id
from support.messages import instances
from support.metadata_service import HOLDER, UID, job_config
from support.service_world import World
from support.small_job import Rank

BIG = {7_000_000_001: 1 << 63, 7_000_000_002: 1 << 70, 7_000_000_003: -(1 << 70)}
"""Stand-ins for integers that JSON can carry and the encoder cannot write."""
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 1 << 31, 1 << 53, (1 << 63) - 1, *BIG])
TEXTS = ["", "x", "0" * 32, "a" * 300, "a" * 5000, "../../x", "\x00", "'; DROP TABLE samples; --", "é" * 70]
TEXT = st.sampled_from(TEXTS)


def known(*names: str) -> st.SearchStrategy[str]:
    """Values that the job knows, by stand-ins that are filled in, mixed with hostile ones."""
    return st.sampled_from([f"${name}$" for name in names] * len(TEXTS) + TEXTS)


LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "holder": st.one_of(st.just(HOLDER), st.builds(wire.Holder, index=NUMBERS, ordinal=NUMBERS, restart=NUMBERS)),
    "incarnation": known("INCARNATION"),
    "process": known("PROCESS"),
    "lease_id": known("LEASE"),
    "lease_ids": st.lists(known("LEASE"), max_size=3).map(tuple),
    "token": known("TOKEN"),
    "key": known("KEY", "OTHER_KEY", "RESIDENT"),
    "sample_id": st.one_of(st.sampled_from([sample_id(0), sample_id(7), sample_id(10**11)]), TEXT),
    **dict.fromkeys(
        ("request_id", "reason", "directory", "manifest_digest", "weights_sha256", "receipt", "digest",
         "payload_digest", "draft_to_target"),
        TEXT,
    ),
    **dict.fromkeys(
        ("sequence", "step", "version", "generation", "attempt", "ordinal", "rank", "world_size", "after_step",
         "limit", "length", "num_tokens", "num_supervised", "counter", "nbytes", "code", "store_epoch",
         "prompt_count", "generation_floor", "samples_recaptured", "index", "restart"),
        NUMBERS,
    ),
}  # fmt: skip
STRATEGIES = {endpoint.path: instances(endpoint.request, LIKELY) for endpoint in wire.ENDPOINTS}


def at_work(folder: Path, *, in_memory: bool) -> tuple[World, Rank, wire.CaptureLease]:
    """A gang with orders, a producer with a lease, samples that are ready."""
    world = World(folder, job_config(folder), in_memory=in_memory)
    producer = world.producer()
    producer.put = lambda _: None
    producer.prepare([8] * 8)
    producer.produce(2)
    rank = world.rank()
    rank.reconcile()
    rank.run(2)
    return world, rank, producer.must_lease()


def filled(message: Any, world: World, rank: Rank, lease: wire.CaptureLease) -> bytes:  # noqa: ANN401
    """The JSON of a drawn message, with the stand-ins replaced by what they stand for."""
    values = {
        "$INCARNATION$": rank.incarnation,
        "$PROCESS$": rank.process,
        "$LEASE$": lease.lease_id,
        "$TOKEN$": lease.token,
        "$KEY$": str(lease.tasks[0].key),
        "$OTHER_KEY$": object_key(UID, 1, 1, "f" * 32),
        "$RESIDENT$": world.store.resident(after=None, limit=1)[0].key,
        **{str(name): str(number) for name, number in BIG.items()},
    }
    raw = wire.encode(message)
    for name, value in values.items():
        raw = raw.replace(name.encode(), value.encode())
    return raw


def check(endpoint: wire.Endpoint[Any, Any], data: st.DataObject, *, in_memory: bool) -> None:
    """One hostile call on a job at work; then the job must still answer and tick."""
    with tempfile.TemporaryDirectory() as folder:
        world, rank, lease = at_work(Path(folder), in_memory=in_memory)
        try:
            raw = filled(data.draw(STRATEGIES[endpoint.path]), world, rank, lease)
            try:
                world.call_raw(endpoint, raw)
            except (Bug, Corrupt) as error:
                raise AssertionError(f"{endpoint.path} broke the store") from error
            except EyasError:
                pass
            world.status()
            world.pass_time(0.5)
        finally:
            world.close()


@pytest.mark.parametrize("endpoint", wire.ENDPOINTS, ids=lambda endpoint: endpoint.path)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_said_is_answered_or_refused(endpoint: wire.Endpoint[Any, Any], data: st.DataObject) -> None:
    check(endpoint, data, in_memory=True)


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", wire.ENDPOINTS, ids=lambda endpoint: endpoint.path)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_durable_store_refuses_the_same(endpoint: wire.Endpoint[Any, Any], data: st.DataObject) -> None:
    check(endpoint, data, in_memory=False)
