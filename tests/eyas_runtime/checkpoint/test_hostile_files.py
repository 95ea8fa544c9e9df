"""Damaged files of a checkpoint are `Corrupt`, whatever the damage: the ranks then believe an older one."""

from pathlib import Path

import pytest

from eyas_contract.errors import Corrupt
from eyas_contract.ids import JobUid
from eyas_runtime.checkpoint import layout, manifest, pieces
from eyas_runtime.checkpoint.names import ROOT_MARKER
from eyas_runtime.checkpoint.store import CheckpointRoot
from support.hostile import UNDECODABLE

WRONG = pytest.mark.parametrize("raw", UNDECODABLE.values(), ids=UNDECODABLE)


@WRONG
def test_manifest_receipt_and_layout_are_refused_by_name(raw: bytes) -> None:
    for name, decode in (
        ("manifest", manifest.decode),
        ("receipt", manifest.decode_receipt),
        ("layout", layout.decode),
    ):
        with pytest.raises(Corrupt, match=name):
            decode(raw)


@WRONG
def test_a_damaged_marker_is_not_another_jobs(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / ROOT_MARKER).write_bytes(raw)
    with pytest.raises(Corrupt, match=ROOT_MARKER):
        CheckpointRoot(tmp_path, JobUid("testjob0")).has_marker()


@WRONG
def test_a_shard_whose_header_is_no_header_is_refused(raw: bytes) -> None:
    with pytest.raises(Corrupt, match="shard"):
        pieces._decode_header(raw, 8 + len(raw), 1 << 20, "shard 0")
    nested = b'{"__metadata__":{"boxes":"{\\"x\\":1}"},"x":' + raw + b"}"
    with pytest.raises(Corrupt, match="shard"):
        pieces._decode_header(nested, 8 + len(nested), 1 << 20, "shard 0")
