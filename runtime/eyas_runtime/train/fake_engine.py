"""The engine of crash suites: the fake trainer over plain sockets and raw blobs. Torch-free."""

from collections.abc import Sequence
from pathlib import Path

import blake3
import msgspec

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.errors import UserError
from eyas_contract.ids import Incarnation
from eyas_runtime.features.config import StoreConfig, open_blobs
from eyas_runtime.train.engine import CHANNELS, Context
from eyas_runtime.train.fake import BlobSource, FakeTrainer
from eyas_runtime.train.group import Group, SoloGroup, hub_groups


class FakeEngine:
    """See `Engine`."""

    def __init__(self, context: Context) -> None:
        if context.config.training.parallelism.ranks > 1:
            raise UserError("training.parallelism splits samples, which the fake trainer cannot: give 1 and 1")
        self._context = context
        self._groups: list[Group] = []

    def fingerprint(self) -> wire.Fingerprint:
        """See `Engine`."""
        facts = {"trainer": "fake", "world_size": str(self._context.identity.world_size)}
        return wire.Fingerprint(facts=facts, digest=f"blake3:{blake3.blake3(msgspec.json.encode(facts)).hexdigest()}")

    def meet(self, incarnation: Incarnation) -> Sequence[Group]:
        """See `Engine`."""
        identity, endpoints = self._context.identity, self._context.config.endpoints
        if identity.world_size == 1:
            self._groups = [SoloGroup() for _ in CHANNELS]
        else:
            self._groups = list(
                hub_groups(
                    rank=identity.rank,
                    world_size=identity.world_size,
                    address=(endpoints.rendezvous_host, endpoints.rendezvous_port),
                    incarnation=incarnation,
                    channels=CHANNELS,
                    timeout_seconds=self._context.config.recovery.collective_timeout_seconds,
                )
            )
        return self._groups

    def trainer(self, prepared: wire.Prepared, total_steps: int) -> FakeTrainer:
        """See `Engine`."""
        return FakeTrainer(self._groups[0], seed=self._context.config.draft.seed)

    def source(self, client: MetadataClient, incarnation: Incarnation) -> BlobSource:
        """See `Engine`."""
        token = self._context.tokens / env.TOKEN_STORE
        store = StoreConfig.of_job(
            self._context.config.store,
            local_hostname=self._context.identity.host_address,
            token_file=Path(token) if token.is_file() else None,
        )
        return BlobSource(open_blobs(store), client, incarnation)

    def check_inputs(self, prepared: wire.Prepared) -> None:
        """Fake samples have no inputs."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Acks carry all that there is."""

    def close(self) -> None:
        """See `Engine`."""
        for group in self._groups:
            group.close()
