"""`python -m eyas_runtime.metadata.service`: the metadata role; everything is told by environment and mounted files."""

import asyncio
import logging

from eyas_runtime.metadata.service.run import Service
from eyas_runtime.metadata.service.settings import read_settings
from eyas_runtime.metadata.service.stores import blobs_opener, store_opener
from eyas_runtime.process import mark_ready, run_role


def main() -> int:
    """Serve until told to stop; returns the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = read_settings()
    service = Service(
        settings, open_store=store_opener(settings), open_blobs=blobs_opener(settings), on_ready=mark_ready
    )
    return asyncio.run(service.run())


if __name__ == "__main__":
    run_role(main)
