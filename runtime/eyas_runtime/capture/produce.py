"""Entrypoint of the producer role: `python -m eyas_runtime.capture.produce`, everything from the environment.

SIGTERM gives back what is held and ends with 75 within seconds, whatever the process is doing at that moment (a forward
pass of minutes, loading a model); nothing else needs to be cleaned up, because a producer keeps nothing.
"""

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Final

from eyas_contract import env
from eyas_contract.client import MetadataClient
from eyas_contract.config import JobConfig, read_config
from eyas_contract.errors import EyasError, UserError
from eyas_contract.exits import Exit
from eyas_contract.wire import Holder
from eyas_runtime.capture.holdings import Holdings
from eyas_runtime.capture.parts import Parts
from eyas_runtime.capture.producer import Producer, agree_on_inputs, register
from eyas_runtime.capture.watch import InputsWatch
from eyas_runtime.environment import required, required_path, whole_number
from eyas_runtime.features.config import StoreConfig, open_blobs
from eyas_runtime.process import mark_ready, run_role

LOG: Final = logging.getLogger("eyas.capture")
FAREWELL_SECONDS: Final = 3.0
"""How long a process that was told to end may take to give its leases back; they expire anyway."""


def main() -> int:
    """Run one producer until it is told to stop. Raises the error tree."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    config = read_config(required(os.environ, env.CONFIG_FILE))
    tokens = required_path(os.environ, env.TOKEN_DIRECTORY)
    index, ordinal, restart = (whole_number(os.environ, it, 0) for it in (env.REPLICA_INDEX, env.ORDINAL, env.RESTART))
    holder = Holder(index=index, ordinal=ordinal, restart=restart)
    client = MetadataClient(
        config.endpoints.metadata_url, str(tokens / env.TOKEN_PRODUCER), store_epoch=config.store_epoch
    )
    holdings = Holdings(client, holder)
    threading.Thread(target=_end_when_told, args=(stop, holdings), name="farewell", daemon=True).start()
    producer = _build(config, client, holdings, holder, tokens / env.TOKEN_STORE)
    mark_ready()
    producer.run(stop)
    return Exit.TEMPORARY


def make_parts(kind: str, config: JobConfig) -> Parts:
    """`real`, `fake`, or `fake:SECONDS` (of pretended work for each sample). Raises `UserError` for anything else."""
    name, _, pace = kind.partition(":")
    if kind == "real":
        from eyas_runtime.capture.build import real_parts

        return real_parts(config)
    if name == "fake":
        from eyas_runtime.capture.fake import fake_parts

        try:
            return fake_parts(config, seconds=float(pace or 0))
        except ValueError as error:
            raise UserError(f"{env.CAPTURE} is {kind[:40]!r}; after fake: comes a number of seconds") from error
    raise UserError(f"{env.CAPTURE} is {kind[:40]!r}; it must be real, fake or fake:SECONDS")


def _build(
    config: JobConfig, client: MetadataClient, holdings: Holdings, holder: Holder, store_token: Path
) -> Producer:
    parts = make_parts(os.environ.get(env.CAPTURE, "real"), config)
    fingerprint = parts.engine.fingerprint()
    register(client, holder, config, fingerprint)
    prepared = agree_on_inputs(client, holder, config, parts.prepare)
    store = StoreConfig.of_job(
        config.store,
        local_hostname=os.environ.get(env.HOST_ADDRESS, "127.0.0.1"),
        token_file=store_token if store_token.is_file() else None,
    )
    return Producer(
        client,
        holdings,
        parts.engine,
        parts.sink(open_blobs(store)),
        fingerprint=fingerprint.digest,
        watch=InputsWatch(config, prepared.inputs),
    )


def _end_when_told(stop: threading.Event, holdings: Holdings) -> None:
    """Give back what is held, which interrupts a forward pass; the main thread then ends by itself, or is ended."""
    stop.wait()
    threading.Timer(FAREWELL_SECONDS, os._exit, (int(Exit.TEMPORARY),)).start()
    try:
        holdings.return_all()
    except EyasError as error:
        LOG.info("could not give leases back: %s", error)


if __name__ == "__main__":
    run_role(main)
