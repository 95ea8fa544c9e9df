"""Claims as folders: `DIR/claims/<name>`, each with a marker that says which claim it is.

A volume can be lost: the folder deleted, emptied, or replaced by another. The marker carries the claim's UID, so all
three are seen, and an empty folder is never taken for a volume that was always empty. Folders that the user maps
(`--volume`) are the user's: never marked, never deleted.
"""

from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_operator.backends.local.folder import read_json, remove_tree, replace_json

MARKER_FILE: Final = ".eyas-claim.json"


class Claims:
    """Folders of one run's claims."""

    def __init__(self, root: Path, stem: str) -> None:
        self._root = root
        self._prefix = f"{stem}-"

    def folder(self, claim: str) -> Path:
        """Where a claim of this job lies. Raises `UserError` for a name that is no single folder."""
        name = claim.removeprefix(self._prefix)
        if not name or name.startswith(".") or "/" in name:
            raise UserError(f"{claim!r} is no name of a claim")
        return self._root / name

    def make(self, claim: str, uid: str) -> None:
        """Make the folder of a new claim, with its marker."""
        folder = self.folder(claim)
        folder.mkdir(parents=True, exist_ok=True)
        replace_json(folder / MARKER_FILE, {"name": claim, "uid": uid})

    def present(self, claim: str, uid: str) -> bool:
        """Whether the folder is there and is still the one that was made for this claim."""
        marker = read_json(self.folder(claim) / MARKER_FILE)
        return isinstance(marker, dict) and marker.get("uid") == uid

    def remove(self, claim: str, uid: str) -> None:
        """Delete the folder of a claim of ours; one that carries another's marker, or none, stays."""
        if self.present(claim, uid):
            remove_tree(self.folder(claim))
