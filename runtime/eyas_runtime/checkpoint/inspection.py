"""What is wrong with the checkpoints in a folder, in sentences: for `eyas doctor`, while no rank runs.

Every committed directory is read whole and compared with its digests, as at a start of the ranks, but nothing is
repeated, judged or written. Torch-free.
"""

from collections.abc import Iterator
from pathlib import Path

from eyas_contract.errors import EyasError
from eyas_runtime import digests, files
from eyas_runtime.checkpoint import manifest as manifests
from eyas_runtime.checkpoint.names import MANIFEST, RECEIPT, STRUCK, parse_directory
from eyas_runtime.checkpoint.verify import check_file


def inspect(root: Path) -> Iterator[tuple[Path, str]]:
    """Every committed checkpoint directory of the job's folder `root`, with what is wrong; empty when it is sound."""
    for directory in sorted(root.iterdir()):
        committed = parse_directory(directory.name) is not None and (directory / RECEIPT).is_file()
        if committed and not (directory / STRUCK).exists():
            yield directory, _problem(directory)


def _problem(directory: Path) -> str:
    try:
        receipt = manifests.decode_receipt(
            files.read_verified(directory / RECEIPT, bytes_max=manifests.RECEIPT_BYTES_MAX)
        )
        raw = files.read_verified(directory / MANIFEST, bytes_max=manifests.MANIFEST_BYTES_MAX)
        digests.check(f"blake3:{manifests.digest_of(raw)}", f"blake3:{receipt.manifest_digest}", MANIFEST)
        with files.directory(directory) as dir_fd:
            for name, entry in sorted(manifests.decode(raw).files.items()):
                check_file(dir_fd, name, entry)
    except OSError as error:
        return f"{Path(str(error.filename or 'a file')).name}: {error.strerror}"
    except EyasError as error:
        return str(error)
    return ""
