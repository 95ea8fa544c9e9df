"""Failure classes: what ended, why, and what that means. From codes, messages and conditions, never from logs.

| signal | class | counts | then |
| --- | --- | --- | --- |
| exit 78, or message class `UserError` | Config | - | job fails at once |
| exit 75 | Temporary | no | restarted |
| exit 65 of the metadata pod | MetadataDamaged | no | next store epoch, the old claim is kept |
| exit 86 | Fenced | no | restarted with a higher number |
| exit 0 | Done | no | restarted if work is left |
| `DisruptionTarget`, eviction, 143 | Disrupted | no | restarted |
| node lost | NodeLost | no | restarted elsewhere, node strike |
| pod deleted or vanished | PodDeleted | no | restarted |
| could not start for `recoveryTimeoutSeconds` | RecoveryTimeout | no | places given back, then made again |
| never ran, and its template was changed | TemplateChanged | no | made again as the spec says now |
| `OOMKilled`, or message class `OutOfMemory` | OutOfMemory | yes; twice without progress fails the job | restarted |
| evicted for more than its own storage limit | OutOfStorage | yes | restarted |
| message class `Hang` | Hang | yes | restarted |
| ECC, Xid, NCCL, RDMA in the message | Hardware | yes | restarted elsewhere, node strike |
| class `KilledWithGang`; of a rank: `Closed`, NCCL's lost peer | KilledWithGang | yes | culprit waited for; restarted |
| anything else | Crash | yes | restarted |

Image pulls, unschedulable pods and missing references are *waiting*, not failures.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec

from eyas_contract.decoding import UNDECODABLE
from eyas_contract.errors import Closed
from eyas_contract.exits import Exit
from eyas_contract.wire import KILLED_WITH_GANG, OUT_OF_MEMORY, Termination
from eyas_operator import names
from eyas_operator.api.incidents import INCIDENT_MESSAGE_CHARACTERS_MAX
from eyas_operator.names import Role
from eyas_operator.world import Pod, PodCondition, Terminated


class FailureClass(StrEnum):
    """Why a pod or gang has to be made again."""

    CONFIG = "Config"
    TEMPORARY = "Temporary"
    FENCED = "Fenced"
    DONE = "Done"
    DISRUPTED = "Disrupted"
    NODE_LOST = "NodeLost"
    POD_DELETED = "PodDeleted"
    TEMPLATE_CHANGED = "TemplateChanged"
    """It never ran, and the spec says something else of it now."""
    NOT_CREATED = "NotCreated"
    """Its creation was decided but it was never seen: its number is skipped."""
    OUT_OF_MEMORY = "OutOfMemory"
    OUT_OF_STORAGE = "OutOfStorage"
    """It wrote more than its own limits allow; that it was evicted for it is no accident."""
    HANG = "Hang"
    HARDWARE = "Hardware"
    EARLY_EXIT = "EarlyExit"
    """All consumers ended well although the metadata service has work left."""
    KILLED_WITH_GANG = "KilledWithGang"
    """Its ranks ended because others of their gang had failed: whose fault it was, another end says."""
    RECOVERY_TIMEOUT = "RecoveryTimeout"
    """One of its pods found no place for too long: its places were given back for a while."""
    CRASH = "Crash"
    METADATA_LOST = "MetadataLost"
    """The metadata claim is gone: next store epoch."""
    METADATA_DAMAGED = "MetadataDamaged"
    """The metadata database is damaged: next store epoch, and the claim is kept."""


COUNTED: Final = frozenset(
    {
        FailureClass.OUT_OF_MEMORY,
        FailureClass.OUT_OF_STORAGE,
        FailureClass.HANG,
        FailureClass.HARDWARE,
        FailureClass.EARLY_EXIT,
        FailureClass.KILLED_WITH_GANG,
        FailureClass.CRASH,
    }
)
"""Classes that count against the restart budget."""
STRIKING: Final = frozenset({FailureClass.NODE_LOST, FailureClass.HARDWARE})
"""Classes that speak against the node."""
GRACEFUL: Final = frozenset({FailureClass.TEMPORARY, FailureClass.DISRUPTED, FailureClass.POD_DELETED})
"""Classes after which the other members of a gang may still be writing a checkpoint."""

_DEVICE: Final = re.compile(r"\bXid\b|\bECC\b|uncorrectable|NVLink|fallen off the bus", re.IGNORECASE)
_FABRIC: Final = re.compile(
    r"\bNCCL\b[^|\n]*(error|WARN|timeout)|nccl(UnhandledCuda|System|Internal)Error|ibv_|mlx5|RDMA[^|\n]*(error|fail)",
    re.IGNORECASE,
)
"""Lines of stderr stand in a message with `|` between them: none of these reaches over two."""
_PEER_LOST: Final = re.compile(
    r"ncclRemoteError|remote process exit|\bNCCL\b[^|\n]*connection (closed|reset) by (remote )?peer", re.IGNORECASE
)
"""What NCCL says on the healthy side when the process at the other end is gone."""
_BEGINNING_CHARACTERS: Final = 80
_NODE_REASONS: Final = frozenset({"NodeLost", "NodeNotReady", "DeletionByTaintManager", "DeletionByPodGC"})
_DISRUPTED_REASONS: Final = frozenset(
    {"Evicted", "Preempted", "Preempting", "Shutdown", "NodeShutdown", "Terminated", "NodeAffinity"}
    | {"UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods"}
)
_OWN_LIMIT: Final = re.compile(r"exceeds the limit|exceeds the total limit|exceeded its local ephemeral storage limit")
"""What the kubelet says of a pod that it evicts for the pod's own storage, and not for its node's lack of something."""
_CONFIG_KLASSES: Final = frozenset({"UserError", "Unauthenticated", "Config"})
_SIGTERM: Final = 143
WAITING_FOR_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ImageInspectError", "ErrImageNeverPull"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One end of a pod, understood."""

    klass: FailureClass
    message: str
    node: str = ""
    time: str = ""
    """When the container ended; empty where nobody said it."""

    @property
    def counted(self) -> bool:
        """Counts against the restart budget."""
        return self.klass in COUNTED


