"""Claims about bearer tokens: per role, two at a time, read again when they change."""

import hmac
import os
from pathlib import Path

import pytest

from eyas_contract.errors import UserError
from eyas_contract.wire import RoleName
from eyas_runtime.metadata.service.auth import LOOK_SECONDS, TOKEN_FILES, Tokens

NEW = "n" * 40


def write(folder: Path, role: RoleName, *tokens: str) -> None:
    """Replace a token file as the kubelet does: another file behind the same name."""
    fresh = folder / "fresh"
    fresh.write_text("\n".join(tokens))
    os.replace(fresh, folder / TOKEN_FILES[role])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for role in TOKEN_FILES:
        write(tmp_path, role, role[0] * 40)
    return tmp_path


def test_each_token_gives_its_own_role_only(folder: Path) -> None:
    tokens = Tokens(folder, now=0.0)
    for role in TOKEN_FILES:
        assert tokens.roles("Bearer " + role[0] * 40, now=0.0) == {role}


@pytest.mark.parametrize(
    "header",
    ["", "Bearer ", "Bearer " + "x" * 40, "p" * 40, "Basic " + "p" * 40, "bearer " + "p" * 40, "Bearer " + "p" * 39,
     "Bearer " + "p" * 41, "Bearer  " + "p" * 40, "Bearer \ud800", "Bearer " + "p" * 100_000],
)  # fmt: skip
def test_anything_else_gives_no_role(folder: Path, header: str) -> None:
    assert Tokens(folder, now=0.0).roles(header, now=0.0) == frozenset()


def test_every_known_token_is_compared_even_after_a_match(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = Tokens(folder, now=0.0)
    compared = []
    real = hmac.compare_digest

    def counting(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return real(one, other)

    monkeypatch.setattr("eyas_runtime.metadata.service.auth.hmac.compare_digest", counting)
    tokens.roles("Bearer " + "p" * 40, now=0.0)
    assert len(compared) == len(TOKEN_FILES)


def test_two_tokens_are_valid_at_a_time(folder: Path) -> None:
    write(folder, "reader", NEW, "r" * 40)
    tokens = Tokens(folder, now=0.0)
    assert tokens.roles("Bearer " + NEW, now=0.0) == {"reader"}
    assert tokens.roles("Bearer " + "r" * 40, now=0.0) == {"reader"}


def test_a_changed_file_is_read_again(folder: Path) -> None:
    tokens = Tokens(folder, now=0.0)
    write(folder, "producer", NEW)
    assert tokens.roles("Bearer " + NEW, now=LOOK_SECONDS / 2) == frozenset()
    assert tokens.roles("Bearer " + NEW, now=LOOK_SECONDS) == {"producer"}
    assert tokens.roles("Bearer " + "p" * 40, now=LOOK_SECONDS) == frozenset()


@pytest.mark.parametrize("bad", ["", "short", "c" * 40], ids=["empty", "short", "another role's"])
def test_a_file_that_turns_bad_keeps_the_old_token_until_it_is_good_again(folder: Path, bad: str) -> None:
    tokens = Tokens(folder, now=0.0)
    write(folder, "producer", bad)
    assert tokens.roles("Bearer " + "p" * 40, now=2.0) == {"producer"}
    assert tokens.roles("Bearer " + "c" * 40, now=2.0) == {"consumer"}
    write(folder, "producer", NEW)
    assert tokens.roles("Bearer " + NEW, now=4.0) == {"producer"}


def test_a_missing_file_stops_the_start(folder: Path) -> None:
    (folder / TOKEN_FILES["consumer"]).unlink()
    with pytest.raises(UserError, match=r"consumer\.token"):
        Tokens(folder, now=0.0)


def test_two_roles_with_one_token_stop_the_start(folder: Path) -> None:
    write(folder, "consumer", "p" * 40)
    with pytest.raises(UserError, match="producer and consumer have the same token"):
        Tokens(folder, now=0.0)
