"""Names of everything the operator makes: child names, labels, annotations, roles.

Pure. A child's name carries the job's UID, so that a job created again under an old name never meets the old one's
children, and the fencing number (store epoch, attempt or ordinal), so that a new pod never waits for an old one's name.
Every name is a DNS label of at most 63 characters for any legal job name.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from eyas_contract.ids import JobUid, valid_job_uid

GROUP: Final = "eyas.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "DisaggTrainingJob"
PLURAL: Final = "disaggtrainingjobs"
SHORT_NAME: Final = "dtj"
FIELD_MANAGER: Final = "eyas-operator"
FINALIZER: Final = f"{GROUP}/cleanup"
"""On jobs alone whose features lie in a pool that outlives them."""
CONTAINER: Final = "main"
SHARED: Final = "job"
"""Component of what belongs to no single role."""

LABEL_VERSION: Final = "app.kubernetes.io/version"
"""Version of the operator that wrote an object last; part of no digest, because an upgrade rewrites nothing."""
LABEL_JOB_NAME: Final = f"{GROUP}/job-name"
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
LABEL_ROLE: Final = f"{GROUP}/role"
LABEL_INDEX: Final = f"{GROUP}/replica-index"
LABEL_ATTEMPT: Final = f"{GROUP}/attempt"
LABEL_ORDINAL: Final = f"{GROUP}/ordinal"
LABEL_STORE_EPOCH: Final = f"{GROUP}/store-epoch"
ANNOTATION_DIGEST: Final = f"{GROUP}/manifest-digest"
"""Digest of a child's manifest without this annotation: equal means that nothing has to be applied."""
ANNOTATION_CONFIG: Final = f"{GROUP}/config"
"""Name of the ConfigMap that a pod was made with; it lives as long as such a pod."""
ANNOTATION_TEMPLATE: Final = f"{GROUP}/template-digest"
"""Digest of what the job's spec said of a pod's role when the pod was made: a pod that never ran is made again when
the spec says something else now."""

NAME_LENGTH_MAX: Final = 63
_STEM_NAME_LENGTH_MAX: Final = 24
_STEM_UID_LENGTH: Final = 8


class Role(StrEnum):
    """What a pod does."""

    METADATA = "metadata"
    PRODUCER = "producer"
    CONSUMER = "consumer"
    STORE_MASTER = "store-master"
    STORE_NODE = "store-node"
    SWEEPER = "sweeper"
    """Empties a pool that outlives the job; a pod of the very end, in no unit and in no report of roles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobIdentity:
    """Which job: the name is for people, the UID for every decision."""

    namespace: str
    name: str
    uid: str
    """As Kubernetes gives it (with dashes)."""

    @property
    def job_uid(self) -> JobUid:
        """The UID without dashes, as keys and the runtime carry it. Raises `UserError` if it is none of ours."""
        return valid_job_uid(self.uid.replace("-", "").lower())

    @property
    def stem(self) -> str:
        """What the names of all children begin with: a letter, as Services must; at most 33 characters."""
        name = self.name if self.name[0].isalpha() else f"j-{self.name}"
        head = name.replace(".", "-")[:_STEM_NAME_LENGTH_MAX].rstrip("-")
        return f"{head}-{self.job_uid[:_STEM_UID_LENGTH]}"


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class PodIdentity:
    """Which pod of a job: role, index and the number that fences its predecessors."""

    role: Role
    index: int
    serial: int
    """Attempt of a consumer; ordinal of every other role."""
    store_epoch: int = 0
    """Of a metadata pod; 0 for other roles."""

    @property
    def hostname(self) -> str:
        """Short name, unique in the job over its whole life, for example `producer-1-o4`."""
        match self.role:
            case Role.METADATA:
                return f"metadata-e{self.store_epoch}-o{self.serial}"
            case Role.STORE_MASTER | Role.SWEEPER:
                return f"{self.role}-o{self.serial}"
            case Role.CONSUMER:
                return f"consumer-{self.index}-a{self.serial}"
            case _:
                return f"{self.role}-{self.index}-o{self.serial}"

    def pod_name(self, job: JobIdentity) -> str:
        """Name of the pod in its namespace."""
        return f"{job.stem}-{self.hostname}"


def metadata_claim(job: JobIdentity, store_epoch: int) -> str:
    """Claim that holds the metadata store of one store epoch."""
    return f"{job.stem}-metadata-e{store_epoch}"


def checkpoints_claim(job: JobIdentity) -> str:
    """Claim for the checkpoints, where the job does not name an existing one."""
    return f"{job.stem}-checkpoints"


def store_claim(job: JobIdentity) -> str:
    """Claim of a shared directory store."""
    return f"{job.stem}-store"


def config_map(job: JobIdentity, store_epoch: int, attempt: int) -> str:
    """Immutable configuration of one store epoch and attempt."""
    return f"{job.stem}-config-e{store_epoch}-a{attempt}"


def tokens_secret(job: JobIdentity) -> str:
    """Random tokens and the receipt key: created once, never written again."""
    return f"{job.stem}-tokens"


def reader_secret(job: JobIdentity) -> str:
    """Read tokens derived from the operator's keys: applied, so that a rotated key arrives."""
    return f"{job.stem}-reader"


