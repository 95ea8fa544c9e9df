"""Writes one image as a docker archive: the layers given, and a configuration that depends on nothing but its inputs.

`docker build` puts the time of the build into every image; here the same layers give the same image, byte for byte, on
any day. Standard library only, so that it runs before anything is installed.

    pack.py --name eyas-runtime:0.1.0 --layer base.tar --layer app.tar --label key=value --env A=B --command '["python"]'
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path

_CHUNK = 1 << 20


def _digest(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _configuration(arguments: argparse.Namespace, digests: list[str]) -> bytes:
    created = datetime.fromtimestamp(arguments.epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {
            "User": "65532:65532",
            "WorkingDir": "/tmp",  # noqa: S108 - an emptyDir in every pod
            "Env": arguments.env,
            "Cmd": json.loads(arguments.command),
            "Labels": dict(label.split("=", 1) for label in arguments.label),
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created": created, "created_by": "images/build.sh"} for _ in digests],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def main() -> None:
    """Write the archive to standard output; the image's id goes to standard error."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--layer", action="append", required=True, type=Path)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--command", required=True, help="JSON list")
    parser.add_argument("--epoch", type=int, required=True)
    arguments = parser.parse_args()
    digests = [_digest(layer) for layer in arguments.layer]
    config = _configuration(arguments, digests)
    identity = hashlib.sha256(config).hexdigest()
    names = [f"{digest}/layer.tar" for digest in digests]
    manifest = [{"Config": f"{identity}.json", "RepoTags": [arguments.name], "Layers": names}]
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", bufsize=_CHUNK) as archive:
        _add(archive, f"{identity}.json", config)
        for layer, name in zip(arguments.layer, names, strict=True):
            member = tarfile.TarInfo(name)
            member.size = layer.stat().st_size
            with layer.open("rb") as source:
                archive.addfile(member, source)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    print(f"sha256:{identity}", file=sys.stderr)


if __name__ == "__main__":
    main()
