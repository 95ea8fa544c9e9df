"""The producer's loop: agree on the inputs, then lease, capture, store, commit, until told to stop.

Having nothing to do is no end: a sample that the trainer finds lost comes back as a lease, so only the operator knows
when a producer is no longer needed. A crash at any place loses work, never a sample.
"""

import logging
import secrets
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_contract.errors import Fenced, UserError
from eyas_runtime.capture.engine import Advance, CaptureEngine, LeaseLost
from eyas_runtime.capture.holdings import Holdings, LeaseCalls
from eyas_runtime.capture.pipeline import Pipeline
from eyas_runtime.capture.storing import CommitCalls, FeatureSink, Storing
from eyas_runtime.capture.watch import InputsWatch
from eyas_runtime.failpoints import hit
from eyas_runtime.inputs import check_inputs, digest_inputs
from eyas_runtime.memory import FreedMemory

LOG: Final = logging.getLogger("eyas.capture")
POLL_SECONDS: Final = 2.0
"""Longest wait of one lease call."""
Prepare = Callable[[JobConfig, wire.Inputs, Advance], wire.Prepared]
"""Goes through all inputs of a job once, see `capture.prepare`."""
PAUSE_SECONDS: Final = 0.2
"""Between lease calls that gave nothing, should the service not hold them."""


class ProducerCalls(LeaseCalls, CommitCalls, Protocol):
    """What a producer needs of `MetadataClient`."""

    def register(self, request: wire.RegisterRequest) -> wire.RegisterReply: ...
    def prepare(self, request: wire.PrepareRequest) -> wire.PrepareReply: ...
    def prepare_commit(self, request: wire.PrepareCommitRequest) -> wire.Empty: ...
    def prepared(self, request: wire.PreparedRequest) -> wire.PreparedReply: ...
    def lease(self, request: wire.LeaseRequest) -> wire.LeaseReply: ...


def register(calls: ProducerCalls, holder: wire.Holder, config: JobConfig, fingerprint: wire.Fingerprint) -> None:
    """Take over from predecessors of the same index. Raises `Fenced` when a newer one is there."""
    reply = calls.register(wire.RegisterRequest(holder=holder, fingerprint=fingerprint))
    if reply.job_uid != config.job_uid:
        raise UserError(f"the metadata service is of job {reply.job_uid}, this producer of {config.job_uid}")
    if reply.store_epoch > config.store_epoch:
        raise Fenced(f"the store epoch is {reply.store_epoch}; this producer was made for {config.store_epoch}")


def agree_on_inputs(calls: ProducerCalls, holder: wire.Holder, config: JobConfig, prepare: Prepare) -> wire.Prepared:
    """The job's prepared inputs, made here if the service says so, and compared with what is found here."""
    found = digest_inputs(config)
    while True:
        verdict = calls.prepare(wire.PrepareRequest(holder=holder, wait_seconds=POLL_SECONDS)).verdict
        if verdict == "yours":
            LOG.info("preparing the inputs")
            made = prepare(config, found, _keep_claim(calls, holder, config.recovery.lease_seconds))
            calls.prepare_commit(wire.PrepareCommitRequest(holder=holder, prepared=made))
        elif verdict == "done":
            prepared = calls.prepared(wire.PreparedRequest(wait_seconds=POLL_SECONDS)).prepared
            if prepared is not None:
                check_inputs(prepared.inputs, found)
                return prepared


def _keep_claim(calls: ProducerCalls, holder: wire.Holder, every_seconds: float) -> Advance:
    """Tell the service, once a lease term, that the preparing goes on, so that nobody else begins it too."""
    told = time.monotonic()

    def advance() -> None:
        nonlocal told
        if time.monotonic() - told >= every_seconds:
            calls.renew(wire.RenewRequest(holder=holder, lease_ids=()))
            told = time.monotonic()

    return advance


class Producer:
    """One producer process after it has agreed on the inputs."""

    def __init__(
        self,
        calls: ProducerCalls,
        holdings: Holdings,
        engine: CaptureEngine,
        sink: FeatureSink,
        *,
        fingerprint: str,
        watch: InputsWatch,
    ) -> None:
        self._calls = calls
        self._holder = holdings.holder
        self._engine = engine
        self._watch = watch
        self._holdings = holdings
        self._freed = FreedMemory()
        self._storing = Storing(calls, self._holder, sink, holdings, fingerprint=fingerprint)

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; then what is held is given back. Raises what ended a thread (`Fenced`, `UserError`)."""
        self._holdings.start()
        pipeline = Pipeline(self._storing.store, self._holdings.fail)
        try:
            while not stop.is_set():
                self._holdings.check()
                lease = self._next_lease(stop)
                if lease is None:
                    continue
                self._holdings.take(lease)
                if not stop.is_set():
                    self._capture(lease, pipeline)
            self._holdings.return_all()
            pipeline.close()
            self._holdings.check()
        finally:
            self._holdings.close()
            self._storing.close()

    def _next_lease(self, stop: threading.Event) -> wire.CaptureLease | None:
        request = wire.LeaseRequest(holder=self._holder, request_id=secrets.token_hex(16), wait_seconds=POLL_SECONDS)
        reply = self._calls.lease(request)
        if reply.lease is None:
            if reply.paused:
                LOG.debug("paused: %s", reply.paused)
            stop.wait(PAUSE_SECONDS)
        return reply.lease

    def _capture(self, lease: wire.CaptureLease, pipeline: Pipeline) -> None:
        hit("capture.after_lease")
        try:
            self._watch.check()
            outcomes = self._engine.capture(
                lease.tasks, lease.padded_length, lambda: self._holdings.advance(lease.lease_id)
            )
        except LeaseLost:
            LOG.info("group %d was taken over while it was captured", lease.group)
            return
        hit("capture.after_forward")
        pipeline.submit(lease, outcomes)
        self._freed.give_back()