def service(job: JobIdentity, role: Role) -> str:
    """Stable address of a single-replica role."""
    return f"{job.stem}-{role}"


def peers_service(job: JobIdentity) -> str:
    """Headless service under which every pod has a DNS name."""
    return f"{job.stem}-peers"


def policy(job: JobIdentity, purpose: str) -> str:
    """NetworkPolicy or PodDisruptionBudget of this job."""
    return f"{job.stem}-{purpose}"


def job_labels(job: JobIdentity, component: str = SHARED) -> dict[str, str]:
    """Labels that every child carries, but for `LABEL_VERSION`. Selectors use the `eyas.dev/` keys only."""
    shown = job.name[:NAME_LENGTH_MAX].rstrip("-.")
    return {
        "app.kubernetes.io/name": "eyas",
        "app.kubernetes.io/instance": shown,
        "app.kubernetes.io/component": component,
        "app.kubernetes.io/part-of": "eyas",
        "app.kubernetes.io/managed-by": FIELD_MANAGER,
        LABEL_JOB_NAME: shown,
        LABEL_JOB_UID: job.uid,
    }


def version_label(version: str) -> str:
    """A version as a label's value can hold it."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", version)[:NAME_LENGTH_MAX].strip("._-")


def pod_labels(job: JobIdentity, pod: PodIdentity) -> dict[str, str]:
    """Labels of one pod, from which `observe` reads its identity back; its attempt is the number of its place's try."""
    labels = job_labels(job, pod.role.value) | {
        LABEL_ROLE: pod.role.value,
        LABEL_INDEX: str(pod.index),
        LABEL_ATTEMPT: str(pod.serial),
    }
    if pod.role is not Role.CONSUMER:
        labels[LABEL_ORDINAL] = str(pod.serial)
    if pod.role is Role.METADATA:
        labels[LABEL_STORE_EPOCH] = str(pod.store_epoch)
    return labels


def pod_selector(job: JobIdentity, pod: PodIdentity) -> dict[str, str]:
    """Labels that exactly this pod has, also one that was made before every pod said its attempt."""
    left_out = {LABEL_JOB_NAME} if pod.role is Role.CONSUMER else {LABEL_JOB_NAME, LABEL_ATTEMPT}
    labels = pod_labels(job, pod)
    return {key: value for key, value in labels.items() if key.startswith(f"{GROUP}/") and key not in left_out}


def pod_identity(labels: dict[str, str]) -> PodIdentity | None:
    """Inverse of `pod_labels`; None for labels that we did not write."""
    try:
        role = Role(labels[LABEL_ROLE])
        serial = int(labels[LABEL_ATTEMPT if role is Role.CONSUMER else LABEL_ORDINAL])
        epoch = int(labels[LABEL_STORE_EPOCH]) if role is Role.METADATA else 0
        return PodIdentity(role=role, index=int(labels[LABEL_INDEX]), serial=serial, store_epoch=epoch)
    except (KeyError, ValueError):
        return None
