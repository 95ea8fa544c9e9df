"""What a pod template may not say: names and paths that are Eyas's own, and what no pod could be made of.

Without these the job would be taken and its pods refused one by one, or a process would start as nobody meant it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from eyas_contract import env
from eyas_operator.api.checks import Check
from eyas_operator.environment import MOUNT_PATHS, TERMINATION_LOG
from eyas_operator.names import GROUP

DRILL_VARIABLES: Final = (env.TRAINER, env.CAPTURE)
"""Names of ours that a job may set all the same: drills run the fake trainer, which needs no torch."""
_VARIABLES: Final = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "HOME", "TMPDIR",
    "XDG_CACHE_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUBLAS_WORKSPACE_CONFIG",
)  # fmt: skip
_PREFIXES: Final = ("EYAS_", "TORCHELASTIC_", "PET_", "LD_", "PYTHON")
_VARIABLE: Final = f"^(({'|'.join(_PREFIXES)}).*|{'|'.join(_VARIABLES)})$"
"""What our pods and processes set, what torch takes for a rendezvous, what changes how our modules are loaded."""
_KEYS: Final = (f"{GROUP}/", "app.kubernetes.io/")
_PATHS: Final = (*MOUNT_PATHS.values(), TERMINATION_LOG)
_DETOUR: Final = "/[.]{0,2}/|/[.]{1,2}$"
"""Found in a path that has a shorter name for the same place, apart from one slash at the end."""
_LABEL: Final = "^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_AMOUNT: Final = "^([0-9]+[.]?[0-9]*|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][0-9]{1,2})?$"


def _folder(path: str) -> str:
    """`path` with one slash at its end."""
    return f"{path.rstrip('/')}/"


def _meet(one: str, other: str) -> bool:
    """The same folder, or one in the other."""
    return _folder(one).startswith(_folder(other)) or _folder(other).startswith(_folder(one))


def _cel_folder(path: str) -> str:
    return f"({path} + '/').replace('//', '/')"


def _cel_meet(one: str, other: str) -> str:
    one, other = _cel_folder(one), _cel_folder(other)
    return f"{one}.startsWith({other}) || {other}.startsWith({one})"


def _are_apart(mounts: tuple[Any, ...]) -> bool:
    paths = [mount.mount_path for mount in mounts]
    return not any(_meet(path, other) for place, path in enumerate(paths) for other in paths[:place])


def _have_one_source(volumes: tuple[Any, ...]) -> bool:
    return all(
        sum(source is not None for source in (volume.persistent_volume_claim, volume.config_map, volume.empty_dir)) == 1
        for volume in volumes
    )


def _are_declared(pod: Any) -> bool:  # noqa: ANN401 - a PodSpec, whose type names this check
    declared = {volume.name for volume in pod.volumes}
    return all(mount.name in declared for container in pod.containers for mount in container.volume_mounts)


def _are_free(entries: Mapping[str, str]) -> bool:
    return not any(key.startswith(_KEYS) for key in entries)


FREE_VARIABLE: Final = Check(
    message="{self} is reserved for Eyas: take it out",
    holds=lambda name: name in DRILL_VARIABLES or not re.search(_VARIABLE, name),
    cel=f"self in {list(DRILL_VARIABLES)} || !self.matches('{_VARIABLE}')",
)
FREE_KEYS: Final = Check(
    message=f"keys that begin with {' or '.join(_KEYS)} are reserved for Eyas: take them out",
    holds=_are_free,
    cel=f"self.all(key, {list(_KEYS)}.all(prefix, !key.startsWith(prefix)))",
)
LABEL_VALUE: Final = Check(
    message="must be a label's value: at most 63 letters, digits, - _ and ., with a letter or digit at both ends",
    holds=lambda text: re.fullmatch(_LABEL, text) is not None,
    cel=f"self.matches('{_LABEL}')",
)
AMOUNT: Final = Check(
    message="must be a quantity such as 2, 500m or 16Gi",
    holds=lambda amount: isinstance(amount, str | int) and re.fullmatch(_AMOUNT, str(amount)) is not None,
    cel=f"string(self).matches('{_AMOUNT}')",
)
SHORTEST_PATH: Final = Check(
    message="must be the path without //, /./ and /../ in it",
    holds=lambda path: not re.search(_DETOUR, path),
    cel=f"!self.matches('{_DETOUR}')",
)
FREE_PATH: Final = Check(
    message=f"must be apart from what Eyas mounts: {', '.join(_PATHS)}",
    holds=lambda path: not any(_meet(path, taken) for taken in _PATHS),
    cel=f"!{list(_PATHS)}.exists(taken, {_cel_meet('self', 'taken')})",
)
INNER_PATH: Final = Check(
    message="must be a path inside the volume: relative, and without .. in it",
    holds=lambda path: not path.startswith("/") and ".." not in path.split("/"),
    cel="!self.startsWith('/') && !('/' + self + '/').contains('/../')",
)
APART: Final = Check(
    message="each mountPath must be apart from the others: not the same, and none below another one",
    holds=_are_apart,
    cel=f"self.all(a, self.exists_one(b, {_cel_meet('a.mountPath', 'b.mountPath')}))",
)
ONE_SOURCE: Final = Check(
    message="each volume needs exactly one of persistentVolumeClaim, configMap and emptyDir",
    holds=_have_one_source,
    cel="self.all(volume, [has(volume.persistentVolumeClaim), has(volume.configMap), has(volume.emptyDir)]"
    ".exists_one(given, given))",
)
DECLARED: Final = Check(
    message="each of its volumeMounts must name one of its volumes",
    holds=_are_declared,
    cel="!has(self.containers) || self.containers.all(container, !has(container.volumeMounts) || "
    "container.volumeMounts.all(mount, has(self.volumes) && self.volumes.exists(volume, volume.name == mount.name)))",
)
