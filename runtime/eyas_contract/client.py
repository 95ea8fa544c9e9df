"""`MetadataClient`: the metadata service as its callers see it. Torch-free, synchronous, usable from many threads.

Rules. Every call is idempotent, so a call without an answer is repeated with the same bytes until it has one or its
deadline is over. The highest store epoch ever seen travels with every call; an answer of a lower epoch comes from a
service that was replaced, and is ignored as if it had not arrived. A service that reports its own bug is about to be
restarted: the call waits for its successor.
"""

import random
import threading
import time
from typing import Final

import msgspec

from eyas_contract import wire
from eyas_contract.client_http import Answer, Connections, exchange, no_answer, problem_of
from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Bug, Transient
from eyas_contract.tokens import read_tokens
from eyas_contract.wire import Q, R

BACKOFF_FIRST_SECONDS: Final = 0.02
BACKOFF_MAX_SECONDS: Final = 2.0


def backoff_seconds(failures: int, *, at_least: float, fraction: float) -> float:
    """Pause before repetition number `failures` (1, 2, ...): doubling, capped, spread by `fraction` in [0, 1)."""
    full = min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(failures - 1, 16))
    return max(min(at_least, BACKOFF_MAX_SECONDS), full * (0.5 + 0.5 * fraction))


class MetadataClient:
    """Client of one job's metadata service.

    `token_file` is read at the first call and again whenever the service refuses the token, so a rotation needs no
    restart. `deadline_seconds` bounds each call (None: for ever); over it, the last `Transient` is raised.
    Raises the classes that the service names (`UserError`, `Conflict`, `Fenced`, `Closed`, `Unauthenticated`).
    """

    def __init__(
        self, url: str, token_file: str, *, deadline_seconds: float | None = None, store_epoch: int = 0
    ) -> None:
        self._connections = Connections(url)
        self._token_file = token_file
        self._deadline_seconds = deadline_seconds
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._store_epoch = store_epoch
        self._token = ""

    @property
    def store_epoch(self) -> int:
        """The highest store epoch seen so far."""
        with self._lock:
            return self._store_epoch

    def close(self) -> None:
        """Drop the connections; calls that are under way end with `Transient` at their next repetition."""
        self._closed.set()
        self._connections.close()

    def call(self, endpoint: wire.Endpoint[Q, R], request: Q, *, deadline_seconds: float | None = None) -> R:
        """Make one call until it is answered; `deadline_seconds` overrides the client's own. See the class."""
        limit = self._deadline_seconds if deadline_seconds is None else deadline_seconds
        ends = None if limit is None else time.monotonic() + limit
        body = wire.encode(request)
        wait_seconds = min(float(getattr(request, "wait_seconds", 0.0)), wire.WAIT_SECONDS_MAX)
        failures = 0
        while True:
            try:
                return self._once(endpoint, body, wait_seconds)
            except (Transient, Bug) as error:
                failures += 1
                pause = backoff_seconds(
                    failures,
                    at_least=error.retry_after_seconds if isinstance(error, Transient) and failures > 1 else 0.0,
                    fraction=random.random(),  # noqa: S311 spreading repetitions needs no secrecy
                )
                if ends is not None and time.monotonic() + pause > ends:
                    raise Transient(str(error)) from error
                if self._closed.wait(pause):
                    raise Transient("the client was closed") from error

    def _once(self, endpoint: wire.Endpoint[Q, R], body: bytes, wait_seconds: float) -> R:
        answer = self._exchange(endpoint.path, body, wait_seconds)
        if answer.status == 401 and self._token_changed():
            answer = self._exchange(endpoint.path, body, wait_seconds)
        if answer.status != 200:
            raise problem_of(endpoint.path, answer)
        try:
            return msgspec.json.decode(answer.body, type=endpoint.reply)
        except UNDECODABLE as error:
            raise Bug(f"the answer to {endpoint.path} is not a {endpoint.reply.__name__}: {error}") from error

    def _exchange(self, path: str, body: bytes, wait_seconds: float) -> Answer:
        with self._lock:
            if not self._token:
                self._token = read_tokens(self._token_file)[0]
            token, epoch = self._token, self._store_epoch
        answer = exchange(
            self._connections.pool(), path, body, token=token, store_epoch=epoch, wait_seconds=wait_seconds
        )
        if answer.store_epoch < 0:
            raise no_answer(f"{path} was answered with HTTP {answer.status} by something that is not the service")
        with self._lock:
            if answer.store_epoch < self._store_epoch:
                raise no_answer(
                    f"{path} was answered by a service of store epoch {answer.store_epoch}, "
                    f"but {self._store_epoch} has been seen"
                )
            self._store_epoch = answer.store_epoch
        return answer

    def _token_changed(self) -> bool:
        """Read the token file again after a refusal; True when it holds another token now."""
        fresh = read_tokens(self._token_file)[0]
        with self._lock:
            changed, self._token = fresh != self._token, fresh
        return changed

    # --- producers ---

    def register(self, request: wire.RegisterRequest) -> wire.RegisterReply:
        """Announce a producer process; ends what its predecessors of the same index held."""
        return self.call(wire.REGISTER, request)

    def prepare(self, request: wire.PrepareRequest) -> wire.PrepareReply:
        """Ask who prepares the inputs."""
        return self.call(wire.PREPARE, request)

    def prepare_commit(self, request: wire.PrepareCommitRequest) -> wire.Empty:
        """Hand in the prepared inputs."""
        return self.call(wire.PREPARE_COMMIT, request)

    def prepared(self, request: wire.PreparedRequest) -> wire.PreparedReply:
        """Fetch the prepared inputs."""
        return self.call(wire.PREPARED, request)

    def lease(self, request: wire.LeaseRequest) -> wire.LeaseReply:
        """Ask for one capture group."""
        return self.call(wire.LEASE, request)

    def renew(self, request: wire.RenewRequest) -> wire.RenewReply:
        """Renew the named leases."""
        return self.call(wire.RENEW, request)

    def commit(self, request: wire.CommitRequest) -> wire.CommitReply:
        """Commit refs of captured samples."""
        return self.call(wire.COMMIT, request)

    def capture_fail(self, request: wire.CaptureFailRequest) -> wire.Empty:
        """Report members that could not be captured."""
        return self.call(wire.CAPTURE_FAIL, request)

    def return_leases(self, request: wire.ReturnRequest) -> wire.Empty:
        """Give leases back."""
        return self.call(wire.RETURN, request)

    # --- consumers ---

    def checkpoints(self) -> wire.CheckpointsReply:
        """All recorded checkpoints, newest first."""
        return self.call(wire.CHECKPOINTS, wire.Empty())

    def reconcile(self, request: wire.ReconcileRequest) -> wire.ReconcileReply:
        """Rank 0's first call: fence what was before, get the incarnation."""
        return self.call(wire.RECONCILE, request)

    def join(self, request: wire.JoinRequest) -> wire.JoinReply:
        """Every other rank's first call."""
        return self.call(wire.JOIN, request)

    def order(self, request: wire.OrderRequest) -> wire.OrderReply:
        """Rank 0 asks what comes next."""
        return self.call(wire.ORDER, request)

    def ack(self, request: wire.AckRequest) -> wire.Empty:
        """Report a trained window."""
        return self.call(wire.ACK, request)

    def lost(self, request: wire.LostRequest) -> wire.Empty:
        """Report samples whose bytes are gone or wrong."""
        return self.call(wire.LOST, request)

    def refs(self, request: wire.RefsRequest) -> wire.RefsReply:
        """Present refs of places of a sealed window."""
        return self.call(wire.REFS, request)

    def heartbeat(self, request: wire.HeartbeatRequest) -> wire.Empty:
        """Tell a rank's counter of work."""
        return self.call(wire.HEARTBEAT, request)

    def checkpoint_commit(self, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
        """Make a checkpoint durable: the single commit point."""
        return self.call(wire.CHECKPOINT_COMMIT, request)

    def exit(self, request: wire.ExitRequest) -> wire.Empty:
        """Report the exit of a rank."""
        return self.call(wire.EXIT, request)

    def watch(self, request: wire.WatchRequest) -> wire.WatchReply:
        """Which of these processes must be killed."""
        return self.call(wire.WATCH, request)

    def drain(self, request: wire.DrainRequest) -> wire.Empty:
        """Ask the gang to stop at a boundary."""
        return self.call(wire.DRAIN, request)

    # --- readers ---

    def status(self, *, deadline_seconds: float | None = None) -> wire.StatusReply:
        """All that is to be seen of the job."""
        return self.call(wire.STATUS, wire.Empty(), deadline_seconds=deadline_seconds)

    def metrics(self, request: wire.MetricsRequest) -> wire.MetricsReply:
        """Training metrics by step."""
        return self.call(wire.METRICS, request)

    def audit(self) -> wire.AuditReply:
        """Promises 3 and 7 from the rows."""
        return self.call(wire.AUDIT, wire.Empty())
