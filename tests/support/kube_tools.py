"""Where the Kubernetes programs are that tests start: etcd, and Kubernetes in one binary that is called by its name.

`tools/kube_tools.sh` puts them into a folder of the user's cache; `EYAS_KUBE_TOOLS` names another `bin` folder.
"""

import os
from pathlib import Path
from typing import Final

VARIABLE: Final = "EYAS_KUBE_TOOLS"


def tool(name: str) -> Path:
    """The program `name` (`etcd`, `kube`, `helm`, ...). Fails with a sentence that says how to get it."""
    for folder in _folders():
        if (folder / name).is_file():
            return folder / name
    raise AssertionError(f"{name} is not there: run tools/kube_tools.sh, or set {VARIABLE} to a folder that has it")


def _folders() -> list[Path]:
    """The named folder alone, else every version in the cache, the newest first."""
    if named := os.environ.get(VARIABLE):
        return [Path(named)]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("EYAS_CACHE") or home / "eyas")
    found = (cache / "kube-tools").glob("*/bin")
    return sorted(found, key=lambda folder: folder.stat().st_mtime, reverse=True)
