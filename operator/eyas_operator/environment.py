"""Port `Environment`: the few facts by which a cluster and a local machine differ, asked by the builders of `desired`.

Pure: an environment is a frozen value that computes names and paths, it touches nothing. With it the same builder
yields Kubernetes DNS names and mount paths, or loopback addresses and folders.
"""

from typing import Protocol

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

        `volume` is one of `desired.volumes.VOLUMES`. `config`, `models`, `data`, `checkpoints` and `store` must be
        the same path in every pod, because the job's configuration names paths below them: `pod_name` is then "".
        """
        ...

    def termination_log(self, job: JobIdentity, pod_name: str) -> str:
        """File to which the supervisor of `pod_name` writes its termination line."""
        ...

    def resolve(self, job: JobIdentity, path: str) -> str:
        """The path as processes see it, of a path that the job's spec names. Raises `UserError` if it cannot be."""
        ...
