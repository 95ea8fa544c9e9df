"""Opening a store: missing fields are named, backends are chosen, tokens come from files only."""

import subprocess
import sys
from pathlib import Path

import pytest

from eyas_contract import config as contract
from eyas_contract.errors import Unauthenticated, UserError
from eyas_contract.ids import JobUid
from eyas_runtime.features import StoreConfig, open_blobs
from eyas_runtime.features.blobs.memory import MemoryBlobStore
from eyas_runtime.features.blobs.mooncake import MooncakeBlobStore
from eyas_runtime.features.blobs.shared_dir import SharedDirBlobStore
from eyas_runtime.features.config import client_settings, read_token
from support.keys import new_key


def test_each_backend_opens_its_own_store(tmp_path: Path) -> None:
    assert isinstance(open_blobs(StoreConfig(backend="Memory")), MemoryBlobStore)
    assert isinstance(open_blobs(StoreConfig(backend="SharedDirectory", path=tmp_path)), SharedDirBlobStore)
    mooncake = open_blobs(StoreConfig(backend="Mooncake", master_address="127.0.0.1:1"))
    assert isinstance(mooncake, MooncakeBlobStore)
    mooncake.close()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (StoreConfig(backend="SharedDirectory"), "store.path"),
        (StoreConfig(backend="Mooncake"), "store.masterAddress"),
        (StoreConfig(backend="Disk"), "store.backend"),  # type: ignore[arg-type]
        (StoreConfig(backend="Memory", token_file=Path("/nonexistent/token")), "/nonexistent/token"),
    ],
    ids=["path", "master", "backend", "token"],
)
def test_a_missing_field_is_named(config: StoreConfig, field: str) -> None:
    with pytest.raises(UserError, match=field):
        open_blobs(config)


def test_the_token_is_read_from_its_file_and_used(tmp_path: Path, job_uid: JobUid) -> None:
    right, wrong, store = tmp_path / "right", tmp_path / "wrong", tmp_path / "store"
    store.mkdir()
    right.write_bytes(b"secret\n")
    wrong.write_bytes(b"other\n")
    key = new_key(job_uid)
    open_blobs(StoreConfig(backend="SharedDirectory", path=store, token_file=right)).put(key, b"x")
    with pytest.raises(Unauthenticated):
        open_blobs(StoreConfig(backend="SharedDirectory", path=store, token_file=wrong)).get(key, 1)


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * 5000])
def test_a_token_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(UserError, match="token"):
        read_token(tmp_path / "token")


def test_a_jobs_store_is_mapped_field_by_field() -> None:
    job = contract.StoreConfig(
        backend="Mooncake", max_resident_bytes=1, digest="xxh3-128", master_address="10.0.0.1:7382",
        master_metrics_address="10.0.0.1:7383", protocol="RDMA", rdma_devices="mlx5_0", call_deadline_seconds=3.0,
    )  # fmt: skip
    config = StoreConfig.of_job(job, local_hostname="10.0.0.9", token_file=Path("t"))
    settings = client_settings(config, segment_bytes=5)
    assert (settings.master_address, settings.local_hostname) == ("10.0.0.1:7382", "10.0.0.9")
    assert (settings.protocol, settings.rdma_devices, settings.segment_bytes) == ("RDMA", "mlx5_0", 5)
    assert (config.master_metrics_address, config.digest, config.deadline_seconds) == ("10.0.0.1:7383", "xxh3-128", 3.0)
    assert config.token_file == Path("t")
    shared = contract.StoreConfig(backend="SharedDirectory", max_resident_bytes=1, path="/data/store")
    assert StoreConfig.of_job(shared).path == Path("/data/store")


def test_opening_a_store_loads_neither_torch_nor_mooncake() -> None:
    code = (
        "import sys, eyas_runtime.features as f\n"
        "f.open_blobs(f.StoreConfig(backend='Mooncake', master_address='127.0.0.1:1'))\n"
        "raise SystemExit(any(name.split('.')[0] in ('torch', 'numpy', 'mooncake') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
