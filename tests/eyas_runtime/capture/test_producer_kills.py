"""Kill a producer at every capture failpoint: what its successor commits has the bytes of an undisturbed run."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from eyas_contract.config import JobConfig
from eyas_contract.exits import Exit
from eyas_contract.wire import Termination
from eyas_runtime import failpoints
from eyas_runtime.features.config import open_blobs
from eyas_runtime.metadata.service.settings import read_settings
from support.metadata_service import ServiceThread, lay_out, running_service, store_of
from support.producers import ProducerProcess, first_window, status_of, wait_ready
from support.tiny_target import tiny_job, write_tiny_prompts
from support.waiting import wait_until

pytestmark = pytest.mark.slow
PROMPTS = 8
CAPTURE_POINTS = sorted(name for name in failpoints.NAMES if name.startswith("capture."))


def job_in(folder: Path, target: Path) -> JobConfig:
    prompts = write_tiny_prompts(folder / "p.jsonl", PROMPTS)
    return tiny_job(folder, target=target, prompts=(prompts,), training={"window_size": PROMPTS})


def payloads(folder: Path, service: ServiceThread) -> dict[int, str]:
    return {sequence: ref.payload_digest for sequence, ref in first_window(folder, service).items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, target: Path) -> dict[int, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    with running_service(folder, job_in(folder, target)) as service:
        producer = ProducerProcess(folder, service.settings.config)
        try:
            wait_ready(folder, service, PROMPTS, producer)
            return payloads(folder, service)
        finally:
            producer.stop()


@pytest.fixture
def service(tmp_path: Path, target: Path) -> Iterator[ServiceThread]:
    with running_service(tmp_path, job_in(tmp_path, target)) as running:
        yield running


@pytest.mark.parametrize("point", CAPTURE_POINTS)
def test_kill_at_every_failpoint_gives_the_same_payloads_and_no_orphan(
    tmp_path: Path, service: ServiceThread, undisturbed: dict[int, str], point: str
) -> None:
    config = service.settings.config
    first = ProducerProcess(tmp_path, config, EYAS_FAILPOINTS=f"{point}=kill@2")
    assert first.wait_code() == -signal.SIGKILL, first.log.read_text()
    second = ProducerProcess(tmp_path, config, restart=1)
    try:
        wait_ready(tmp_path, service, PROMPTS, second)
        assert payloads(tmp_path, service) == undisturbed
        blobs = open_blobs(store_of(tmp_path, config))
        wait_until(lambda: len(list(blobs.list("eyas."))) == PROMPTS, "orphans to be swept")
    finally:
        second.stop()


def test_sigterm_gives_leases_back_and_asks_to_be_restarted(tmp_path: Path, service: ServiceThread) -> None:
    producer = ProducerProcess(tmp_path, service.settings.config, EYAS_FAILPOINTS="capture.after_forward=stop@2")
    try:
        wait_until(lambda: _stopped(producer), "the producer to pause in its second group")
        producer.process.send_signal(signal.SIGTERM)
        producer.process.send_signal(signal.SIGCONT)
        assert producer.wait_code() == Exit.TEMPORARY, producer.log.read_text()
        assert status_of(tmp_path, service).live_leases == 0
    finally:
        producer.process.send_signal(signal.SIGCONT)
        producer.stop()


def _stopped(producer: ProducerProcess) -> bool:
    status = Path(f"/proc/{producer.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


def test_older_ordinal_ends_with_the_fenced_code(tmp_path: Path, service: ServiceThread) -> None:
    config = service.settings.config
    newer = ProducerProcess(tmp_path, config, ordinal=2)
    try:
        wait_ready(tmp_path, service, PROMPTS, newer)
        older = ProducerProcess(tmp_path, config, ordinal=1)
        assert older.wait_code() == Exit.FENCED, older.log.read_text()
    finally:
        newer.stop()


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "holds no prompt"), ('{"text": "a"}\n{"text"\n', "p.jsonl line 2"), ('{"prompt": "a"}\n', "p.jsonl line 1")],
    ids=["empty", "torn line", "wrong fields"],
)
def test_hostile_prompts_end_the_job_with_78_and_one_sentence(
    tmp_path: Path, service: ServiceThread, content: str, says: str
) -> None:
    Path(service.settings.config.data.prompts[0]).write_text(content)
    producer = ProducerProcess(tmp_path, service.settings.config)
    assert producer.wait_code() == Exit.CONFIG, producer.log.read_text()
    told = msgspec.json.decode((producer.pod / "termination").read_bytes(), type=Termination)
    assert says in told.message
    assert told.exit_code == Exit.CONFIG


def test_hazard_16_changed_inputs_end_the_next_producer_with_78(tmp_path: Path, service: ServiceThread) -> None:
    config = service.settings.config
    first = ProducerProcess(tmp_path, config)
    wait_ready(tmp_path, service, PROMPTS, first)
    first.stop()
    path = Path(config.data.prompts[0])
    path.write_text(path.read_text().replace("the", "The"))
    second = ProducerProcess(tmp_path, config, restart=1)
    assert second.wait_code() == Exit.CONFIG, second.log.read_text()
    assert "training data" in (second.pod / "termination").read_text()


def test_service_that_is_away_is_waited_for(tmp_path: Path, target: Path) -> None:
    config = job_in(tmp_path, target)
    with running_service(tmp_path, config) as service:
        config = service.settings.config
        producer = ProducerProcess(tmp_path, config, EYAS_FAILPOINTS="capture.after_forward=stop@2")
        wait_until(lambda: _stopped(producer), "the producer to pause")
    try:
        os.kill(producer.process.pid, signal.SIGCONT)
        again = ServiceThread(read_settings(lay_out(tmp_path, config)))
        try:
            wait_ready(tmp_path, again, PROMPTS, producer)
            assert status_of(tmp_path, again).capture_drift == 0
        finally:
            again.stop()
    finally:
        producer.stop()
