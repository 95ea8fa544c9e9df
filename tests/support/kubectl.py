"""`kubectl` against the cluster of `make e2e-up`, with answers as Python values. Every call is bounded."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

from support.kube_tools import tool

CALL_SECONDS: Final = 60.0
NAMESPACE: Final = "eyas-e2e"


class Refused(AssertionError):
    """kubectl said no; the message is its own."""


def kubeconfig() -> Path:
    """The file of the test cluster: `EYAS_E2E_KUBECONFIG`, else where `make e2e-up` puts it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("EYAS_CACHE") or home / "eyas")
    return Path(os.environ.get("EYAS_E2E_KUBECONFIG") or cache / "e2e" / "kubeconfig")


class Kubectl:
    """One cluster, one namespace."""

    def __init__(self, config: Path, namespace: str = NAMESPACE) -> None:
        self._base = [str(tool("kubectl")), "--kubeconfig", str(config), "--namespace", namespace]

    def command(self, *arguments: str) -> list[str]:
        """The whole command line, for a test that starts it itself."""
        return [*self._base, *arguments]

    def run(self, *arguments: str, given: str | None = None, seconds: float = CALL_SECONDS) -> str:
        """What it printed. Raises `Refused` with its message when it fails or takes too long."""
        command = self.command(*arguments)
        try:
            done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise Refused(f"kubectl {' '.join(arguments)} took more than {seconds} s") from None
        if done.returncode:
            raise Refused(done.stderr.strip() or done.stdout.strip())
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`."""
        answer: dict[str, Any] = json.loads(self.run("get", *arguments, "-o", "json"))
        return answer

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The items of a list."""
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def apply(self, body: dict[str, Any], *flags: str) -> None:
        """Server-side apply of one object."""
        self.run("apply", "--server-side", *flags, "-f", "-", given=json.dumps(body))
