"""Names of the volumes that a pod may mount; a backend maps each to a path (`Environment.mount_path`)."""

from typing import Final

CONFIG: Final = "config"
"""ConfigMap with `job.json`, read-only; per pod, because a pod keeps the one it was made with."""
TOKENS: Final = "tokens"
"""The token files this role may hold, read-only; per pod."""
POD: Final = "pod"
"""Writable scratch of the pod (readiness file, children file, termination line); per pod."""
TMP: Final = "tmp"
"""HOME, TMPDIR and caches; per pod."""
SHM: Final = "shm"
"""Memory-backed `/dev/shm`; per pod."""
MODELS: Final = "models"
"""Claim with models, read-only, same path in every pod."""
DATA: Final = "data"
"""Claim with prompts or feature files, read-only, same path in every pod."""
CHECKPOINTS: Final = "checkpoints"
"""Claim with checkpoints, same path in every pod."""
METADATA: Final = "metadata"
"""Claim of the metadata store; metadata pod only."""
STORE: Final = "store"
"""Claim of a shared directory store, same path in every pod."""

VOLUMES: Final = (CONFIG, TOKENS, POD, TMP, SHM, MODELS, DATA, CHECKPOINTS, METADATA, STORE)
JOB_FILE: Final = "job.json"
"""Key of the ConfigMap, hence the file in the `config` volume."""
