"""Orders and acks of rank 0, through the metadata service.

Acks are progress, not durability: they leave in order from a thread of their own and no rank ever waits for one,
except that at most `ACKS_OUTSTANDING_MAX` may be under way. A lost ack costs nothing: the commit of a later
checkpoint acks every window up to it.
"""

import queue
import threading
from typing import Final

from eyas_contract import wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import Transient
from eyas_contract.ids import Incarnation
from eyas_runtime.failpoints import hit

ACKS_OUTSTANDING_MAX: Final = 64
"""Windows that may be trained while the service is away; then rank 0 waits, so that memory stays bounded."""

AWAY_SECONDS: Final = 10.0
"""How long a call is repeated before the ranks tell each other that they are alive."""


class ServiceOrders:
    """`OrderSource` of one incarnation."""

    def __init__(self, client: MetadataClient, incarnation: Incarnation) -> None:
        self._client, self._incarnation = client, incarnation
        self._acks: queue.Queue[wire.AckRequest | None] = queue.Queue(maxsize=ACKS_OUTSTANDING_MAX)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._deliver, name="acks", daemon=True)
        self._thread.start()

    def next(self, ordinal: int, *, wait_seconds: float) -> wire.Order | None:
        """See `OrderSource`."""
        self._check()
        request = wire.OrderRequest(incarnation=self._incarnation, ordinal=ordinal, wait_seconds=wait_seconds)
        try:
            return self._client.call(wire.ORDER, request, deadline_seconds=wait_seconds + AWAY_SECONDS).order
        except Transient:
            # The service is away. The other ranks sit in a collective with a time-out, so they are told "nothing yet".
            return None

    def ack(self, request: wire.AckRequest) -> None:
        """See `OrderSource`."""
        while True:
            self._check()
            try:
                self._acks.put(request, timeout=0.5)
            except queue.Full:
                continue
            return

    def commit_checkpoint(self, request: wire.CheckpointCommitRequest) -> wire.CheckpointCommitReply:
        """See `OrderSource`."""
        return self._client.call(wire.CHECKPOINT_COMMIT, request)

    def close(self) -> None:
        """See `OrderSource`."""
        if self._failure is None:
            self._acks.put(None)
            self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _deliver(self) -> None:
        while (request := self._acks.get()) is not None:
            try:
                self._client.call(wire.ACK, request)
                hit("train.after_ack")
            except BaseException as error:  # noqa: BLE001  the top frame of this loop: raised by the training loop
                self._failure = error
                return
