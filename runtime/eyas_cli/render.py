"""`eyas render`: what the operator's first pass would create for a job file, as YAML."""

from pathlib import Path

import yaml

from eyas_contract.errors import UserError
from eyas_operator.api.load import load_yaml
from eyas_operator.environment import KubernetesEnvironment
from eyas_operator.render import render
from eyas_operator.settings import Settings


def render_job(path: Path, namespace: str) -> str:
    """YAML documents in the order of creation. Raises `UserError`, one line per error with its field path."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the job file {path}: {getattr(error, 'strerror', None) or error}") from error
    body = load_yaml(text)
    if isinstance(metadata := body.get("metadata"), dict):
        metadata.setdefault("namespace", namespace)
    settings = Settings()
    environment = KubernetesEnvironment(runtime_image=settings.runtime_image, train_image=settings.train_image)
    return yaml.safe_dump_all(render(body, environment, settings), sort_keys=False, width=120)
