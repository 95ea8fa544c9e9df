"""The job of a run: read from its file, checked against this machine, and given an identity that stays.

The first run in a folder mints the job's UID; every later one finds it. A changed job file is a new generation of the
same job, as after `kubectl apply`; what may change is for the operator to say.
"""

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eyas_contract.errors import UserError
from eyas_operator import names
from eyas_operator.api.job import DisaggTrainingJob
from eyas_operator.api.load import load_yaml
from eyas_operator.api.parse import parse
from eyas_operator.api.rules import immutable_changes
from eyas_operator.api.status import JobStatus, first_reason, load_status
from eyas_operator.api.store import StoreBackend
from eyas_operator.backends.local.claims import Claims
from eyas_operator.backends.local.cluster import LocalJob
from eyas_operator.backends.local.environment import LocalEnvironment
from eyas_operator.backends.local.folder import Workdir, read_json, replace_file, replace_json
from eyas_operator.desired import volumes
from eyas_operator.errors import SpecError
from eyas_operator.names import JobIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A job file that was read and is valid."""

    text: str
    body: Mapping[str, Any]
    job: DisaggTrainingJob
    folder: Path
    """Folder of the file, from which its relative paths start."""


def load(job_file: Path) -> Loaded:
    """Read and check a job file. Raises `SpecError` (one line per error) or `UserError`."""
    try:
        text = job_file.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read the job file {job_file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"the job file {job_file} is not UTF-8 text") from error
    body = load_yaml(text)
    return Loaded(text=text, body=body, job=parse(body), folder=job_file.resolve().parent)


def admitted(loaded: Loaded, workdir: Workdir, *, now: float) -> LocalJob:
    """The job under its identity in this folder. Raises `UserError` if the folder holds another job's run."""
    meta = loaded.job.metadata
    stored = read_json(workdir.identity)
    if workdir.identity.exists() and not _is_identity(stored):
        raise UserError(f"{workdir.identity} is damaged: it says whose run this folder holds; use another folder")
    spec = hashlib.sha256(json.dumps(loaded.body["spec"], sort_keys=True).encode()).hexdigest()
    if stored is None:
        stored = {
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": str(uuid.uuid4()),
            "generation": 1,
            "created": now,
            "spec": spec,
        }
        replace_json(workdir.identity, stored)
    elif (stored["namespace"], stored["name"]) != (meta.namespace, meta.name):
        raise UserError(f"{workdir.root} holds the run of job {stored['name']}; use another folder for {meta.name}")
    elif stored["spec"] != spec:
        _refuse_changes(loaded, workdir)
        stored |= {"generation": stored["generation"] + 1, "spec": spec}
        replace_json(workdir.identity, stored)
    replace_file(workdir.job, loaded.text.encode())
    identity = JobIdentity(namespace=stored["namespace"], name=stored["name"], uid=stored["uid"])
    return LocalJob(identity=identity, generation=stored["generation"], body=dict(loaded.body))


def _refuse_changes(loaded: Loaded, workdir: Workdir) -> None:
    """What the API server does on a cluster: the parts that fix the result stay as they were, also after the end."""
    try:
        before = parse(load_yaml(workdir.job.read_text(encoding="utf-8"))).spec
    except (OSError, ValueError, UserError):
        # Without a copy that can be read the operator's own record decides, part by part unnamed.
        return
    changed = immutable_changes(before, loaded.job.spec)
    if changed:
        fields = ", ".join(f"spec.{part}" for part in changed)
        raise UserError(
            f"{fields} cannot change: {workdir.root} holds a run with other values; use another folder, or the job "
            f"file as it is in {workdir.job}"
        )


def _is_identity(stored: object) -> bool:
    return isinstance(stored, dict) and stored.keys() >= {"namespace", "name", "uid", "generation", "created", "spec"}


