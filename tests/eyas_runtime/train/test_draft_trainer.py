"""One rank's draft trainer: verdicts by content, state that comes back bit for bit, drafts that others began."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from eyas_contract import wire
from eyas_contract.errors import UserError
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import PromptTask, SampleRef
from eyas_runtime.checkpoint.pieces import whole
from eyas_runtime.checkpoint.reader import CheckpointReader
from eyas_runtime.checkpoint.store import CheckpointRoot
from eyas_runtime.checkpoint.writer import CheckpointWriter, Save
from eyas_runtime.train.data import WindowData
from eyas_runtime.train.draft_engine import draft_config, loss_config, vocab_of
from eyas_runtime.train.draft_trainer import DraftTrainer, Features
from eyas_runtime.train.eagle3.grid import Grid
from eyas_runtime.train.eagle3.optim import OptimConfig
from eyas_runtime.train.eagle3.parallelize import ParallelConfig
from eyas_runtime.train.eagle3.schedule import ScheduleConfig
from eyas_runtime.train.group import SoloGroup
from eyas_runtime.train.heartbeat import Work
from eyas_runtime.train.initial_draft import draft_reader
from eyas_runtime.train.ports import Code, MicroBatch
from eyas_runtime.train.step import WindowStep
from eyas_runtime.train.target_head import load_matrices
from eyas_runtime.train.window import share_of
from support.checkpoints import RecordingCommitter, lineage, make_root, state_at, thread_groups
from support.draft_job import draft_inputs, draft_job, features_of, prepared_of, tokens_of

torch.set_num_threads(1)


class Bench:
    """Builds trainers of one job."""

    def __init__(self, folder: Path) -> None:
        self.config = draft_job(folder, draft_inputs(folder))
        self.prepared = prepared_of(self.config)
        self.matrices = load_matrices(self.config.target, dtype=torch.float32)

    def trainer(
        self,
        *,
        learning_rate: float = 1e-2,
        initial_from: Path | None = None,
        seed: int = 5,
        packed: bool = False,
    ) -> DraftTrainer:
        schedule = ScheduleConfig(learning_rate=learning_rate, total_steps=6)
        return DraftTrainer(
            draft_config(self.config, self.prepared),
            loss_config(self.config),
            OptimConfig(schedule=schedule),
            ParallelConfig(),
            self.matrices,
            vocab_of(self.prepared),
            device=torch.device("cpu"),
            grid=Grid(),
            seed=seed,
            packed=packed,
            initial=None if initial_from is None else draft_reader(initial_from),
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("job"))


def task(sequence: int) -> PromptTask:
    return PromptTask(
        sample_id=sample_id(sequence),
        sequence=sequence,
        prompt_index=sequence,
        file_index=0,
        offset=0,
        num_tokens=tokens_of(sequence),
        capture=True,
    )


def ref(sequence: int) -> SampleRef:
    tokens = tokens_of(sequence)
    return SampleRef(
        sample_id=sample_id(sequence),
        sequence=sequence,
        key=ObjectKey("k"),
        generation=1,
        digest="",
        payload_digest="",
        length=1,
        num_tokens=tokens,
        num_supervised=tokens - 2,
        feature_specs=(),
    )


def train(trainer: DraftTrainer, step: int, samples: list[Features | None]) -> dict[str, float]:
    trainer.begin(step, len(samples))
    for place, sample in enumerate(samples):
        batch = MicroBatch(places=(place,), samples=(sample,), last=place == len(samples) - 1)
        assert trainer.accumulate(batch, 20.0) == ()
    metrics = trainer.metrics(trainer.totals(), 20.0)
    return {**metrics, **trainer.apply(step)}


def window(step: int) -> list[Features | None]:
    return [features_of(task(2 * step)), None, features_of(task(2 * step + 1))]


def save(root: CheckpointRoot, trainer: DraftTrainer, step: int) -> wire.CheckpointCommitRequest:
    committer = RecordingCommitter()
    CheckpointWriter(root, lineage(), thread_groups(1)[0], committer).save(
        Save(step=step, pieces=trainer.pieces(), state=state_at(step), verdicts=())
    )
    return committer.requests[0]


def loaded(bench: Bench, root: CheckpointRoot, request: wire.CheckpointCommitRequest) -> DraftTrainer:
    trainer = bench.trainer(seed=99)
    path = root.directory(request.directory)
    with CheckpointReader(path, manifest_digest=request.manifest_digest) as reader:
        trainer.load(reader)
    return trainer


class Spoiled:
    """A `FeatureSource` of samples of which one tensor is NaN, or, the target, too large for a loss."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get(self, ref: SampleRef) -> Features:
        features = features_of(task(ref.sequence))
        return {**features, self.name: features[self.name] * (1e38 if self.name == "target" else math.nan)}

    def report_lost(self, samples: Sequence[wire.LostSample]) -> None:
        raise AssertionError(f"{samples} were read well")

    def current(self, step: int, version: int, sequences: Sequence[int], *, wait_seconds: float) -> wire.RefsReply:
        raise AssertionError(f"nothing of window {step} was lost")

    def close(self) -> None: ...


