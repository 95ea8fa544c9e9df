"""Reading slices of a checkpoint, whatever world size wrote it. Numpy only; tensors are made by the trainer.

A box that lies in one file and is contiguous there comes as a view of the mapped file without a copy; any other is
put together from its parts. Every file is compared with its digest before its first byte is used, unless the caller
(rank 0, which has just verified all of them) says that it has been.
"""

import math
import mmap
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from eyas_contract.errors import Corrupt
from eyas_runtime import digests, files
from eyas_runtime.checkpoint import layout as layouts
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.layout import Layout, StoredBox, StoredTensor
from eyas_runtime.checkpoint.manifest import Manifest
from eyas_runtime.checkpoint.names import LAYOUT, MANIFEST
from eyas_runtime.checkpoint.pieces import ITEM_BYTES
from eyas_runtime.checkpoint.verify import check_file

Raw = npt.NDArray[Any]
"""Opaque elements (numpy void of the item's width): no arithmetic ever happens here."""


class SliceReader:
    """Boxes of tensors out of the shard files of one directory."""

    def __init__(self, path: Path, layout: Layout, *, tick: Callable[[], None] = lambda: None) -> None:
        """Open the directory `path` whose tensors lie as `layout` says. Raises `OSError`."""
        self.layout = layout
        self._tick = tick
        self._maps: dict[str, mmap.mmap] = {}
        self._dir_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory. Mapped files stay open while a view of them lives."""
        os.close(self._dir_fd)
        self._maps.clear()

    def tensor(self, name: str) -> StoredTensor:
        """dtype, shape and boxes of `name`. Raises `Corrupt` if the checkpoint has no such tensor."""
        try:
            return self.layout.tensors[name]
        except KeyError:
            raise Corrupt(f"the checkpoint has no tensor {name}") from None

    def read(self, name: str, offset: Sequence[int] | None = None, extent: Sequence[int] | None = None) -> Raw:
        """The box [offset, offset + extent) of tensor `name` (default: all of it) as opaque elements of its width.

        The array may be a read-only view of the file. Raises `Corrupt` and `OSError`.
        """
        tensor = self.tensor(name)
        begin = tuple(offset) if offset is not None else (0,) * len(tensor.shape)
        size = tuple(extent) if extent is not None else tensor.shape
        parts = list(layouts.overlaps(tensor, begin, size))
        self._tick()
        if len(parts) == 1 and parts[0][1:] == (begin, size):
            box = parts[0][0]
            return self._view(box, tensor.dtype)[_region(box.offset, begin, size)]
        target: Raw = np.empty(size, dtype=_void(tensor.dtype))
        for box, shared_offset, shared_extent in parts:
            source = self._view(box, tensor.dtype)[_region(box.offset, shared_offset, shared_extent)]
            target[_region(begin, shared_offset, shared_extent)] = source
        return target

    def _view(self, box: StoredBox, dtype: str) -> Raw:
        mapped = self._maps.get(box.file)
        if mapped is None:
            self._believe(box.file)
            mapped = self._maps[box.file] = self._map(box.file)
        if box.end > len(mapped):
            raise Corrupt(f"{box.file} is shorter than its layout says")
        flat: Raw = np.frombuffer(mapped, dtype=_void(dtype), count=math.prod(box.extent), offset=box.begin)
        return flat.reshape(box.extent)

    def _believe(self, name: str) -> None:
        """Called once per file before its first byte is used."""

    def _map(self, name: str) -> mmap.mmap:
        descriptor = files.open_regular(self._dir_fd, name)
        try:
            return mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)


class CheckpointReader(SliceReader):
    """An open checkpoint directory: every file is compared with its digest before it is used."""

    def __init__(
        self, path: Path, *, manifest_digest: str, verified: bool = False, tick: Callable[[], None] = lambda: None
    ) -> None:
        """Open `path`, whose manifest must have `manifest_digest` (BLAKE3 hex).

        `verified`: the caller has just compared every file (rank 0 does so before `reconcile`). Raises `Corrupt`
        where bytes are not what the manifest says, and `OSError`.
        """
        raw = files.read_verified(path / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
        digests.check(f"blake3:{manifests.digest_of(raw)}", f"blake3:{manifest_digest}", MANIFEST)
        self.manifest: Manifest = manifests.decode(raw)
        self._verified = verified
        entry = self.manifest.files.get(LAYOUT)
        if entry is None:
            raise Corrupt("manifest.json names no layout")
        layout = files.read_verified(
            path / LAYOUT, digest=entry.digest, length=entry.nbytes, bytes_max=layouts.LAYOUT_BYTES_MAX
        )
        super().__init__(path, layouts.decode(layout), tick=tick)

    def _believe(self, name: str) -> None:
        entry = self.manifest.files.get(name)
        if entry is None:
            raise Corrupt(f"{name} is in the layout but not in the manifest")
        if not self._verified:
            check_file(self._dir_fd, name, entry, self._tick)


def _void(dtype: str) -> np.dtype[Any]:
    return np.dtype(f"V{ITEM_BYTES[dtype]}")


def _region(base: Sequence[int], offset: Sequence[int], extent: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(o - b, o - b + e) for b, o, e in zip(base, offset, extent, strict=True))
