"""Everything the API server said about a job's pods while a test ran: also of pods that are gone by now."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from support.kubectl import Kubectl

Pod = dict[str, Any]


class PodHistory:
    """The watch events of one job's pods, in order, read from the file that kubectl writes."""

    def __init__(self, file: IO[str]) -> None:
        self._file: IO[str] | None = file
        self._told: list[tuple[str, Pod]] = []

    def close(self) -> None:
        """Keep what was told until now; the file is not read any more."""
        self._told, self._file = self.versions(), None

    def versions(self, role: str = "") -> list[tuple[str, Pod]]:
        """(ADDED, MODIFIED or DELETED; pod) of all whole events until now, of all roles or one."""
        told = self._told if self._file is None else _read(self._file)
        return [entry for entry in told if role in ("", entry[1]["metadata"]["labels"]["eyas.dev/role"])]

    def last(self) -> dict[str, Pod]:
        """Each pod as it was seen last, by name."""
        return {pod["metadata"]["name"]: pod for _, pod in self.versions()}

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


def _read(file: IO[str]) -> list[tuple[str, Pod]]:
    file.seek(0)
    text = file.read()
    decoder, place = json.JSONDecoder(), 0
    found: list[tuple[str, Pod]] = []
    while place < len(text):
        try:
            event, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError:  # The last one is still being written.
            break
        found.append((event["type"], event["object"]))
        place = end + len(text[end:]) - len(text[end:].lstrip())
    return found


@contextmanager
def pod_history(kubectl: Kubectl, name: str) -> Iterator[PodHistory]:
    """Watches the pods of the job `name` while the block runs."""
    flags = ("-l", f"eyas.dev/job-name={name}", "--watch", "--output-watch-events", "-o", "json")
    with tempfile.TemporaryFile("w+") as file:
        watch = subprocess.Popen(kubectl.command("get", "pods", *flags), stdout=file, stderr=subprocess.DEVNULL)
        try:
            # A second handle: the two would share one position otherwise.
            with open(f"/proc/self/fd/{file.fileno()}") as reader:
                history = PodHistory(reader)
                yield history
                history.close()
        finally:
            watch.kill()
            watch.wait()
