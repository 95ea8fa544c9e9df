"""Process groups of one incarnation: static addresses, an explicit store, no torchrun.

Rank 0 serves a key-value store on the address that the job names; all keys live under the incarnation's nonce, so a
stale rank meets nobody. Two groups come out of it: the default one, which trains, and a gloo one on which only the
checkpoint threads speak, so that a save never meets a training collective. No object collectives: bytes travel as
uint8 tensors.
"""

import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import PrefixStore, TCPStore

from eyas_contract.errors import Closed
from eyas_contract.ids import Incarnation

CHECKPOINT_TIMEOUT_SECONDS: Final = 24 * 3600.0
"""The service's deadline judges a slow checkpoint; this only bounds a leak."""
HEADER_BYTES: Final = 8
EAGER_BYTES: Final = 32 << 10
"""Broadcast with the length in one message; longer ones take a second."""


class TorchGroup:
    """`Group` over a gloo process group (CPU tensors), for the little that ranks tell each other."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.process_group: Final = group
        self.rank = group.rank()
        self.world_size = group.size()

    def broadcast(self, data: bytes | None) -> bytes:
        """See `Group`."""
        head = torch.zeros(HEADER_BYTES + EAGER_BYTES, dtype=torch.uint8)
        if self.rank == 0:
            if data is None:
                raise ValueError("rank 0 broadcasts nothing")
            first = len(data).to_bytes(HEADER_BYTES, "little") + data[:EAGER_BYTES]
            head[: len(first)] = _tensor(first)
        self._run(lambda: dist.broadcast(head, group=self.process_group, group_src=0))
        raw = head.numpy().tobytes()
        length = int.from_bytes(raw[:HEADER_BYTES], "little")
        body = raw[HEADER_BYTES : HEADER_BYTES + length]
        if length <= EAGER_BYTES:
            return body
        rest = torch.zeros(length - EAGER_BYTES, dtype=torch.uint8)
        if self.rank == 0 and data is not None:
            rest.copy_(_tensor(data[EAGER_BYTES:]))
        self._run(lambda: dist.broadcast(rest, group=self.process_group, group_src=0))
        return body + rest.numpy().tobytes()

    def all_gather(self, data: bytes) -> list[bytes]:
        """See `Group`."""
        if self.world_size == 1 or not data:
            return [data] * self.world_size
        mine = _tensor(data)
        parts = [torch.empty_like(mine) for _ in range(self.world_size)]
        self._run(lambda: dist.all_gather(parts, mine, group=self.process_group))
        return [part.numpy().tobytes() for part in parts]

    def close(self) -> None:
        """The process ends soon after; gloo needs no farewell."""

    def _run(self, collective: Callable[[], object]) -> None:
        try:
            collective()
        except RuntimeError as error:
            first = (str(error).splitlines() or [""])[0][:300]
            raise Closed(f"a rank is gone or silent: {first}") from error


def _tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


def meet(
    *,
    rank: int,
    world_size: int,
    address: tuple[str, int],
    listen_host: str,
    incarnation: Incarnation,
    device: str,
    timeout_seconds: float,
) -> Sequence[TorchGroup]:
    """Meet the other ranks at `address`, where rank 0 listens as `listen_host`; the default group exists afterwards.

    Returns the training and the checkpoint group. Raises `Closed` when the ranks do not meet within the time-out.
    """
    timeout = timedelta(seconds=timeout_seconds)
    try:
        store = PrefixStore(incarnation, _store(rank, world_size, address, listen_host, timeout_seconds))
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
        training = dist.new_group(backend="gloo", timeout=timeout)
        checkpoint = dist.new_group(backend="gloo", timeout=timedelta(seconds=CHECKPOINT_TIMEOUT_SECONDS))
    except (dist.DistError, RuntimeError) as error:
        first = (str(error).splitlines() or [""])[0][:300]
        raise Closed(f"the ranks of incarnation {incarnation[:8]} did not meet: {first}") from error
    return [TorchGroup(group) for group in (training, checkpoint) if isinstance(group, dist.ProcessGroup)]


def _store(rank: int, world_size: int, address: tuple[str, int], listen_host: str, timeout_seconds: float) -> TCPStore:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            # Left alone the store would listen on every address of the host; two jobs on one host would meet.
            listener = socket.create_server((listen_host, address[1]), backlog=1024) if rank == 0 else None
            return TCPStore(
                *address,
                world_size,
                is_master=rank == 0,
                timeout=timedelta(seconds=max(1.0, deadline - time.monotonic())),
                wait_for_workers=False,
                master_listen_fd=None if listener is None else listener.detach(),
            )
        except (dist.DistNetworkError, OSError) as error:
            # Rank 0 before us may still hold the port, or rank 0 of now is not listening yet.
            if time.monotonic() > deadline:
                raise Closed(f"no rendezvous at {address[0]}:{address[1]}: {error}") from error
            time.sleep(0.05)
