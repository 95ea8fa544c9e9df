"""From outcomes to committed refs: put every captured member under its minted key, commit, report what failed.

The order is fixed: objects first, then their refs, then the failures (which end the lease). A store that is full or
away is waited for, and waiting is not work: when it takes longer than the lease, the lease goes and so does the group.
A lease that is no longer ours ends the group without an error; its keys are swept by the service.
"""

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from eyas_contract import wire
from eyas_contract.errors import Bug, Conflict, Transient
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.capture.engine import Features, LeaseLost, Outcome
from eyas_runtime.capture.holdings import Holdings
from eyas_runtime.failpoints import hit

LOG: Final = logging.getLogger("eyas.capture")
PUT_THREADS: Final = 2
"""Members put at a time: one hashes while another waits for the network; more only compete with the forward pass."""
REASON_CHARACTERS_MAX: Final = 500
Sleep = Callable[[float], None]


class FeatureSink(Protocol):
    """Where tensors go; the feature store behind the codec."""

    def put(self, task: PromptTask, features: Features, *, fingerprint: str) -> SampleRef:
        """Store one sample under `task.key`; repeatable. Raises `StoreFull` and `Transient`."""
        ...


class CommitCalls(Protocol):
    """What this module needs of `MetadataClient`."""

    def commit(self, request: wire.CommitRequest) -> wire.CommitReply: ...
    def capture_fail(self, request: wire.CaptureFailRequest) -> wire.Empty: ...


class Storing:
    """The second half of the pipeline. One thread at a time may call it."""

    def __init__(
        self,
        calls: CommitCalls,
        holder: wire.Holder,
        sink: FeatureSink,
        holdings: Holdings,
        *,
        fingerprint: str,
        sleep: Sleep = time.sleep,
    ) -> None:
        self._calls = calls
        self._holder = holder
        self._sink = sink
        self._holdings = holdings
        self._fingerprint = fingerprint
        self._sleep = sleep
        self._pool = ThreadPoolExecutor(PUT_THREADS, thread_name_prefix="put")

    def store(self, lease: wire.CaptureLease, outcomes: Sequence[Outcome]) -> None:
        """Store and commit one group; returns quietly when the lease was lost."""
        try:
            self._store(lease, outcomes)
        except LeaseLost:
            LOG.info("group %d was taken over; what was captured is dropped", lease.group)
        except Conflict as error:
            LOG.info("group %d was refused: %s", lease.group, error)
        finally:
            self._holdings.drop(lease.lease_id)

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _store(self, lease: wire.CaptureLease, outcomes: Sequence[Outcome]) -> None:
        good = [(outcome.task, outcome.features) for outcome in outcomes if outcome.features is not None]
        futures = [self._pool.submit(self._put, lease, task, features) for task, features in good]
        refs = tuple(future.result() for future in futures)
        if refs:
            hit("capture.before_commit")
            self._calls.commit(
                wire.CommitRequest(holder=self._holder, lease_id=lease.lease_id, token=lease.token, refs=refs)
            )
            hit("capture.after_commit")
        failures = tuple(
            wire.CaptureFailure(
                sequence=outcome.task.sequence, reason=outcome.problem[:REASON_CHARACTERS_MAX], poison=True
            )
            for outcome in outcomes
            if outcome.features is None
        )
        if failures:
            for failure in failures:
                LOG.warning("sample %d is poison: %s", failure.sequence, failure.reason)
            self._calls.capture_fail(
                wire.CaptureFailRequest(
                    holder=self._holder, lease_id=lease.lease_id, token=lease.token, failures=failures
                )
            )

    def _put(self, lease: wire.CaptureLease, task: PromptTask, features: Features) -> SampleRef:
        if task.key is None:
            raise Bug(f"{task.sample_id} is to be captured but has no key")
        while True:
            try:
                ref = self._sink.put(task, features, fingerprint=self._fingerprint)
            except Transient as error:
                LOG.info("waiting for the store: %s", error)
                self._sleep(error.retry_after_seconds)
                self._holdings.still_ours(lease.lease_id)
                continue
            hit("capture.after_put")
            self._holdings.advance(lease.lease_id)
            return ref
