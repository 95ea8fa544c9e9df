"""The builders' environment on a local machine: loopback addresses and folders of the run.

Pure: it computes names and touches nothing. Paths of the job's spec: what lies under a mapped volume is found there;
any other path is the machine's own, relative ones from the folder of the job file.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from eyas_contract.errors import UserError
from eyas_operator.backends.local.addresses import address_of
from eyas_operator.backends.local.folder import Workdir
from eyas_operator.desired import volumes
from eyas_operator.environment import MOUNT_PATHS
from eyas_operator.names import JobIdentity, PodIdentity, Role

TERMINATION_FILE: Final = "termination"
METADATA_LINK: Final = "metadata"
_PER_POD: Final = {volumes.TOKENS: "tokens", volumes.TMP: "tmp", volumes.METADATA: METADATA_LINK}
_READABLE: Final = (volumes.MODELS, volumes.DATA, volumes.CHECKPOINTS, volumes.STORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalEnvironment:
    """Answers for one run."""

    workdir: Workdir
    python: str
    job_folder: Path
    """Folder of the job file."""
    mounted: Mapping[str, Path]
    """Folder of each shared volume (`models`, `data`, `checkpoints`, `store`) that the job has."""

    def image(self, role: Role) -> str:
        return "local"

    def service_host(self, job: JobIdentity, role: Role) -> str:
        return address_of(job.job_uid, role, 0)

    def pod_host(self, job: JobIdentity, pod: PodIdentity) -> str:
        return address_of(job.job_uid, pod.role, pod.index)

    def own_address(self, job: JobIdentity, pod: PodIdentity) -> str | None:
        return address_of(job.job_uid, pod.role, pod.index)

    def mount_path(self, job: JobIdentity, pod_name: str, volume: str) -> str:
        if volume == volumes.SHM:
            return MOUNT_PATHS[volume]
        if volume == volumes.CONFIG:
            return str(self.workdir.root / "config")
        if volume == volumes.POD:
            return str(self.workdir.pods / pod_name)
        if volume in _PER_POD:
            return str(self.workdir.pods / pod_name / _PER_POD[volume])
        folder = self.mounted.get(volume)
        if folder is None:
            raise UserError(f"the job has no volume {volume}")
        return str(folder)

    def termination_log(self, job: JobIdentity, pod_name: str) -> str:
        return str(self.workdir.pods / pod_name / TERMINATION_FILE)

    def resolve(self, job: JobIdentity, path: str) -> str:
        for volume in _READABLE:
            root = MOUNT_PATHS[volume]
            if volume in self.mounted and (path == root or path.startswith(f"{root}/")):
                inside = os.path.normpath(path[len(root) :].lstrip("/") or ".")
                if inside.startswith(".."):
                    raise UserError(f"{path} leads out of the volume {volume}")
                return str(self.mounted[volume] / inside)
        return os.path.normpath(self.job_folder / path)