def state_bytes(trainer: DraftTrainer) -> dict[str, bytes]:
    return {piece.name: bytes(piece.data) for piece in trainer.pieces()}


def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_happened(bench: Bench, tmp_path: Path) -> None:
    straight = bench.trainer()
    straight.initialise()
    losses = [train(straight, step, window(step)) for step in (1, 2, 3, 4)]
    first = bench.trainer()
    first.initialise()
    for step in (1, 2):
        train(first, step, window(step))
    root = make_root(tmp_path)
    second = loaded(bench, root, save(root, first, 2))
    assert [train(second, step, window(step)) for step in (3, 4)] == losses[2:]
    assert state_bytes(second) == state_bytes(straight)


def test_a_copy_for_a_checkpoint_does_not_change_while_training_goes_on(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    pieces = trainer.pieces()
    before = [bytes(piece.data) for piece in pieces]
    train(trainer, 1, window(1))
    assert [bytes(piece.data) for piece in pieces] == before


def test_initial_weights_are_a_function_of_the_seed(bench: Bench) -> None:
    def weights(seed: int) -> dict[str, bytes]:
        trainer = bench.trainer(seed=seed)
        trainer.initialise()
        return state_bytes(trainer)

    assert weights(1) == weights(1)
    assert weights(1) != weights(2)


def test_a_checkpoint_saved_before_the_first_update_is_the_start_itself(bench: Bench, tmp_path: Path) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    root = make_root(tmp_path)
    again = loaded(bench, root, save(root, trainer, 1))
    assert train(again, 2, window(2)) == train(trainer, 2, window(2))
    assert state_bytes(again) == state_bytes(trainer)


@pytest.mark.parametrize(
    ("spoiled", "dead"), [("", ()), ("hidden_state", (4, 5)), ("target", (5,))], ids=["holes", "content", "loss"]
)
def test_hazard_12_a_window_without_a_live_sample_moves_neither_weights_nor_moments(
    bench: Bench, spoiled: str, dead: tuple[int, ...]
) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    train(trainer, 1, window(1))
    before = state_bytes(trainer)
    assert any(any(data) for name, data in before.items() if name.startswith("optimizer/exp_avg/"))
    places = tuple(wire.WindowEntry(sequence=i, ref=ref(i) if i in dead else None) for i in (4, 5))
    order = wire.Order(ordinal=1, kind="train", step=2, entries=places)
    share = share_of(order, rank=0, world_size=1, micro_batch_size=1)
    data = WindowData(Spoiled(spoiled), trainer, Work())
    data.start(share, [])
    result = WindowStep(share, data, trainer, SoloGroup(), Work(), "AllPositions", ranks_per_sample=1).run()
    data.close()
    assert [verdict.sequence for verdict in result.verdicts] == list(dead)
    assert state_bytes(trainer) == before
    straight = bench.trainer()
    straight.initialise()
    train(straight, 1, window(1))
    assert train(trainer, 3, window(3)) == train(straight, 3, window(3))
    assert state_bytes(trainer) == state_bytes(straight)


def test_hazard_12_the_moments_count_updates_and_not_windows(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    train(trainer, 1, window(1))
    train(trainer, 5, window(5))
    assert state_bytes(trainer)["optimizer/updates"] == (2).to_bytes(8, "little")


CHANGES = {
    "nan": ("hidden_state", lambda x: x.index_fill(0, torch.tensor([1]), math.nan), Code.NOT_FINITE),
    "infinite": ("target", lambda x: x.index_fill(1, torch.tensor([3]), math.inf), Code.NOT_FINITE),
    "too short": ("target", lambda x: x[:-1], Code.OTHER_SHAPES),
    "too narrow": ("hidden_state", lambda x: x[:, :-1], Code.OTHER_SHAPES),
    "token too large": ("input_ids", lambda x: x + 10_000, Code.BAD_TOKENS),
    "token negative": ("input_ids", lambda x: x - 10_000, Code.BAD_TOKENS),
    "other mask": ("loss_mask", torch.zeros_like, Code.BAD_TOKENS),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_bad_content_is_seen_before_it_is_trained(bench: Bench, change: tuple[str, object, Code]) -> None:
    name, function, code = change
    trainer = bench.trainer()
    features = features_of(task(3))
    assert trainer.inspect(ref(3), features) == Code.FINE
    assert callable(function)
    assert trainer.inspect(ref(3), {**features, name: function(features[name])}) == code


@pytest.mark.parametrize("names", [["input_ids"], ["input_ids", "loss_mask", "hidden_state", "target", "more"]])
def test_other_tensors_than_agreed_are_no_sample(bench: Bench, names: list[str]) -> None:
    features = features_of(task(3))
    sample = {name: features.get(name, torch.zeros(1)) for name in names}
    assert bench.trainer().inspect(ref(3), sample) == Code.OTHER_SHAPES


def test_a_sample_whose_loss_is_not_finite_is_named_and_done_again_without_it(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    good, bad = features_of(task(2)), features_of(task(3))
    bad["target"] = bad["target"] * 1e38
    trainer.begin(1, 2)
    found = [
        trainer.accumulate(MicroBatch(places=(place,), samples=(sample,), last=place == 1), 20.0)
        for place, sample in enumerate([good, bad])
    ]
    assert found == [(), (1,)]
    assert trainer.healthy()
    with_verdict = train(trainer, 1, [good, None])
    alone = bench.trainer()
    alone.initialise()
    assert train(alone, 1, [good, None]) == with_verdict
    assert state_bytes(alone) == state_bytes(trainer)


PACK = (0, 1, 2, None)


def train_pack(trainer: DraftTrainer, step: int, samples: list[Features | None]) -> dict[str, float]:
    trainer.begin(step, len(samples))
    assert trainer.accumulate(MicroBatch(places=PACK, samples=tuple(samples), last=True), 20.0) == ()
    return {**trainer.metrics(trainer.totals(), 20.0), **trainer.apply(step)}


def test_a_packed_window_trains_what_single_samples_train(bench: Bench) -> None:
    samples = [features_of(task(1)), features_of(task(2)), features_of(task(5)), None]
    packed, single = bench.trainer(packed=True), bench.trainer()
    packed.initialise()
    single.initialise()
    assert train_pack(packed, 1, samples) == pytest.approx(train(single, 1, samples), rel=1e-5)
    # The first Adam update is the learning rate times a sign: only bits of nearly vanished gradients may differ.
    moments = ("optimizer/exp_avg/", "optimizer/exp_avg_sq/")
    want = {
        n: torch.frombuffer(bytearray(b), dtype=torch.float32)
        for n, b in state_bytes(single).items()
        if n.startswith(moments)
    }
    assert want
    for name, data in state_bytes(packed).items():
        if name in want:
            got = torch.frombuffer(bytearray(data), dtype=torch.float32)
            torch.testing.assert_close(got, want[name], rtol=1e-3, atol=1e-7)


def test_a_packed_sample_whose_loss_is_not_finite_is_named_and_its_pack_is_done_again_without_it(bench: Bench) -> None:
    trainer = bench.trainer(packed=True)
    trainer.initialise()
    good, bad, other = features_of(task(2)), features_of(task(3)), features_of(task(4))
    bad["target"] = bad["target"] * 1e38
    trainer.begin(1, 3)
    found = trainer.accumulate(MicroBatch(places=(4, 7, 9), samples=(good, bad, other), last=True), 20.0)
    assert found == (7,)
    assert trainer.healthy()
    again = train_pack(trainer, 1, [good, None, other, None])
    alone = bench.trainer(packed=True)
    alone.initialise()
    assert train_pack(alone, 1, [good, None, other, None]) == again
    assert state_bytes(alone) == state_bytes(trainer)


def test_divergence_is_said_and_moves_nothing(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    trainer.begin(1, 1)
    sample = features_of(task(2))
    trainer.accumulate(MicroBatch(places=(0,), samples=(sample,), last=True), 1e-37)
    before = state_bytes(trainer)
    with pytest.raises(UserError, match="diverged at step 1"):
        trainer.apply(1)
    assert state_bytes(trainer) == before


def test_a_job_may_start_from_the_weights_of_another_jobs_checkpoint(bench: Bench, tmp_path: Path) -> None:
    old = bench.trainer()
    old.initialise()
    train(old, 1, window(1))
    root = make_root(tmp_path)
    request = save(root, old, 1)
    new = bench.trainer(initial_from=root.directory(request.directory))
    new.initialise()
    weights = {name: data for name, data in state_bytes(new).items() if name.startswith("weights/")}
    assert weights == {name: data for name, data in state_bytes(old).items() if name.startswith("weights/")}
    assert state_bytes(new)["optimizer/updates"] == bytes(8)


def test_a_damaged_checkpoint_is_no_draft_to_start_from(bench: Bench, tmp_path: Path) -> None:
    old = bench.trainer()
    old.initialise()
    root = make_root(tmp_path)
    request = save(root, old, 1)
    shard = root.directory(request.directory) / "rank-00000-of-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-5] ^= 1
    shard.write_bytes(data)
    with pytest.raises(UserError, match="digest"):
        bench.trainer(initial_from=root.directory(request.directory)).initialise()


def test_a_folder_without_a_draft_is_named(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="initialFrom"):
        bench.trainer(initial_from=tmp_path)


def test_a_checkpoint_of_another_vocabulary_map_is_refused(bench: Bench, tmp_path: Path) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    pieces = [piece for piece in trainer.pieces() if piece.name != "vocabulary/d2t"]
    count = len(vocab_of(bench.prepared).d2t)
    pieces.append(whole("vocabulary/d2t", "int64", (count,), bytes(8 * count)))
    root, committer = make_root(tmp_path), RecordingCommitter()
    CheckpointWriter(root, lineage(), thread_groups(1)[0], committer).save(
        Save(step=1, pieces=pieces, state=state_at(1), verdicts=())
    )
    with pytest.raises(UserError, match="vocabulary map"):
        loaded(bench, root, committer.requests[0])


def test_evaluation_moves_nothing_that_a_checkpoint_holds(bench: Bench) -> None:
    """Weights, moments, gradients under way and generators: the next step gives the bits it would have given."""
    quiet, measured = bench.trainer(), bench.trainer()
    for trainer in (quiet, measured):
        trainer.initialise()
        train(trainer, 1, window(1))
    generator = torch.get_rng_state()
    before = [bytes(piece.data) for piece in measured.pieces()]
    totals = evaluate(measured, window(3))
    assert [bytes(piece.data) for piece in measured.pieces()] == before
    assert torch.equal(torch.get_rng_state(), generator)
    assert evaluate(measured, window(3)) == totals
    assert train(measured, 2, window(2)) == train(quiet, 2, window(2))
    assert [bytes(piece.data) for piece in measured.pieces()] == [bytes(piece.data) for piece in quiet.pieces()]


def test_evaluation_counts_what_training_would_count(bench: Bench) -> None:
    trainer = bench.trainer()
    trainer.initialise()
    measured = evaluate(trainer, window(1))
    trainer.begin(1, 3)
    for place, sample in enumerate(window(1)):
        trainer.accumulate(MicroBatch(places=(place,), samples=(sample,), last=place == 2), 20.0)
    assert trainer.totals() == measured


def evaluate(trainer: DraftTrainer, samples: list[Features | None]) -> tuple[float, ...]:
    trainer.begin_evaluation(len(samples))
    for place, sample in enumerate(samples):
        batch = MicroBatch(places=(place,), samples=(sample,), last=place == len(samples) - 1)
        assert trainer.evaluate(batch, 20.0) == ()
    return trainer.totals()
