"""One rank that captures for itself: `python -m eyas_runtime.colocated`, started by its pod's supervisor.

The flow and the exit codes are those of `eyas_runtime.train.consume`.
"""

import logging
import os

from eyas_contract import env
from eyas_contract.client import MetadataClient
from eyas_contract.config import read_config
from eyas_runtime.environment import required, required_path
from eyas_runtime.process import run_role
from eyas_runtime.train.consume import Rank
from eyas_runtime.train.engine import Context
from eyas_runtime.train.start import read_identity


def main() -> int:
    """Run this rank to its end; returns the exit code. Raises the error tree."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    identity = read_identity(os.environ)
    config = read_config(required(os.environ, env.CONFIG_FILE))
    tokens = required_path(os.environ, env.TOKEN_DIRECTORY)
    client = MetadataClient(
        config.endpoints.metadata_url, str(tokens / env.TOKEN_CONSUMER), store_epoch=config.store_epoch
    )
    from eyas_runtime.colocated.engine import ColocatedEngine

    restart = os.environ.get(env.RESTART, "0")
    engine = ColocatedEngine(
        Context(config=config, identity=identity, tokens=tokens), restart=int(restart) if restart.isdecimal() else 0
    )
    return int(Rank(config, identity, client, lambda: engine).run())


if __name__ == "__main__":
    run_role(main)
