"""Which feature store a process uses, and the one factory that opens it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from eyas_contract import config as contract
from eyas_contract.errors import UserError
from eyas_runtime.features.blobs.memory import MemoryBlobStore, MemoryPool
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.mooncake_client import ClientSettings
from eyas_runtime.features.blobs.port import BlobStore
from eyas_runtime.features.blobs.shared_dir import SharedDirBlobStore

TOKEN_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Everything that a process needs to reach the feature store; no secret, only the file that holds one."""

    backend: Literal["Memory", "SharedDirectory", "Mooncake"]
    path: Path | None = None
    """Directory of `SharedDirectory`; must exist."""
    create: bool = True
    """Whether an unmarked directory may become a new store (the first process of the job's first attempt)."""
    token_file: Path | None = None
    """File with the store token; None: the store is open. Mooncake knows no tokens and ignores it."""
    master_address: str | None = None
    """`host:port` of the Mooncake master's RPC."""
    master_metrics_address: str | None = None
    """`host:port` of its admin and metrics HTTP; needed to list and to measure capacity."""
    local_hostname: str = "127.0.0.1"
    """Address under which Mooncake peers reach this process."""
    protocol: Literal["TCP", "RDMA"] = "TCP"
    rdma_devices: str = ""
    pin: Literal["soft", "hard"] = "soft"
    replicas: int = 1
    deadline_seconds: float = 10.0
    """Bound of every single call."""
    digest: str = "blake3"
    digest_threads: int = 1
    """Cores that BLAKE3 may use for one blob."""
    max_resident_bytes: int | None = None
    """Cap of `Memory`, and of what one `FeatureStore` may have put and not yet freed."""

    @classmethod
    def of_job(
        cls, store: contract.StoreConfig, *, local_hostname: str = "127.0.0.1", token_file: Path | None = None
    ) -> "StoreConfig":
        """The store of a job's configuration, as the process at `local_hostname` sees it.

        The cap of the job is kept by the metadata service over all processes, so none is set here.
        """
        return cls(
            backend=store.backend,
            path=None if store.path is None else Path(store.path),
            token_file=token_file,
            master_address=store.master_address,
            master_metrics_address=store.master_metrics_address,
            local_hostname=local_hostname,
            protocol=store.protocol,
            rdma_devices=store.rdma_devices,
            deadline_seconds=store.call_deadline_seconds,
            digest=store.digest,
        )


def open_blobs(config: StoreConfig) -> BlobStore:
    """The blob store of `config`. Connects at its first call. Raises `UserError` naming a missing field.

    `Memory` makes a new, empty store: its users share the returned object.
    """
    if config.backend == "Memory":
        token = read_token(config.token_file)
        return MemoryBlobStore(MemoryPool(max_bytes=config.max_resident_bytes, token=token), token=token)
    if config.backend == "SharedDirectory":
        if config.path is None:
            raise UserError("store.path is missing: name the shared directory")
        return SharedDirBlobStore(
            config.path,
            token=read_token(config.token_file),
            create=config.create,
            deadline_seconds=config.deadline_seconds,
        )
    if config.backend == "Mooncake":
        return MooncakeBlobStore(
            client_settings(config),
            admin_address=config.master_metrics_address,
            deadline_seconds=config.deadline_seconds,
        )
    raise UserError(f"store.backend {config.backend!r} is none of Memory, SharedDirectory, Mooncake")


def client_settings(config: StoreConfig, *, segment_bytes: int = 0) -> ClientSettings:
    """How a process of `config` joins the Mooncake pool, lending `segment_bytes` of memory. Raises `UserError`."""
    if config.master_address is None:
        raise UserError("store.masterAddress is missing: give host:port of the Mooncake master")
    return ClientSettings(
        master_address=config.master_address,
        local_hostname=config.local_hostname,
        protocol=config.protocol,
        rdma_devices=config.rdma_devices,
        segment_bytes=segment_bytes,
        pin=config.pin,
        replicas=config.replicas,
    )


def read_token(path: Path | None) -> bytes | None:
    """The token in the file at `path`, without white space around it; None for no file. Raises `UserError`."""
    if path is None:
        return None
    try:
        with path.open("rb") as file:
            token = file.read(TOKEN_BYTES_MAX + 1).strip()
    except OSError as error:
        raise UserError(f"the store token file {path} cannot be read: {error.strerror}") from error
    if not token or len(token) > TOKEN_BYTES_MAX:
        raise UserError(f"the store token file {path} is empty or longer than {TOKEN_BYTES_MAX} bytes")
    return token
