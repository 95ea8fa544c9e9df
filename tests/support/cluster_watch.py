"""What became of a job's pods: every version that the API server told of, written down while a test does other things.

A pod that has been deleted tells no exit code any more; a watch that began before has seen it.
"""

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from support.kubectl import Kubectl

Pod = dict[str, Any]


class PodHistory:
    """All versions of a job's pods in the order of the watch."""

    def __init__(self) -> None:
        self._versions: list[tuple[str, Pod]] = []
        self._lock = threading.Lock()

    def add(self, kind: str, pod: Pod) -> None:
        """One event of the watch: ADDED, MODIFIED or DELETED."""
        with self._lock:
            self._versions.append((kind, pod))

    def versions(self, role: str = "") -> list[tuple[str, Pod]]:
        """(kind of event, pod), all roles or one."""
        with self._lock:
            found = list(self._versions)
        return [entry for entry in found if role in ("", entry[1]["metadata"]["labels"]["eyas.dev/role"])]

    def uids(self, role: str = "") -> dict[str, str]:
        """UIDs of all pods ever seen, with their names."""
        return {pod["metadata"]["uid"]: pod["metadata"]["name"] for _, pod in self.versions(role)}

    def exit_codes(self, role: str) -> dict[str, int]:
        """Exit code of each pod of a role that was seen to end, by name."""
        return {
            pod["metadata"]["name"]: status["state"]["terminated"]["exitCode"]
            for _, pod in self.versions(role)
            for status in pod["status"].get("containerStatuses", ())
            if "terminated" in status["state"]
        }


@contextmanager
def watched_pods(kubectl: Kubectl, job: str) -> Iterator[PodHistory]:
    """Write down all versions of the pods of `job`, from now to the end of the block."""
    history = PodHistory()
    arguments = ("get", "pods", "-l", f"eyas.dev/job-name={job}", "--watch", "--output-watch-events", "-o", "json")
    process = subprocess.Popen(kubectl.command(*arguments), stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=_read, args=(process, history), daemon=True)
    reader.start()
    try:
        yield history
    finally:
        process.terminate()
        process.wait(10)
        reader.join(10)


def _read(process: "subprocess.Popen[str]", history: PodHistory) -> None:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        # Some kubectl write an object in one line, some in many; it ends where its first brace is closed.
        if not line.endswith("}\n") or line.startswith(" "):
            continue
        event = json.loads(text)
        text = ""
        history.add(event["type"], event["object"])
