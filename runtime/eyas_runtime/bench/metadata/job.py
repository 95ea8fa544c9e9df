"""The job that the benchmark plays: its facts, its inputs, its producer, and the checkpoints that its ranks present."""

from array import array
from base64 import b64encode
from pathlib import Path
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.ids import Incarnation, JobUid, LeaseToken, sample_id
from eyas_contract.refs import FeatureSpec, SampleRef
from eyas_runtime.metadata.port import JobFacts, LeaseGrant
from eyas_runtime.metadata.sqlite import SQLiteMetadataStore
from eyas_runtime.metadata.sqlite.bench import SPECS

GROUP: Final = 16
WINDOW: Final = 64
JOB: Final = JobUid("benchmeta0000")
HOLDER: Final = wire.Holder(index=0, ordinal=1, restart=0)
FINGERPRINT: Final = wire.Fingerprint(facts={}, digest="blake3:bench")
FEATURES: Final = msgspec.json.decode(SPECS, type=tuple[FeatureSpec, ...])


def open_store(path: Path, count: int) -> SQLiteMetadataStore:
    """A store of a job of `count` prompts, prepared, with its one producer registered."""
    facts = JobFacts(
        job_uid=JOB,
        store_epoch=1,
        window_size=WINDOW,
        group_size=GROUP,
        epochs=1,
        max_steps=None,
        seed=1,
        retain_objects=False,
        allow_restart_from_zero=True,
    )
    store = SQLiteMetadataStore(path, facts)
    zeros = {kind: b64encode(array(kind, bytes(count * array(kind).itemsize)).tobytes()).decode() for kind in "HQI"}
    inputs = wire.Inputs(data="", tokenizer="", template="", target="")
    store.commit_prepared(
        wire.Prepared(
            inputs=inputs,
            prompt_count=count,
            file_indices=zeros["H"],
            offsets=zeros["Q"],
            token_counts=zeros["I"],
            supervised_counts=zeros["I"],
            draft_to_target="",
            target_vocab_size=32000,
            hidden_size=896,
            bytes_per_token=7168,
            bytes_per_sample=4096,
        ),
        now=0.0,
    )
    store.register(HOLDER, FINGERPRINT, now=0.0)
    return store


def capture_group(store: SQLiteMetadataStore, number: int) -> tuple[list[SampleRef], wire.CaptureLease]:
    """Lease capture group `number`; returns the refs that its commit will carry, and the lease."""
    lease = store.grant(
        LeaseGrant(
            holder=HOLDER,
            request_id=f"r{number}",
            group=number,
            lease_id=f"l{number}",
            token=LeaseToken(f"t{number}"),
            randoms=tuple(f"{number * GROUP + place:032x}" for place in range(GROUP)),
            reserved_bytes=1,
            term_seconds=30.0,
            deadline_seconds=600.0,
        ),
        now=0.0,
    )
    refs = [
        SampleRef(
            sample_id=task.sample_id,
            sequence=task.sequence,
            key=task.key,
            generation=task.generation,
            digest=f"blake3:{task.sequence:064x}",
            payload_digest=f"blake3:{task.sequence:064x}",
            length=4_000_000,
            num_tokens=task.num_tokens,
            num_supervised=300,
            feature_specs=FEATURES,
        )
        for task in lease.tasks
        if task.key is not None
    ]
    return refs, lease


def commit_refs(store: SQLiteMetadataStore, lease: wire.CaptureLease, refs: list[SampleRef]) -> None:
    """One durable transaction for all of `refs`."""
    store.commit_samples(HOLDER, lease.lease_id, lease.token, refs, now=0.0)


def reconcile(store: SQLiteMetadataStore, shown: wire.PresentedCheckpoint | None, attempt: int) -> wire.ReconcileReply:
    """The call of a restarted rank 0 that presents `shown`."""
    request = wire.ReconcileRequest(
        attempt=attempt, world_size=1, process=f"p{attempt}", fingerprint=FINGERPRINT, checkpoint=shown
    )
    return store.reconcile_on_restart(request, Incarnation(f"{attempt:032x}"), receipt_valid=True, now=0.0)


def present(step: int, *, attempt: int = 1) -> wire.PresentedCheckpoint:
    """A checkpoint of `step`, committed in `attempt`."""
    state = wire.CheckpointState(
        job_uid=JOB,
        store_epoch=1,
        step=step,
        inputs=None,
        dead_letters=(),
        capture_fingerprint="",
        inexact_reasons=(),
        generation_floor=0,
        attempt=attempt,
    )
    return wire.PresentedCheckpoint(
        directory=f"step-{step:09d}.a{attempt}.{attempt:08x}",
        step=step,
        store_epoch=1,
        attempt=attempt,
        incarnation=Incarnation(f"{attempt:032x}"),
        manifest_digest=f"blake3:{attempt}-{step}",
        receipt="",
        state=state,
    )


def example_ref() -> SampleRef:
    """A ref of the size that a real sample has."""
    key = f"eyas.{JOB}.e1.g1.{0:032x}"
    return msgspec.convert(
        {
            "sample_id": sample_id(0),
            "sequence": 0,
            "key": key,
            "generation": 1,
            "digest": "blake3:" + "0" * 64,
            "payload_digest": "blake3:" + "0" * 64,
            "length": 4_000_000,
            "num_tokens": 512,
            "num_supervised": 300,
            "feature_specs": msgspec.to_builtins(FEATURES),
        },
        type=SampleRef,
    )
