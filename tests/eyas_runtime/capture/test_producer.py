"""The producer's loop against the real metadata service."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import torch

from eyas_contract import wire
from eyas_contract.config import JobConfig
from eyas_contract.errors import Fenced, StoreFull, UserError
from eyas_contract.ids import LeaseToken
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.capture.build import make_engine
from eyas_runtime.capture.engine import LAST, Advance, CaptureEngine, Features, Outcome
from eyas_runtime.capture.holdings import Holdings
from eyas_runtime.capture.prepare import prepare
from eyas_runtime.capture.producer import Producer, agree_on_inputs, register
from eyas_runtime.capture.sink import StoreSink
from eyas_runtime.capture.storing import FeatureSink
from eyas_runtime.capture.watch import InputsWatch
from eyas_runtime.features.config import open_blobs
from eyas_runtime.features.store import FeatureStore
from support.metadata_service import HOLDER, ServiceThread, client_of, running_service, store_of
from support.producers import first_window, status_of, wait_ready
from support.tiny_target import tiny_job, write_tiny_prompts
from support.waiting import wait_until

PROMPTS = 10


@pytest.fixture
def job(tmp_path: Path, target: Path) -> JobConfig:
    return tiny_job(tmp_path, target=target, prompts=(write_tiny_prompts(tmp_path / "p.jsonl", PROMPTS),))


@pytest.fixture
def service(tmp_path: Path, job: JobConfig) -> Iterator[ServiceThread]:
    with running_service(tmp_path, job) as running:
        yield running


class Here:
    """A producer in a thread of this process."""

    def __init__(
        self, folder: Path, service: ServiceThread, engine: CaptureEngine, holder: wire.Holder = HOLDER
    ) -> None:
        self.config = service.settings.config
        self.client = client_of(folder, service.port, "producer")
        self.engine = engine
        self.holdings = Holdings(self.client, holder)
        self.stop = threading.Event()
        self.error: BaseException | None = None
        store = FeatureStore(open_blobs(store_of(folder, self.config)), job_uid=self.config.job_uid)
        self.sink: FeatureSink = StoreSink(store)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Here":
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            fingerprint = self.engine.fingerprint()
            register(self.client, self.holdings.holder, self.config, fingerprint)
            prepared = agree_on_inputs(self.client, self.holdings.holder, self.config, prepare)
            watch = InputsWatch(self.config, prepared.inputs)
            Producer(
                self.client, self.holdings, self.engine, self.sink, fingerprint=fingerprint.digest, watch=watch
            ).run(self.stop)
        except BaseException as error:  # noqa: BLE001 handed to the test by `ended`
            self.error = error

    def ended(self) -> BaseException | None:
        self._thread.join(60.0)
        assert not self._thread.is_alive()
        return self.error


@contextmanager
def producing(folder: Path, service: ServiceThread, engine: CaptureEngine) -> Iterator[Here]:
    producer = Here(folder, service, engine).start()
    try:
        yield producer
    finally:
        producer.stop.set()
        producer.ended()


def test_every_prompt_is_captured_committed_and_readable(
    tmp_path: Path, service: ServiceThread, job: JobConfig
) -> None:
    with producing(tmp_path, service, make_engine(job, device=torch.device("cpu"))) as producer:
        wait_ready(tmp_path, service, PROMPTS)
        store = FeatureStore(open_blobs(store_of(tmp_path, job)), job_uid=job.job_uid)
        found = first_window(tmp_path, service)
        assert len({ref.payload_digest for ref in found.values()}) == len(found)
        assert len(found) == job.training.window_size
        for ref in found.values():
            tensors, _ = store.get(ref)
            assert tensors[LAST].shape == (ref.num_tokens, 32)
            assert int((tensors["loss_mask"][:-1]).sum()) == ref.num_supervised
            assert ref.fingerprint == producer.engine.fingerprint().digest
            assert {spec.target_repr for spec in ref.feature_specs if spec.name == LAST} == {"hidden_state"}
    assert producer.ended() is None


class Poisoned:
    """The real engine, but some samples' values are not finite."""

    def __init__(self, engine: CaptureEngine, sequences: set[int]) -> None:
        self.engine, self.sequences = engine, sequences

    def fingerprint(self) -> wire.Fingerprint:
        return self.engine.fingerprint()

    def capture(self, tasks: list[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        return [
            Outcome(task=outcome.task, problem="it is not finite")
            if outcome.task.sequence in self.sequences
            else outcome
            for outcome in self.engine.capture(tasks, padded_length, advance)
        ]


def test_poison_is_dead_lettered_with_its_reason_and_its_neighbours_live(
    tmp_path: Path, service: ServiceThread, job: JobConfig
) -> None:
    engine = Poisoned(make_engine(job, device=torch.device("cpu")), {3, 7})
    with producing(tmp_path, service, engine):  # type: ignore[arg-type]
        wait_ready(tmp_path, service, PROMPTS - 2)
        wait_until(lambda: status_of(tmp_path, service).samples_dead == 2, "two dead letters")
    letters = status_of(tmp_path, service).dead_letters
    assert {letter.sequence: (letter.reason, letter.source) for letter in letters} == {
        3: ("it is not finite", "producer"),
        7: ("it is not finite", "producer"),
    }


class FullAtFirst:
    """A sink that is full for a while."""

    def __init__(self, sink: FeatureSink, refusals: int) -> None:
        self.sink, self.refusals = sink, refusals

    def put(self, task: PromptTask, features: Features, *, fingerprint: str) -> SampleRef:
        if self.refusals:
            self.refusals -= 1
            raise StoreFull("full", retry_after_seconds=0.0)
        return self.sink.put(task, features, fingerprint=fingerprint)


def test_full_store_is_waited_for_and_nothing_is_poison(tmp_path: Path, service: ServiceThread, job: JobConfig) -> None:
    producer = Here(tmp_path, service, make_engine(job, device=torch.device("cpu")))
    sink = FullAtFirst(producer.sink, 20)
    producer.sink = sink
    producer.start()
    wait_ready(tmp_path, service, PROMPTS)
    producer.stop.set()
    assert producer.ended() is None
    assert (sink.refusals, status_of(tmp_path, service).samples_dead) == (0, 0)


class Blocking:
    """The real engine, which waits in its second group until it is let go."""

    def __init__(self, engine: CaptureEngine) -> None:
        self.engine = engine
        self.reached, self.go = threading.Event(), threading.Event()
        self.calls = 0

    def fingerprint(self) -> wire.Fingerprint:
        return self.engine.fingerprint()

    def capture(self, tasks: list[PromptTask], padded_length: int, advance: Advance) -> list[Outcome]:
        self.calls += 1
        if self.calls == 2:
            self.reached.set()
            assert self.go.wait(60.0)
            advance()
        return self.engine.capture(tasks, padded_length, advance)


def test_older_producer_of_an_index_is_fenced_and_what_it_captured_is_refused(
    tmp_path: Path, service: ServiceThread, job: JobConfig
) -> None:
    engine = Blocking(make_engine(job, device=torch.device("cpu")))
    old = Here(tmp_path, service, engine).start()  # type: ignore[arg-type]
    assert engine.reached.wait(60.0)
    newer = wire.Holder(index=HOLDER.index, ordinal=HOLDER.ordinal + 1, restart=0)
    young = Here(tmp_path, service, make_engine(job, device=torch.device("cpu")), newer).start()
    wait_ready(tmp_path, service, PROMPTS)
    engine.go.set()
    assert isinstance(old.ended(), Fenced)
    young.stop.set()
    assert young.ended() is None
    assert status_of(tmp_path, service).live_leases == 0


def test_group_taken_over_is_left_without_an_error(tmp_path: Path, service: ServiceThread, job: JobConfig) -> None:
    engine = Blocking(make_engine(job, device=torch.device("cpu")))
    with producing(tmp_path, service, engine) as producer:  # type: ignore[arg-type]
        assert engine.reached.wait(60.0)
        producer.holdings.return_all()
        engine.go.set()
        wait_ready(tmp_path, service, PROMPTS)
    assert producer.ended() is None


def test_stopping_gives_leases_back_at_once(tmp_path: Path, service: ServiceThread, job: JobConfig) -> None:
    engine = Blocking(make_engine(job, device=torch.device("cpu")))
    producer = Here(tmp_path, service, engine).start()  # type: ignore[arg-type]
    assert engine.reached.wait(60.0)
    wait_until(lambda: status_of(tmp_path, service).live_leases == 1, "the first group to be committed")
    producer.stop.set()
    engine.go.set()
    assert producer.ended() is None
    assert status_of(tmp_path, service).live_leases == 0


def test_hazard_16_edit_of_the_prompts_in_mid_run_ends_the_producer_with_the_reason(
    tmp_path: Path, service: ServiceThread, job: JobConfig
) -> None:
    engine = Blocking(make_engine(job, device=torch.device("cpu")))
    producer = Here(tmp_path, service, engine).start()  # type: ignore[arg-type]
    assert engine.reached.wait(60.0)
    path = Path(job.data.prompts[0])
    path.write_text(path.read_text().replace("the", "The"))
    engine.go.set()
    error = producer.ended()
    assert isinstance(error, UserError)
    assert "changed" in str(error)


def test_producer_of_another_job_is_refused(tmp_path: Path, service: ServiceThread, job: JobConfig) -> None:
    client = client_of(tmp_path, service.port, "producer")
    other = msgspec.structs.replace(job, job_uid="fedcba9876543210")
    with pytest.raises(UserError, match="of job 0123456789abcdef"):
        register(client, HOLDER, other, wire.Fingerprint(facts={}, digest="f"))


def test_second_producer_compares_its_inputs_with_the_first(
    tmp_path: Path, service: ServiceThread, job: JobConfig
) -> None:
    client = client_of(tmp_path, service.port, "producer")
    register(client, HOLDER, job, wire.Fingerprint(facts={}, digest="f"))
    first = agree_on_inputs(client, HOLDER, job, prepare)
    assert agree_on_inputs(client, HOLDER, job, prepare) == first
    other = msgspec.structs.replace(job, data=msgspec.structs.replace(job.data, max_length=17))
    with pytest.raises(UserError, match=r"data\.maxLength changed"):
        agree_on_inputs(client, HOLDER, other, prepare)


class Calls:
    """Stands for the service in the one question of which leases are renewed."""

    def __init__(self) -> None:
        self.renewed: list[tuple[str, ...]] = []
        self.alive: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda ids: ids

    def renew(self, request: wire.RenewRequest) -> wire.RenewReply:
        self.renewed.append(request.lease_ids)
        return wire.RenewReply(alive=self.alive(request.lease_ids))

    def return_leases(self, request: wire.ReturnRequest) -> wire.Empty:
        return wire.Empty()


def lease(name: str) -> wire.CaptureLease:
    return wire.CaptureLease(
        lease_id=name,
        token=LeaseToken("t"),
        group=0,
        tasks=(),
        padded_length=1,
        term_seconds=1,
        deadline_seconds=9,
    )


def test_lease_is_renewed_only_while_work_moves() -> None:
    calls = Calls()
    holdings = Holdings(calls, HOLDER)
    holdings.take(lease("a"))
    holdings.renew_moved()
    holdings.renew_moved()
    assert calls.renewed == [("a",)]
    holdings.still_ours("a")
    holdings.renew_moved()
    assert calls.renewed == [("a",)]
    holdings.advance("a")
    holdings.renew_moved()
    assert calls.renewed == [("a",), ("a",)]


def test_lease_that_the_service_forgot_stops_its_work() -> None:
    from eyas_runtime.capture.engine import LeaseLost

    calls = Calls()
    holdings = Holdings(calls, HOLDER)
    holdings.take(lease("a"))
    holdings.take(lease("b"))
    calls.alive = lambda ids: ("b",)
    holdings.renew_moved()
    holdings.advance("b")
    with pytest.raises(LeaseLost):
        holdings.advance("a")


def test_what_ends_one_thread_ends_the_others() -> None:
    holdings = Holdings(Calls(), HOLDER)
    holdings.take(lease("a"))
    holdings.fail(Fenced("newer"))
    holdings.fail(OSError("later"))
    with pytest.raises(Fenced):
        holdings.check()
    with pytest.raises(Fenced):
        holdings.advance("a")
