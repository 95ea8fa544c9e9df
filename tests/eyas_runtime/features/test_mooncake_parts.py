"""The pure and small parts of the Mooncake adapter: codes, pieces, command line, admin answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract import env
from eyas_contract.config import StoreConfig
from eyas_contract.errors import Bug, NotReadable, StoreFull, Transient, UserError
from eyas_runtime.features.blobs import mooncake_codes as codes
from eyas_runtime.features.blobs import mooncake_transfer as transfer
from eyas_runtime.features.blobs.mooncake import transfers_max
from eyas_runtime.features.blobs.mooncake_admin import ANSWER_BYTES_MAX, MooncakeAdmin
from eyas_runtime.features.blobs.mooncake_client import probe
from eyas_runtime.features.blobs.mooncake_master import MasterSettings, master_argv
from eyas_runtime.features.blobs.mooncake_node import pod_arguments
from support.metadata_service import job_config
from support.mooncake_pool import free_ports

AWAY = (-900, -901, -1010)


@pytest.mark.parametrize("code", [-200, -1700])
def test_no_room_is_flow_control(code: int) -> None:
    assert isinstance(codes.write_error(code, "put"), StoreFull)


@pytest.mark.parametrize("code", [-703, -704, -710, -712, -800, -801])
def test_a_missing_object_is_lost_not_waited_for(code: int) -> None:
    assert isinstance(codes.read_error(code, "get"), NotReadable)


@pytest.mark.parametrize("code", AWAY)
def test_an_absent_control_plane_is_waited_for(code: int) -> None:
    assert isinstance(codes.read_error(code, "get"), Transient)
    assert type(codes.write_error(code, "put")) is Transient
    with pytest.raises(Transient):
        codes.removed(code, "delete")


@pytest.mark.parametrize("code", [-1, -10, -400, -600, -1500, -123456])
def test_any_other_answer_stops_the_role(code: int) -> None:
    assert isinstance(codes.read_error(code, "get"), Bug)
    assert isinstance(codes.write_error(code, "put"), Bug)
    with pytest.raises(Bug):
        codes.removed(code, "delete")


@pytest.mark.parametrize(("code", "gone"), [(0, True), (-704, True), (-706, False), (-703, False), (-714, False)])
def test_a_remove_is_done_or_asked_again(code: int, gone: bool) -> None:
    assert codes.removed(code, "delete") is gone


@given(st.integers(1, 1 << 36))
def test_pieces_cover_a_blob_exactly_and_end_small(length: int) -> None:
    sizes = transfer.piece_sizes(length)
    assert sum(sizes) == length
    assert max(sizes) <= transfer.PIECE_BYTES_MAX
    assert sizes[-1] <= transfer.PIECE_BYTES_MIN


@pytest.mark.parametrize(("cores", "transfers"), [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16)])
def test_transfers_under_way_leave_cores_for_digests(cores: int, transfers: int) -> None:
    assert transfers_max(cores) == transfers


def test_the_master_never_evicts_pinned_objects_and_binds_one_address() -> None:
    argv = master_argv(MasterSettings(host="127.1.2.3", rpc_port=7382, admin_port=7383, lease_milliseconds=500))
    assert {"--rpc_address=127.1.2.3", "--metrics_host=127.1.2.3", "--rpc_port=7382", "--metrics_port=7383"} <= set(
        argv
    )
    assert {"--allow_evict_soft_pinned_objects=false", "--max_kv_soft_pin_ttl=24h"} <= set(argv)
    assert {"--enable_snapshot=false", "--enable_snapshot_restore=false", "--default_kv_lease_ttl=500"} <= set(argv)


@pytest.mark.parametrize("address", ["", "host", "host:", "host:port", ":x"])
def test_what_is_no_address_is_the_users_error(address: str) -> None:
    with pytest.raises(UserError):
        probe(address)


def test_nobody_listening_is_waited_for() -> None:
    [port] = free_ports("127.0.0.1", 1)
    with pytest.raises(Transient):
        probe(f"127.0.0.1:{port}")
    with pytest.raises(Transient):
        MooncakeAdmin(f"127.0.0.1:{port}", deadline_seconds=1.0).segments()


class Answers(BaseHTTPRequestHandler):
    """Serves `bodies` by path; what is not there is 404."""

    bodies: ClassVar[dict[str, bytes]] = {}
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = self.bodies.get(self.path.partition("?")[0])
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def admin() -> Iterator[MooncakeAdmin]:
    Answers.bodies = {}
    Answers.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = MooncakeAdmin(f"127.0.0.1:{server.server_address[1]}", deadline_seconds=5.0)
    yield client
    client.close()
    server.shutdown()
    server.server_close()


def test_a_listing_is_filtered_whatever_the_piece_borders(admin: MooncakeAdmin) -> None:
    keys = [f"eyas.{'a' if n % 2 else 'b'}.{n}" for n in range(20_000)]
    Answers.bodies["/get_all_keys"] = "\n".join(keys).encode()
    assert list(admin.keys("eyas.a.")) == keys[1::2]


def test_a_line_without_end_is_not_taken_into_memory(admin: MooncakeAdmin) -> None:
    Answers.bodies["/get_all_keys"] = b"x" * 200_000
    with pytest.raises(Transient):
        list(admin.keys("eyas."))


def test_an_answer_without_end_is_refused(admin: MooncakeAdmin) -> None:
    Answers.bodies["/get_all_segments"] = b"x" * (ANSWER_BYTES_MAX + 1)
    with pytest.raises(Transient, match="too long"):
        admin.segments()


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"data":{"k":{"ok":"yes"}}}', b'{"data":{"\xe4":{}}}'])
def test_an_answer_that_is_not_understood_is_waited_for(admin: MooncakeAdmin, body: bytes) -> None:
    Answers.bodies["/batch_query_keys"] = body
    with pytest.raises(Transient):
        admin.sizes(["k"])


def test_sizes_are_asked_in_batches_and_missing_ones_are_none(admin: MooncakeAdmin) -> None:
    entry = {"ok": True, "values": [{"size_": 7, "buffer_address_": 1}], "error": None}
    Answers.bodies["/batch_query_keys"] = json.dumps(
        {"success": True, "data": {"k0": entry, "k450": entry, "k1": {"ok": False, "values": None}}}
    ).encode()
    found = admin.sizes([f"k{n}" for n in range(451)])
    assert [n for n, size in enumerate(found) if size == 7] == [0, 450]
    assert found[1] is None
    assert len(Answers.asked) == 3


def test_capacity_is_read_from_the_metrics(admin: MooncakeAdmin) -> None:
    Answers.bodies["/metrics"] = b"# HELP x\nmaster_allocated_bytes 5\nmaster_total_capacity_bytes 2.5e3\nother 1\n"
    assert admin.capacity() == (2500, 5)


def test_a_path_that_the_release_does_not_have_is_said(admin: MooncakeAdmin) -> None:
    with pytest.raises(Transient, match="404"):
        admin.segments()


@pytest.mark.parametrize(("grace", "drain"), [("60", "52"), ("5", "0"), ("", "0")])
def test_a_pod_drains_within_its_own_grace_period(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grace: str, drain: str
) -> None:
    store = StoreConfig(
        backend="Mooncake", max_resident_bytes=2**30, master_address="m:1", master_metrics_address="m:2"
    )
    config = msgspec.structs.replace(job_config(tmp_path), store=store)
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(config))
    for name, value in (
        (env.CONFIG_FILE, str(tmp_path / "job.json")),
        (env.HOST_ADDRESS, "127.0.0.1"),
        (env.POD_DIRECTORY, str(tmp_path)),
        (env.GRACE_SECONDS, grace),
    ):
        monkeypatch.setenv(name, value)
    words = pod_arguments()
    assert words[words.index("--drain-seconds") + 1] == drain
