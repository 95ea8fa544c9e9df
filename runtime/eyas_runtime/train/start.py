"""The start of the ranks: believe a checkpoint, reconcile, and hand the new incarnation to every rank. Torch-free.

Every start is the same, the very first one included. Rank 0 alone judges the checkpoint folder and calls
`reconcile_on_restart`; the others learn the incarnation from the service and what to load from rank 0.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from eyas_contract import env, wire
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig
from eyas_contract.errors import Bug, Closed, Conflict, Transient, UserError
from eyas_contract.ids import Incarnation
from eyas_runtime import files, temporary
from eyas_runtime.checkpoint.manifest import Receipt
from eyas_runtime.checkpoint.names import parse_directory
from eyas_runtime.checkpoint.store import CheckpointRoot, Strike
from eyas_runtime.checkpoint.verify import Found, find_newest, retrying
from eyas_runtime.environment import required, whole_number
from eyas_runtime.failpoints import hit
from eyas_runtime.train.group import Group

JOIN_WAIT_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this process is."""

    rank: int
    local_rank: int
    world_size: int
    attempt: int
    process: str
    """Nonce of this process."""
    host_address: str


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the ranks of one incarnation begin with; rank 0 tells the others."""

    incarnation: Incarnation
    store_epoch: int
    step: int
    directory: str
    """Empty for initial weights."""
    manifest_digest: str


def read_identity(environ: Mapping[str, str]) -> Identity:
    """From the environment. Raises `UserError` naming the variable."""
    rank, world = whole_number(environ, env.RANK), whole_number(environ, env.WORLD_SIZE)
    if not 0 <= rank < world:
        raise UserError(f"{env.RANK} {rank} is outside 0..{world - 1} ({env.WORLD_SIZE})")
    return Identity(
        rank=rank,
        local_rank=whole_number(environ, env.LOCAL_RANK),
        world_size=world,
        attempt=whole_number(environ, env.ATTEMPT),
        process=required(environ, env.PROCESS),
        host_address=environ.get(env.HOST_ADDRESS, "127.0.0.1"),
    )


def reconcile(
    client: MetadataClient,
    root: CheckpointRoot,
    identity: Identity,
    config: JobConfig,
    fingerprint: Callable[[], wire.Fingerprint],
    *,
    tick: Callable[[], None] = lambda: None,
    pause: Callable[[float], None] = time.sleep,
) -> Origin:
    """Rank 0's half. `fingerprint` is asked for when the files have been compared.

    Raises `Fenced`, `Closed`, `Transient` (folder unreadable), `UserError` (checkpoints lost).
    """
    known = client.call(wire.CHECKPOINTS, wire.Empty()).known
    claim(root, known, allow_zero=config.training.checkpoint.allow_restart_from_zero, pause=pause)
    found, reply = _agree(client, root, identity, fingerprint, known, tick=tick, pause=pause)
    committed = frozenset(entry.directory for entry in known)
    return retrying(lambda: _settle(root, found, reply, committed), pause=pause)


def _agree(
    client: MetadataClient,
    root: CheckpointRoot,
    identity: Identity,
    fingerprint: Callable[[], wire.Fingerprint],
    known: tuple[wire.KnownCheckpoint, ...],
    *,
    tick: Callable[[], None],
    pause: Callable[[float], None],
) -> tuple[Found, wire.ReconcileReply]:
    not_accepted: frozenset[str] = frozenset()
    while True:
        found = find_newest(root, known, not_accepted=not_accepted, tick=tick, pause=pause)
        for refusal in found.refused:
            sys.stderr.write(f"checkpoint {refusal.directory} is refused: {refusal.sentence}\n")
        try:
            return found, _call(client, identity, fingerprint(), found)
        except Conflict as error:
            if found.checkpoint is None:
                raise
            # Not believed by the service (struck, or no proof of its commit): the next older one is tried.
            sys.stderr.write(f"checkpoint {found.checkpoint.manifest.directory} is not accepted: {error}\n")
            not_accepted |= {found.checkpoint.manifest.directory}


def claim(
    root: CheckpointRoot,
    known: tuple[wire.KnownCheckpoint, ...],
    *,
    allow_zero: bool,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Make sure that the folder is this job's: write the marker on a new one, never on one that should not be empty.

    Raises `Transient` when the folder looks like a volume that is not mounted, `UserError` when it is another job's.
    """
    retrying(lambda: _claim(root, known, allow_zero), pause=pause)


