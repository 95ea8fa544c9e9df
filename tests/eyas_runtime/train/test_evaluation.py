"""What the ranks know of evaluations: rounds of several windows, the best one, and going on from a checkpoint."""

import msgspec
import pytest

from eyas_contract import wire
from eyas_contract.ids import ObjectKey, sample_id
from eyas_contract.refs import SampleRef
from eyas_runtime.core.rounds import Part
from eyas_runtime.train.evaluation import BEST, Evaluations, Measured


def ref(sequence: int, *, tokens: int = 10, supervised: int = 4) -> SampleRef:
    return SampleRef(
        sample_id=sample_id(sequence),
        sequence=sequence,
        key=ObjectKey("k"),
        generation=1,
        digest="",
        payload_digest="",
        length=1,
        num_tokens=tokens,
        num_supervised=supervised,
        feature_specs=(),
    )


def metrics(totals: tuple[float, ...], denominator: float) -> dict[str, float]:
    return {"loss": totals[0] / denominator, "denominator": denominator}


def part(number: int, *, of: int = 2, after: int = 2) -> Part:
    return Part(training_step=after, number=number, of=of)


def measured(loss: float, *refs: SampleRef) -> Measured:
    return Measured(totals=(loss, 1.0), live=refs or (ref(0),))


def evaluations(state: wire.EvaluationState | None = None, *, supervised: bool = False) -> Evaluations:
    return Evaluations(state, "Supervised" if supervised else "AllPositions")


def test_round_adds_numerators_and_denominators_over_its_windows() -> None:
    """A mean of means would be 7.5 / 2: the second window is shorter."""
    subject = evaluations()
    assert subject.add(3, part(0), measured(30.0, ref(0), ref(1)), metrics) == {}
    found = subject.add(4, part(1), measured(30.0, ref(2, tokens=4)), metrics)
    assert found == {"eval_live_samples": 3.0, "eval_loss": 60.0 / 24, "eval_denominator": 24.0, BEST: 1.0}


def test_denominator_is_what_the_loss_is_normalised_by() -> None:
    subject = evaluations(supervised=True)
    subject.add(3, part(0), measured(30.0, ref(0), ref(1)), metrics)
    assert subject.add(4, part(1), measured(30.0, ref(2)), metrics)["eval_denominator"] == 12.0


def test_only_a_lower_loss_is_a_new_best() -> None:
    subject = evaluations()
    said = [subject.add(n, part(0, of=1, after=n), measured(loss), metrics)[BEST] for n, loss in
            enumerate([50.0, 60.0, 50.0, 40.0], 1)]  # fmt: skip
    assert said == [1.0, 0.0, 0.0, 1.0]
    state = subject.state_at(9, "step-9")
    assert [point.eval_loss for point in state.points] == [5.0, 6.0, 5.0, 4.0]
    assert state.best is not None
    assert (state.best.step, state.best.training_step, state.best.directory) == (4, 4, "")


def test_best_gets_the_directory_of_the_checkpoint_at_its_own_boundary_and_keeps_it() -> None:
    subject = evaluations()
    subject.add(4, part(0, of=1), measured(50.0), metrics)
    at = subject.state_at(4, "step-4").best
    assert at is not None
    assert at.directory == "step-4"
    subject.add(8, part(0, of=1), measured(60.0), metrics)
    assert subject.state_at(8, "step-8").best == at


@pytest.mark.parametrize("cut", range(1, 6))
def test_whoever_goes_on_from_a_checkpoint_says_the_same(cut: int) -> None:
    """Also from one between the windows of a round, as it is read back from a manifest."""
    script = [(n, part(n % 2, after=n), measured(100.0 / 3 ** (n % 4), ref(n, tokens=5 + n))) for n in range(6)]
    whole = evaluations()
    expected = [whole.add(*entry, metrics) for entry in script]
    first = evaluations()
    said = [first.add(*entry, metrics) for entry in script[:cut]]
    raw = msgspec.json.encode(first.state_at(cut - 1, f"step-{cut - 1}"))
    whole_again = evaluations(msgspec.json.decode(raw, type=wire.EvaluationState))
    said += [whole_again.add(*entry, metrics) for entry in script[cut:]]
    assert said == expected
    assert whole_again.state_at(99, "x").points == whole.state_at(99, "x").points


def test_window_without_live_samples_adds_nothing() -> None:
    subject = evaluations()
    subject.add(3, part(0), measured(30.0, ref(0)), metrics)
    found = subject.add(4, part(1), Measured(totals=(), live=()), metrics)
    assert (found["eval_loss"], found["eval_live_samples"]) == (3.0, 1.0)


def test_round_without_live_samples_has_no_loss_and_is_no_best_one() -> None:
    subject = evaluations()
    subject.add(3, part(0), Measured(totals=(), live=()), metrics)
    assert subject.add(4, part(1), Measured(totals=(), live=()), metrics) == {"eval_live_samples": 0.0}
    assert subject.state_at(4, "step-4") == wire.EvaluationState()
