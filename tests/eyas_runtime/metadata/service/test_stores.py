"""Which pool the metadata role opens: it asks the master and moves no object, so it needs no device of the fabric."""

from pathlib import Path

import msgspec

from eyas_runtime.metadata.service.stores import open_pool
from support.metadata_service import job_config


def test_pool_over_rdma_is_asked_over_tcp(tmp_path: Path) -> None:
    config = job_config(tmp_path)
    store = msgspec.structs.replace(
        config.store, backend="Mooncake", master_address="127.0.0.1:1", protocol="RDMA", rdma_devices="mlx5_0"
    )
    pool = open_pool(msgspec.structs.replace(config, store=store), host="127.0.0.1", token_directory=tmp_path)
    assert pool is not None
    assert pool.health()["protocol"] == "TCP"
    pool.close()