def stored_status(workdir: Workdir) -> JobStatus:
    """The status as the last pass left it; the empty one before the first. Raises `UserError` for a damaged file."""
    stored = read_json(workdir.status)
    if stored is None and workdir.status.exists():
        reason = "it is not JSON"
    else:
        try:
            return load_status(stored)
        except ValidationError as error:
            reason = first_reason(error)
    raise UserError(
        f"{workdir.status} is damaged ({reason}): move it away, and the job goes on from its newest checkpoint"
    )


def created_at(workdir: Workdir) -> float:
    """Unix seconds of the first run in this folder."""
    stored = read_json(workdir.identity)
    return float(stored["created"]) if isinstance(stored, dict) else 0.0


def mapped_claims(job: DisaggTrainingJob, given: Mapping[str, Path]) -> dict[str, Path]:
    """Folder of every claim that the job names and somebody else made. Raises `SpecError` for one without a folder.

    A folder is given under the volume's name (`models`) or under its claim's.
    """
    store = job.spec.store.shared_directory
    chosen = job.spec.volumes
    claims = (
        (volumes.MODELS, "spec.volumes.models", chosen.models.claim_name if chosen.models else None),
        (volumes.DATA, "spec.volumes.data", chosen.data.claim_name if chosen.data else None),
        (volumes.CHECKPOINTS, "spec.volumes.checkpoints", chosen.checkpoints.claim_name),
        (volumes.STORE, "spec.store.sharedDirectory", store.claim_name if store else None),
    )
    found: dict[str, Path] = {}
    missing = []
    for volume, field, claim in claims:
        folder = given.get(volume) or given.get(claim or "")
        if claim is not None and folder is not None:
            found[claim] = folder
        elif claim is not None:
            missing.append(f"{field}: no folder is given for it; add --volume {volume}=FOLDER")
    if missing:
        raise SpecError(missing)
    return found


def environment(
    loaded: Loaded, local: LocalJob, workdir: Workdir, claims: Claims, given: Mapping[str, Path], python: str
) -> LocalEnvironment:
    """The builders' environment of this run."""
    mapped = mapped_claims(loaded.job, given)
    spec = loaded.job.spec
    mounted = {volume: folder for volume, folder in given.items() if volume in volumes.VOLUMES}
    if spec.volumes.models is not None:
        mounted[volumes.MODELS] = mapped[spec.volumes.models.claim_name]
    if spec.volumes.data is not None:
        mounted[volumes.DATA] = mapped[spec.volumes.data.claim_name]
    checkpoints = spec.volumes.checkpoints.claim_name
    own = claims.folder(names.checkpoints_claim(local.identity))
    mounted[volumes.CHECKPOINTS] = own if checkpoints is None else mapped[checkpoints]
    if spec.store.backend is StoreBackend.SHARED_DIRECTORY:
        directory = spec.store.shared_directory
        store = directory.claim_name if directory is not None else None
        own = claims.folder(names.store_claim(local.identity))
        mounted[volumes.STORE] = own if store is None else mapped[store]
    return LocalEnvironment(workdir=workdir, python=python, job_folder=loaded.folder, mounted=mounted)


def check_paths(loaded: Loaded, identity: JobIdentity, where: LocalEnvironment) -> None:
    """Everything that the job names is on this machine. Raises `SpecError` with one line per path that is not."""
    spec = loaded.job.spec
    named = [("spec.target.model", spec.target.model)]
    named += [(f"spec.data.prompts[{index}]", path) for index, path in enumerate(spec.data.prompts)]
    named += [(f"spec.data.features[{index}]", path) for index, path in enumerate(spec.data.features)]
    if spec.evaluation is not None:
        named += [(f"spec.evaluation.prompts[{index}]", path) for index, path in enumerate(spec.evaluation.prompts)]
    if spec.draft.initial_from is not None:
        named.append(("spec.draft.initialFrom", spec.draft.initial_from))
    lines = []
    for field, path in named:
        try:
            resolved = where.resolve(identity, path)
        except UserError as error:
            lines.append(f"{field}: {error}")
            continue
        if not Path(resolved).exists():
            lines.append(f"{field}: there is no {resolved}")
    if lines:
        raise SpecError(lines)
