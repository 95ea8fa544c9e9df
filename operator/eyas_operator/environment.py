"""Port `Environment`: the few facts by which a cluster and a local machine differ, asked by the builders of `desired`.

Pure: an environment is a frozen value that computes names and paths, it touches nothing. With it the same builder
yields Kubernetes DNS names and mount paths, or loopback addresses and folders. The cluster's own is here; the local
one belongs to the local backend.
"""

from dataclasses import dataclass
from typing import Final, Protocol

from eyas_contract.errors import UserError
from eyas_operator import names
from eyas_operator.names import JobIdentity, PodIdentity, Role


class Environment(Protocol):
    """Answers of one backend."""

    @property
    def python(self) -> str:
        """The interpreter that runs our modules: the first word of every command."""
        ...

    def image(self, role: Role) -> str:
        """Container image of `role` where the job's template names none."""
        ...

    def service_host(self, job: JobIdentity, role: Role) -> str:
        """Address of a single-replica role (metadata, store-master) that stays when its pod is replaced."""
        ...

    def pod_host(self, job: JobIdentity, pod: PodIdentity) -> str:
        """Address under which other pods reach `pod`."""
        ...

    def own_address(self, job: JobIdentity, pod: PodIdentity) -> str | None:
        """Literal address that `pod` binds and advertises; None: the pod's IP, by the downward API."""
        ...

    def mount_path(self, job: JobIdentity, pod_name: str, volume: str) -> str:
        """Where `volume` appears to the processes of `pod_name`.

        `volume` is one of `desired.volumes.VOLUMES`. `models`, `data`, `checkpoints` and `store` must be the same path
        in every pod, because the job's configuration names paths below them: `pod_name` is then "".
        """
        ...

    def termination_log(self, job: JobIdentity, pod_name: str) -> str:
        """File to which the supervisor of `pod_name` writes its termination line."""
        ...

    def resolve(self, job: JobIdentity, path: str) -> str:
        """The path as processes see it, of a path that the job's spec names. Raises `UserError` if it cannot be."""
        ...


MOUNT_PATHS: Final = {
    "config": "/etc/eyas/config",
    "tokens": "/etc/eyas/tokens",
    "pod": "/run/eyas",
    "tmp": "/tmp",  # noqa: S108 - an emptyDir of the pod's own
    "shm": "/dev/shm",  # noqa: S108 - likewise, in memory
    "models": "/models",
    "data": "/data",
    "checkpoints": "/checkpoints",
    "metadata": "/var/lib/eyas",
    "store": "/store",
}
TERMINATION_LOG: Final = "/dev/termination-log"
READABLE: Final = ("/models", "/data", "/checkpoints", "/store")
"""Where a job's spec may name paths, inside a cluster."""
ON_NO_VOLUME: Final = (
    f"is on no volume of the job: it must begin with one of {', '.join(READABLE)} and have no .. in it"
)
_TRAIN_ROLES: Final = (Role.PRODUCER, Role.CONSUMER)


def is_on_a_volume(path: str) -> bool:
    """A pod finds `path` on one of the job's volumes."""
    return any(path == root or path.startswith(f"{root}/") for root in READABLE) and ".." not in path.split("/")


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesEnvironment:
    """Names and paths inside a cluster."""

    runtime_image: str
    train_image: str
    python: str = "python"

    def image(self, role: Role) -> str:
        return self.train_image if role in _TRAIN_ROLES else self.runtime_image

    def service_host(self, job: JobIdentity, role: Role) -> str:
        return f"{names.service(job, role)}.{job.namespace}.svc"

    def pod_host(self, job: JobIdentity, pod: PodIdentity) -> str:
        return f"{pod.hostname}.{names.peers_service(job)}.{job.namespace}.svc"

    def own_address(self, job: JobIdentity, pod: PodIdentity) -> str | None:
        return None

    def mount_path(self, job: JobIdentity, pod_name: str, volume: str) -> str:
        return MOUNT_PATHS[volume]

    def termination_log(self, job: JobIdentity, pod_name: str) -> str:
        return TERMINATION_LOG

    def resolve(self, job: JobIdentity, path: str) -> str:
        if not is_on_a_volume(path):
            raise UserError(f"{path} {ON_NO_VOLUME}")
        return path
