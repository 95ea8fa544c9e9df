"""Claims about receipts of checkpoint commits."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import UserError
from eyas_contract.ids import Incarnation, JobUid
from eyas_runtime.metadata.receipts import ReceiptFacts, is_valid, receipt

KEY = b"k" * 32
FACTS = ReceiptFacts(
    job_uid=JobUid("jobjobjob"),
    store_epoch=1,
    attempt=2,
    incarnation=Incarnation("a" * 32),
    step=50,
    manifest_digest="blake3:ff",
)


def test_a_receipt_is_valid_for_its_facts_and_the_same_every_time() -> None:
    assert receipt(KEY, FACTS) == receipt(KEY, FACTS)
    assert is_valid(KEY, FACTS, receipt(KEY, FACTS))


@pytest.mark.parametrize(
    "change",
    [
        {"job_uid": "otherjobb"},
        {"store_epoch": 2},
        {"attempt": 3},
        {"incarnation": "b" * 32},
        {"step": 51},
        {"manifest_digest": "blake3:fe"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_receipt_is_valid_for_no_other_facts(change: dict[str, Any]) -> None:
    assert not is_valid(KEY, msgspec.structs.replace(FACTS, **change), receipt(KEY, FACTS))


def test_a_receipt_needs_the_key_of_its_job() -> None:
    assert not is_valid(b"x" * 32, FACTS, receipt(KEY, FACTS))


@pytest.mark.parametrize("forged", ["", "hmac-sha256:", "hmac-sha256:" + "0" * 64, "\ud800", "é"])
def test_nonsense_is_no_receipt(forged: str) -> None:
    assert not is_valid(KEY, FACTS, forged)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(UserError, match="at least 16"):
        receipt(b"short", FACTS)


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.data())
def test_text_cannot_move_from_one_fact_to_the_next(text: str, data: st.DataObject) -> None:
    one, other = data.draw(
        st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).filter(lambda t: t[0] != t[1])
    )
    first = msgspec.structs.replace(FACTS, incarnation=Incarnation(text[:one]), manifest_digest=text[one:])
    second = msgspec.structs.replace(FACTS, incarnation=Incarnation(text[:other]), manifest_digest=text[other:])
    assert receipt(KEY, first) != receipt(KEY, second)


def test_digits_cannot_move_between_numbers() -> None:
    first = msgspec.structs.replace(FACTS, store_epoch=1, attempt=12)
    second = msgspec.structs.replace(FACTS, store_epoch=11, attempt=2)
    assert receipt(KEY, first) != receipt(KEY, second)
