"""RDMA locks what it registers: a process that may not ends at once, with the limit, its value and what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eyas_cli.doctor import machine
from eyas_contract import env
from eyas_contract.exits import Exit
from support.mooncake_pool import free_ports

MIB = 1 << 20
LIMIT = (
    "import ctypes, os, resource, sys\n"
    "ctypes.CDLL(None).prctl(24, 14, 0, 0, 0)\n"  # PR_CAPBSET_DROP: root without CAP_IPC_LOCK, as a user is
    "resource.setrlimit(resource.RLIMIT_MEMLOCK, (int(sys.argv[1]), int(sys.argv[2])))\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[3:]])\n"
)
OPEN = (
    "from eyas_runtime.features.config import StoreConfig, open_blobs\n"
    "from eyas_runtime.process import run_role\n"
    "config = StoreConfig(backend='Mooncake', master_address='127.0.0.1:1', protocol='{}', rdma_devices='{}')\n"
    "run_role(lambda: open_blobs(config).close())\n"
)
REQUIRE = (
    "from eyas_runtime.features.blobs.locked_memory import require_lockable\n"
    "from eyas_runtime.process import run_role\n"
    "run_role(lambda: require_lockable({}, devices='{}'))\n"
)


def limited(count: int, *arguments: str, soft: int | None = None, **variables: str) -> tuple[int, str]:
    """Exit code and stderr of a Python process that may lock `count` bytes."""
    limits = (str(count if soft is None else soft), str(count))
    done = subprocess.run(
        [sys.executable, "-c", LIMIT, *limits, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stderr + done.stdout


def test_store_node_that_may_not_lock_its_segment_ends_with_78_and_says_what_to_do(tmp_path: Path) -> None:
    node = (
        "-m", "eyas_runtime.features.blobs.mooncake_node", "--master=127.0.0.1:1", "--admin=127.0.0.1:1",
        "--hostname=127.0.0.1", f"--segment-bytes={4 * MIB}", "--protocol=RDMA",
    )  # fmt: skip
    code, told = limited(8 * MIB, *node, **{env.TERMINATION_LOG: str(tmp_path / "termination")})
    assert code == Exit.CONFIG, told
    line = json.loads((tmp_path / "termination").read_text())
    assert line["klass"] == "UserError"
    for part in ("RLIMIT_MEMLOCK is 8388608 bytes", "at least 20971520 bytes", "LimitMEMLOCK=infinity", "containerd"):
        assert part in line["message"]
        assert part in told


@pytest.mark.parametrize(
    ("protocol", "devices", "code", "part"),
    [
        ("RDMA", "", Exit.CONFIG, "at least 16777216 bytes"),
        ("RDMA", "mlx5_0,mlx5_1", Exit.CONFIG, "at least 33554432 bytes"),
        ("TCP", "", Exit.DONE, ""),
    ],
)
def test_producer_or_rank_is_refused_when_it_opens_a_pool_over_rdma_alone(
    protocol: str, devices: str, code: Exit, part: str
) -> None:
    found, told = limited(MIB, "-c", OPEN.format(protocol, devices))
    assert found == code, told
    assert part in told


@pytest.mark.parametrize(
    ("count", "devices", "code"),
    [
        (MIB, "", Exit.DONE),
        (MIB, "mlx5_0", Exit.DONE),
        (MIB + 1, "", Exit.CONFIG),
        (MIB // 2, "mlx5_0,mlx5_1", Exit.DONE),
        (MIB // 2 + 1, "mlx5_0,mlx5_1", Exit.CONFIG),
    ],
)
def test_limit_that_is_just_enough_is_enough_and_each_device_counts(count: int, devices: str, code: Exit) -> None:
    assert limited(MIB, "-c", REQUIRE.format(count, devices))[0] == code


def test_soft_limit_is_raised_as_far_as_it_may_be() -> None:
    script = (
        "import resource\n"
        "from eyas_runtime.features.blobs.locked_memory import require_lockable\n"
        f"require_lockable({MIB}, devices='')\n"
        "print(resource.getrlimit(resource.RLIMIT_MEMLOCK))"
    )
    code, told = limited(MIB, "-c", script, soft=0)
    assert (code, told.strip()) == (0, str((MIB, MIB)))


LIBRARY = """
class MooncakeDistributedStore:
    def setup(self, *_): return 0
    room = 2 << 20
    def register_buffer(self, _address, size):
        self.room -= size
        return 0 if self.room >= 0 else -800
    put_from = batch_put_from_multi_buffers = get_into_ranges = remove = unregister_buffer = close = None
    def get_size(self, _key): return 2 << 20
    def get_into(self, _key, _address, size): return size