def _claim(root: CheckpointRoot, known: tuple[wire.KnownCheckpoint, ...], allow_zero: bool) -> None:
    if root.has_marker():
        return
    if root.path.is_dir() and root.listed():
        raise Transient(f"{root.path} holds checkpoints but no marker file; restore it, or give the job another folder")
    if known and not allow_zero:
        raise Transient(
            f"{root.path} is empty, but checkpoint {known[0].directory} was committed: is the volume mounted? "
            "(training.checkpoint.allowRestartFromZero starts anew)"
        )
    root.write_marker()


def _call(
    client: MetadataClient, identity: Identity, fingerprint: wire.Fingerprint, found: Found
) -> wire.ReconcileReply:
    hit("reconcile.before")
    reply = client.call(
        wire.RECONCILE,
        wire.ReconcileRequest(
            attempt=identity.attempt,
            world_size=identity.world_size,
            process=identity.process,
            fingerprint=fingerprint,
            checkpoint=None if found.checkpoint is None else found.checkpoint.presented(),
            refused=tuple(refusal.directory for refusal in found.refused),
            listed=found.listed,
        ),
    )
    hit("reconcile.after")
    return reply


def _settle(root: CheckpointRoot, found: Found, reply: wire.ReconcileReply, committed: frozenset[str]) -> Origin:
    """Write down beside the checkpoints what the service decided: its receipt, and what lies off the line.

    `committed`: directories whose commit the service remembers.
    """
    verified = found.checkpoint
    directory = verified.manifest.directory if verified is not None else ""
    if (reply.checkpoint_directory or "") != directory:
        raise Closed(f"the service went back to {reply.checkpoint_directory!r}, rank 0 presented {directory!r}")
    refused = {refusal.directory for refusal in found.refused}
    others = [name for name in found.listed if name != directory]
    off = [name for name in others if name in refused or _step(name) > reply.checkpoint_step]
    # Before the strike, which writes: a volume that these directories fill has no room even for that.
    proven = committed | refused
    _discard(root, [name for name in others if name not in proven and (name in off or root.is_struck(name))])
    root.strike(off, Strike(incarnation=reply.incarnation, went_back_to_step=reply.checkpoint_step))
    if verified is not None and reply.receipt and verified.receipt != reply.receipt:
        root.store_receipt(
            directory,
            Receipt(
                receipt=reply.receipt,
                manifest_digest=verified.manifest_digest,
                store_epoch=verified.manifest.store_epoch,
                step=verified.manifest.step,
            ),
        )
    _point_at_best(root, None if verified is None else verified.manifest.evaluation)
    for path in (root.path, *([root.directory(directory)] if directory else [])):
        with files.directory(path) as dir_fd:
            temporary.sweep(dir_fd)
    return Origin(
        incarnation=reply.incarnation,
        store_epoch=reply.store_epoch,
        step=reply.checkpoint_step,
        directory=directory,
        manifest_digest=verified.manifest_digest if verified is not None else "",
    )


def _discard(root: CheckpointRoot, off_the_line: Sequence[str]) -> None:
    """Remove what saves left that were never committed: nobody can ever believe it, and it takes a save's room.

    The service names garbage only when a newer commit stands, which a volume full of such directories never sees.
    """
    for name in off_the_line:
        if root.has_receipt(name):
            continue
        try:
            root.delete([name])
        except OSError as error:
            # NFS may hold on to a file that somebody has open: it is struck, and goes at a later start.
            sys.stderr.write(f"checkpoint {name} was never committed and cannot be deleted now: {error}\n")


def _point_at_best(root: CheckpointRoot, evaluation: wire.EvaluationState | None) -> None:
    """A best checkpoint of which the ranks' own line knows nothing (any more) must not be named or exported."""
    if evaluation is None or evaluation.best is None:
        root.forget_best()
    else:
        root.store_best(evaluation.best)


def _step(name: str) -> int:
    parsed = parse_directory(name)
    return 0 if parsed is None else parsed.step


def join(client: MetadataClient, identity: Identity) -> Incarnation:
    """The others' half: wait for the incarnation. Raises `Closed`, `Fenced`."""
    request = wire.JoinRequest(
        attempt=identity.attempt, rank=identity.rank, process=identity.process, wait_seconds=JOIN_WAIT_SECONDS
    )
    while True:
        reply = client.call(wire.JOIN, request)
        if reply.incarnation is not None:
            return reply.incarnation


def share_origin(group: Group, origin: Origin | None) -> Origin:
    """Rank 0's `origin` on every rank."""
    raw = group.broadcast(None if origin is None else msgspec.json.encode(origin))
    shared = msgspec.json.decode(raw, type=Origin)
    if origin is not None and shared != origin:
        raise Bug("the origin changed on its way")
    return shared


def checkpoint_root(config: JobConfig) -> CheckpointRoot:
    """The job's checkpoint folder."""
    return CheckpointRoot(Path(config.training.checkpoint.path), config.job_uid)
