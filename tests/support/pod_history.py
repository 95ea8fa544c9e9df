"""Everything the API server said about a job's pods while a test ran: also of pods that are gone by now."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from support.kubectl import Kubectl


class PodHistory:
    """The watch events of one job's pods, in order, read from the file that kubectl writes."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def events(self) -> list[dict[str, Any]]:
        """All whole events until now."""
        self._file.seek(0)
        text = self._file.read()
        decoder, place, found = json.JSONDecoder(), 0, []
        while place < len(text):
            try:
                event, end = decoder.raw_decode(text, place)
            except json.JSONDecodeError:  # The last one is still being written.
                break
            found.append(event)
            place = end + len(text[end:]) - len(text[end:].lstrip())
        return found

    def last(self) -> dict[str, dict[str, Any]]:
        """Each pod as it was seen last, by name."""
        return {event["object"]["metadata"]["name"]: event["object"] for event in self.events()}

    def exit_codes(self, role: str) -> dict[str, int]:
        """How the containers of that role's pods ended, by pod; those that were seen to end."""
        codes = {}
        for event in self.events():
            meta, status = event["object"]["metadata"], event["object"]["status"]
            for container in status.get("containerStatuses", ()):
                ended = container["state"].get("terminated")
                if ended and meta["labels"]["eyas.dev/role"] == role:
                    codes[meta["name"]] = ended["exitCode"]
        return codes


@contextmanager
def pod_history(kubectl: Kubectl, name: str) -> Iterator[PodHistory]:
    """Watches the pods of the job `name` while the block runs."""
    flags = ("-l", f"eyas.dev/job-name={name}", "--watch", "--output-watch-events", "-o", "json")
    with tempfile.TemporaryFile("w+") as file:
        watch = subprocess.Popen(kubectl.command("get", "pods", *flags), stdout=file, stderr=subprocess.DEVNULL)
        try:
            # A second handle: the two would share one position otherwise.
            with open(f"/proc/self/fd/{file.fileno()}") as reader:
                yield PodHistory(reader)
        finally:
            watch.kill()
            watch.wait()
