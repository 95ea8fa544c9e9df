"""Named places between two effects where a test may kill, stop or fail the process.

A crash suite needs to die exactly between "the object is stored" and "its row is committed", and needs to know that it
has tried every such place. So each place has a name in `NAMES`, and the code says `hit(name)` there. In production
nothing is armed and a hit is one look-up in an empty dictionary.

`EYAS_FAILPOINTS` arms them: `name=action@n` joined by `;`, or `@/path` of a file that holds such a text. The action is
taken at the n-th hit of that name (n is 1 when absent), once; the name `*` counts the hits of all names together.

| action | what happens |
| --- | --- |
| `kill` | SIGKILL to this process: no cleanup of any kind runs |
| `stop` | SIGSTOP: a pause of unknown length, ended by SIGCONT from outside |
| `exit:N` | immediate exit with code N, without `atexit` or `finally` |
| `error` or `error:NAME` | `OSError` with that errno name (EIO when absent) |

`EYAS_FAILPOINTS_LOG=path` appends every name that is hit, one a line, before its action: an exhaustive suite runs once
with it and then kills at each of the counted hits.
"""

import errno
import os
import re
import signal
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from eyas_contract.errors import Bug, UserError

NAMES: Final[dict[str, str]] = {
    "capture.after_lease": "the producer holds a lease, nothing was computed",
    "capture.after_forward": "hidden states exist in memory only",
    "capture.after_put": "the object is stored, no row names it",
    "capture.before_commit": "the commit call was not sent",
    "capture.after_commit": "the commit was answered, the producer has not noted it",
    "metadata.before_commit": "the transaction is complete but not durable",
    "metadata.after_commit": "the transaction is durable, nobody was told",
    "train.before_step": "gradients are not applied",
    "train.after_backward": "gradients exist, weights are old",
    "train.after_step": "weights moved in memory, the ack was not sent",
    "train.after_ack": "the ack was sent",
    "ckpt.before_data": "the checkpoint directory is empty",
    "ckpt.after_data": "shards are written, the manifest is not",
    "ckpt.after_manifest": "the manifest is written, its directory is not synced",
    "ckpt.after_dirsync": "the checkpoint is on disk, the service does not know it",
    "ckpt.before_commit": "the checkpoint commit was not sent",
    "ckpt.after_commit": "the service recorded the checkpoint, the receipt is not stored",
    "ckpt.after_receipt": "the receipt is stored beside the manifest",
    "release.before_delete": "an object whose uses are all durable still exists",
    "release.after_delete": "the object is gone, its row does not say so",
    "sweep.after_list": "the pool was listed, nothing was compared or deleted",
    "files.before_rename": "the temporary file is complete and synced, the name does not exist",
    "files.after_rename": "the name exists, its directory is not synced",
    "files.before_unlink": "the name still exists",
    "files.after_unlink": "the name is gone, its directory is not synced",
    "reconcile.before": "the ranks started, nothing was fenced",
    "reconcile.after": "older holders are fenced, the new incarnation was not handed out",
}
"""Every failpoint, with the state of the world at that place. Names are API: crash suites and issues quote them."""

ENV_SPEC: Final = "EYAS_FAILPOINTS"
ENV_LOG: Final = "EYAS_FAILPOINTS_LOG"
EVERY_NAME: Final = "*"

_ITEM: Final = re.compile(
    r"(?P<name>\*|[a-z_.]+)=(?P<action>kill|stop|exit:(?P<code>[0-9]{1,3})|error(:(?P<errno>E[A-Z0-9]+))?)(@(?P<hit>[0-9]+))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Armed:
    """One armed failpoint: what to do, at which hit, with which number."""

    name: str
    action: Literal["kill", "stop", "exit", "error"]
    at_hit: int
    number: int = 0
    """Exit code of `exit`, errno of `error`."""


@dataclass(slots=True)
class _State:
    armed: tuple[Armed, ...] = ()
    log_path: str | None = None
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)


_ACTIVE: Final[dict[str, _State]] = {}
"""Empty in production; holds the one state under every known name while anything is armed or logged."""


def hit(name: str) -> None:
    """Pass the failpoint `name`. Raises `Bug` for a name that is not in `NAMES`, when anything is armed or logged."""
    if not _ACTIVE:
        return
    state = _ACTIVE.get(name)
    if state is None:
        raise Bug(f"failpoint {name!r} is not in failpoints.NAMES")
    with state.lock:
        if state.log_path is not None:
            _append(state.log_path, name)
        for counter in (name, EVERY_NAME):
            state.counts[counter] = state.counts.get(counter, 0) + 1
        due = [point for point in state.armed if _is_due(point, name, state.counts)]
    for point in due:
        _act(point, name)


def arm(spec: str, *, log_path: str | None = None) -> None:
    """Replace what is armed by `spec` (the text of `EYAS_FAILPOINTS`) and log hits to `log_path`; counts start at 0."""
    state = _State(armed=parse(spec), log_path=log_path)
    _ACTIVE.clear()
    if state.armed or log_path is not None:
        _ACTIVE.update(dict.fromkeys(NAMES, state))


def disarm() -> None:
    """Back to production: nothing armed, nothing logged."""
    _ACTIVE.clear()


def parse(spec: str) -> tuple[Armed, ...]:
    """The armed points that `spec` describes. Raises `UserError` for an unknown name, action or shape."""
    return tuple(_parse_item(item) for item in spec.replace("\n", ";").split(";") if item.strip())


def _parse_item(item: str) -> Armed:
    match = _ITEM.fullmatch(item.strip())
    if match is None:
        raise UserError(f"{ENV_SPEC}: {item.strip()[:80]!r} is not of the form name=kill|stop|exit:N|error[:ERRNO][@n]")
    if match["name"] != EVERY_NAME and match["name"] not in NAMES:
        raise UserError(f"{ENV_SPEC}: no failpoint is called {match['name']!r}; failpoints.NAMES lists them")
    at_hit = int(match["hit"] or 1)
    if at_hit < 1:
        raise UserError(f"{ENV_SPEC}: hits are counted from 1, not {at_hit}")
    if match["code"] is not None:
        return Armed(name=match["name"], action="exit", at_hit=at_hit, number=int(match["code"]))
    if match["action"].startswith("error"):
        number = getattr(errno, match["errno"] or "EIO", None)
        if not isinstance(number, int):
            raise UserError(f"{ENV_SPEC}: {match['errno']!r} is not an errno name")
        return Armed(name=match["name"], action="error", at_hit=at_hit, number=number)
    action: Literal["kill", "stop"] = "kill" if match["action"] == "kill" else "stop"
    return Armed(name=match["name"], action=action, at_hit=at_hit)


def _is_due(point: Armed, name: str, counts: dict[str, int]) -> bool:
    return point.name in (name, EVERY_NAME) and counts[point.name] == point.at_hit


def _append(path: str, name: str) -> None:
    # One write of one short line with O_APPEND is never torn or interleaved between processes.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, f"{name}\n".encode("ascii"))
    finally:
        os.close(descriptor)


def _act(point: Armed, name: str) -> None:
    if point.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif point.action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif point.action == "exit":
        os._exit(point.number)
    else:
        raise OSError(point.number, f"failpoint {name}: {os.strerror(point.number)}")


def _arm_from_environment() -> None:
    spec = os.environ.get(ENV_SPEC, "")
    if spec.startswith("@"):
        spec = Path(spec[1:]).read_text("utf-8")
    log_path = os.environ.get(ENV_LOG)
    if spec or log_path:
        arm(spec, log_path=log_path)


_arm_from_environment()
