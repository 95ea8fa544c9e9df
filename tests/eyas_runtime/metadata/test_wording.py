"""Words that both stores say: nothing compares the two here, so each claim stands alone."""

import pytest

from eyas_contract import wire
from eyas_contract.states import Phase
from eyas_runtime.metadata import wording
from eyas_runtime.metadata.port import Suspect


@pytest.mark.parametrize(
    ("failure", "durable_step", "total_steps", "phase"),
    [
        ("", 0, 0, Phase.PREPARING),
        ("", 0, 3, Phase.RUNNING),
        ("", 2, 3, Phase.RUNNING),
        ("", 3, 3, Phase.COMPLETE),
        ("broken", 0, 0, Phase.FAILED),
        ("broken", 3, 3, Phase.FAILED),
    ],
)
def test_the_phase_follows_from_failure_and_steps(
    failure: str, durable_step: int, total_steps: int, phase: Phase
) -> None:
    assert wording.phase_of(failure=failure, durable_step=durable_step, total_steps=total_steps) is phase


@pytest.mark.parametrize(
    ("fingerprint", "world_size", "words"),
    [("a", 2, ()), ("a", 0, ()), ("b", 2, ("trainingFingerprint",)), ("a", 3, ("worldSize",)),
     ("b", 3, ("trainingFingerprint", "worldSize"))],
)  # fmt: skip
def test_only_what_differs_makes_a_result_inexact(fingerprint: str, world_size: int, words: tuple[str, ...]) -> None:
    request = wire.ReconcileRequest(
        attempt=4, world_size=2, process="p", fingerprint=wire.Fingerprint(facts={}, digest="a"), checkpoint=None
    )
    found = tuple(wording.inexact_computations(request, fingerprint=fingerprint, world_size=world_size))
    assert tuple(reason.partition(":")[0] for reason in found) == words


def test_a_restart_names_the_attempt_unless_it_is_the_same() -> None:
    assert wording.replaced_by(2, former_attempt=2) == "the ranks were started again by the same attempt"
    assert wording.replaced_by(3, former_attempt=2) == "the ranks were started again by attempt 3"


def test_suspects_name_group_prompts_and_deaths() -> None:
    assert wording.suspects_in_words([Suspect(group=1, deaths=2, prompts=(5, 7))]) == (
        "group 1 (prompts 5, 7): 2 producers died",
    )


def test_the_list_of_refused_checkpoints_is_short() -> None:
    incident = wording.checkpoints_refused([f"d{number}" for number in range(20)], step=3, now=1.0)
    assert incident.message.startswith("20 checkpoints failed verification: d0, ")
    assert "d8" not in incident.message


def test_one_sample_is_not_one_samples() -> None:
    assert wording.samples_lost(1, first=7, reasons=["gone"]) == "1 sample, 7: gone"
    assert wording.samples_lost(2, first=7, reasons=["cut", "gone"]) == "2 samples, the first is 7: cut; gone"
    assert wording.checkpoints_refused(["a"], step=0, now=0.0).message == "1 checkpoint failed verification: a"
    suspect = Suspect(group=1, prompts=(5,), deaths=1)
    assert wording.suspects_in_words([suspect]) == ("group 1 (prompts 5): 1 producer died",)
