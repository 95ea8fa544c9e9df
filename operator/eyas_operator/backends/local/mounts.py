"""What a pod finds when it starts: its folders, its configuration, its tokens, its claims.

Folders stand in for mounts. Per-pod volumes lie under `DIR/pods/<pod>/`; shared ones where the environment says. The
configuration is copied into the pod's own folder, so that nothing changes under a process when the next attempt gets
another one; variables that name its mount path are rewritten to the copy.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.folder import remove_tree, replace_file
from eyas_operator.backends.local.objects import CLAIM, CONFIG_MAP, Objects
from eyas_operator.backends.local.secrets import Secrets
from eyas_operator.world import Manifest

CONFIG_FOLDER: Final = "config"
_TOKEN_MODE: Final = 0o400


class NotThere(Exception):
    """Something that the pod mounts does not exist (yet): the pod waits, as it does in a cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a pod's volumes come from."""

    objects: Objects
    claims: Claims
    secrets: Secrets
    mapped: Callable[[str], Path | None]
    """Folder of a claim that the user brought, by claim name."""


def mount(manifest: Manifest, folder: Path, sources: Sources) -> dict[str, str]:
    """Fill the pod's folder; returns the prefixes to rewrite in its environment. Raises `NotThere`."""
    container = manifest["spec"]["containers"][0]
    paths = {entry["name"]: Path(entry["mountPath"]) for entry in container.get("volumeMounts", ())}
    rewritten: dict[str, str] = {}
    for volume in manifest["spec"].get("volumes", ()):
        target = paths.get(volume["name"])
        if target is None:
            continue
        if "configMap" in volume:
            copy = folder / CONFIG_FOLDER
            _write_config(volume["configMap"]["name"], copy, sources.objects)
            rewritten[str(target)] = str(copy)
        elif "projected" in volume:
            _write_tokens(volume["projected"]["sources"], target, sources.secrets)
        elif "persistentVolumeClaim" in volume:
            _link_claim(volume["persistentVolumeClaim"]["claimName"], target, folder, sources)
        elif target.is_relative_to(folder):
            target.mkdir(parents=True, exist_ok=True)
    return rewritten


def _write_config(name: str, target: Path, objects: Objects) -> None:
    stored = objects.find(CONFIG_MAP, name)
    if stored is None:
        raise NotThere(f"the ConfigMap {name} does not exist")
    target.mkdir(exist_ok=True)
    for key, text in stored.manifest["data"].items():
        replace_file(target / key, str(text).encode())


def _write_tokens(projected: list[dict[str, Any]], target: Path, secrets: Secrets) -> None:
    target.mkdir(mode=0o700, exist_ok=True)
    for source in projected:
        secret = source["secret"]
        for item in secret["items"]:
            file = secrets.path(secret["name"], item["key"])
            if not file.exists():
                raise NotThere(f"the Secret {secret['name']} has no key {item['key']}")
            replace_file(target / item["path"], file.read_bytes(), mode=_TOKEN_MODE)


def _link_claim(name: str, target: Path, folder: Path, sources: Sources) -> None:
    source = sources.mapped(name)
    if source is None:
        stored = sources.objects.find(CLAIM, name)
        if stored is None:
            raise NotThere(f"the claim {name} does not exist")
        if not sources.claims.present(name, stored.uid):
            raise NotThere(f"the folder of the claim {name} is gone")
        source = sources.claims.folder(name)
    elif not source.is_dir():
        raise NotThere(f"the folder {source} of the claim {name} is gone")
    if target.is_relative_to(folder):
        remove_tree(target)
        target.symlink_to(source)