def terminated_of(pod: Pod) -> Terminated | None:
    """How the pod's container ended, if it did."""
    for status in pod.status.container_statuses:
        if status.state.terminated is not None:
            return status.state.terminated
    return None


def termination_of(message: str) -> Termination | None:
    """The supervisor's line in a termination message, if it is one of ours."""
    for line in reversed(message.strip().splitlines()):
        try:
            return msgspec.json.decode(line, type=Termination)
        except UNDECODABLE:
            continue
    return None


def classify(pod: Pod) -> Failure:
    """The failure of a pod that ended, is lost, or was deleted by somebody else."""
    terminated = terminated_of(pod)
    line = termination_of(terminated.message) if terminated is not None else None
    klass = _klass(pod, terminated, line)
    time = (terminated.finished_at or "") if terminated is not None else ""
    return Failure(klass=klass, message=_message(pod, terminated, line), node=pod.spec.node_name, time=time)


def _klass(pod: Pod, terminated: Terminated | None, line: Termination | None) -> FailureClass:
    code = terminated.exit_code if terminated is not None else None
    klass = line.klass if line is not None else ""
    if code == Exit.CONFIG or klass in _CONFIG_KLASSES:
        return FailureClass.CONFIG
    if code == Exit.DAMAGED and pod.metadata.labels.get(names.LABEL_ROLE) == Role.METADATA:
        return FailureClass.METADATA_DAMAGED
    if code == Exit.FENCED:
        return FailureClass.FENCED
    if code == Exit.TEMPORARY:
        return FailureClass.TEMPORARY
    if (terminated is not None and terminated.reason == "OOMKilled") or klass == OUT_OF_MEMORY:
        return FailureClass.OUT_OF_MEMORY
    infrastructure = _infrastructure(pod)
    if infrastructure is not None:
        return infrastructure
    if code == Exit.DONE:
        return FailureClass.DONE
    if code == _SIGTERM:
        return FailureClass.DISRUPTED
    if klass == "Hang":
        return FailureClass.HANG
    text = _text(pod, terminated, line)
    peer_lost = _PEER_LOST.search(text) is not None
    if _DEVICE.search(text) or (_FABRIC.search(text) and not peer_lost):
        return FailureClass.HARDWARE
    peer_gone = peer_lost or klass == Closed.__name__
    if klass == KILLED_WITH_GANG or (peer_gone and pod.metadata.labels.get(names.LABEL_ROLE) == Role.CONSUMER):
        return FailureClass.KILLED_WITH_GANG
    if code is None and pod.metadata.deletion_timestamp:
        return FailureClass.POD_DELETED
    return FailureClass.CRASH


def _infrastructure(pod: Pod) -> FailureClass | None:
    if node_lost(pod):
        return FailureClass.NODE_LOST
    if _beyond_its_storage(pod):
        return FailureClass.OUT_OF_STORAGE
    disrupted = condition(pod, "DisruptionTarget")
    if (disrupted is not None and disrupted.status == "True") or pod.status.reason in _DISRUPTED_REASONS:
        return FailureClass.DISRUPTED
    return None


def _beyond_its_storage(pod: Pod) -> bool:
    return pod.status.reason == "Evicted" and _OWN_LIMIT.search(pod.status.message) is not None


def node_lost(pod: Pod) -> bool:
    """The pod's node is gone or unreachable, by the pod's own conditions."""
    disrupted = condition(pod, "DisruptionTarget")
    reasons = {pod.status.reason, disrupted.reason if disrupted is not None and disrupted.status == "True" else ""}
    return pod.status.phase == "Unknown" or bool(reasons & _NODE_REASONS)


def condition(pod: Pod, kind: str) -> PodCondition | None:
    """The pod's condition of that type."""
    return next((entry for entry in pod.status.conditions if entry.type == kind), None)


def _message(pod: Pod, terminated: Terminated | None, line: Termination | None) -> str:
    """The text, bounded; of one that is too long, its beginning and what speaks of hardware."""
    text = _text(pod, terminated, line)
    found = _DEVICE.search(text) or _FABRIC.search(text)
    if found is not None and found.end() > INCIDENT_MESSAGE_CHARACTERS_MAX:
        begin = max(_BEGINNING_CHARACTERS, found.start() - _BEGINNING_CHARACTERS)
        text = f"{text[:_BEGINNING_CHARACTERS]} ... {text[begin:]}"
    return text[:INCIDENT_MESSAGE_CHARACTERS_MAX]


def _text(pod: Pod, terminated: Terminated | None, line: Termination | None) -> str:
    if _beyond_its_storage(pod):
        return pod.status.message.strip()
    if line is not None and line.message:
        return line.message
    if terminated is None:
        return pod.status.message or pod.status.reason or "the pod was deleted"
    tail = terminated.message.strip()
    code = f"signal {terminated.signal}" if terminated.signal else f"exit code {terminated.exit_code}"
    return f"{code}{f' ({terminated.reason})' if terminated.reason else ''}{f': {tail}' if tail else ''}"