class ReplicateConfig: soft_pin_action = None
class SoftPinAction: ENABLE = 1
"""
"""The library as it is on a machine whose limit ends after the first object."""
FETCH = (
    "import socket\n"
    "from eyas_runtime.features.blobs import mooncake_client\n"
    "from eyas_runtime.features.config import StoreConfig, open_blobs\n"
    "from eyas_runtime.process import run_role\n"
    "mooncake_client.LOCAL_BUFFER_BYTES = 1 << 20\n"
    "config = StoreConfig(backend='Mooncake', master_address='127.0.0.1:{}', protocol='{}')\n"
    "def fetch():\n"
    "    blobs = open_blobs(config)\n"
    "    held = [blobs.get('eyas.healthcheck.e0.g0.' + 32 * digit, 2 << 20) for digit in '01']\n"
    "with socket.create_server(('127.0.0.1', {})):\n"
    "    run_role(fetch)\n"
)


@pytest.mark.parametrize(
    ("protocol", "code", "part"),
    [
        ("RDMA", Exit.CONFIG, "RLIMIT_MEMLOCK is 4194304 bytes, and RDMA has to lock at least 5242880 bytes here"),
        ("TCP", Exit.TEMPORARY, "would not register 2097152 bytes"),
    ],
)
def test_registration_that_fails_later_at_the_limit_says_so(
    tmp_path: Path, protocol: str, code: Exit, part: str
) -> None:
    (tmp_path / "mooncake").mkdir()
    (tmp_path / "mooncake" / "__init__.py").touch()
    (tmp_path / "mooncake" / "store.py").write_text(LIBRARY)
    (port,) = free_ports("127.0.0.1", 1)
    found, told = limited(4 * MIB, "-c", FETCH.format(port, protocol, port), PYTHONPATH=str(tmp_path))
    assert found == code, told
    assert part in told


@pytest.mark.parametrize(
    ("effective", "ids", "free"),
    [
        ("0000000000004000", "0 0 4294967295", True),
        ("000001ffffffffff", "0 0 4294967295", True),
        ("0000000000000000", "0 0 4294967295", False),
        ("000001ffffffbfff", "0 0 4294967295", False),
        ("000001ffffffffff", "0 100000 65536", False),
    ],
)
def test_capability_lifts_the_limit_in_the_first_user_namespace_only(
    tmp_path: Path, effective: str, ids: str, free: bool
) -> None:
    (tmp_path / "status").write_text(f"Name:\tpython\nCapPrm:\t000001ffffffffff\nCapEff:\t{effective}\n")
    (tmp_path / "uid_map").write_text(f"         {ids}\n")
    assert lockable(tmp_path) == (0, str(None if free else MIB))


def test_process_of_which_nothing_is_known_is_under_the_limit(tmp_path: Path) -> None:
    assert lockable(tmp_path) == (0, str(MIB))


def lockable(process: Path) -> tuple[int, str]:
    """What a process with a limit of one MiB takes for its bound, if `/proc` says this of it."""
    script = (
        "import pathlib, sys\n"
        "from eyas_runtime.features.blobs.locked_memory import lockable_bytes\n"
        "print(lockable_bytes(pathlib.Path(sys.argv[1])))"
    )
    code, told = limited(MIB, "-c", script, str(process))
    return code, told.strip()


@pytest.mark.parametrize(("device", "level"), [(True, "warning"), (False, "ok")])
def test_doctor_warns_of_the_limit_where_there_is_a_device(tmp_path: Path, device: bool, level: str) -> None:
    if device:
        (tmp_path / "mlx5_0").touch()
    script = f"from eyas_cli.doctor import *\nc = locked_memory(Path({str(tmp_path)!r}))\nprint(c.level, c.text)"
    code, told = limited(MIB, "-c", script)
    assert code == 0, told
    assert told.startswith(f"{level} ")
    assert "1048576 bytes" in told
    assert ("LimitMEMLOCK=infinity" in told) is device


def test_doctor_of_the_machine_looks_at_the_limit() -> None:
    assert "locked memory" in (check.name for check in machine())
