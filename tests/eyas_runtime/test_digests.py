"""Digests are those of the libraries, over all bytes, whatever the pieces."""

import os

import blake3
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from eyas_contract.errors import Corrupt, UserError
from eyas_runtime import digests

PARTS = st.lists(st.binary(max_size=50), max_size=6)


@given(PARTS)
def test_a_digest_does_not_depend_on_how_the_bytes_are_cut(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    assert digests.digest_of(parts) == f"blake3:{blake3.blake3(whole).hexdigest()}"
    assert digests.digest_of(parts, "xxh3-128") == f"xxh3-128:{xxhash.xxh3_128(whole).hexdigest()}"


@given(PARTS, PARTS, st.sampled_from(digests.ALGORITHMS))
def test_a_pair_covers_the_whole_and_the_payload_alone(head: list[bytes], payload: list[bytes], algorithm: str) -> None:
    whole, alone = digests.digest_pair(head, payload, algorithm)
    assert whole == digests.digest_of([*head, *payload], algorithm)
    assert alone == digests.digest_of(payload, "xxh3-128")


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_threads_do_not_change_a_digest(threads: int) -> None:
    data = os.urandom((3 << 20) + 17)
    assert digests.digest_of([data], threads=threads) == digests.digest_of([data])
    assert digests.digest_pair([b"h"], [data], "blake3", threads=threads)[0] == digests.digest_of([b"h", data])


def test_a_difference_is_corrupt_and_names_what() -> None:
    good, bad = digests.digest_of([b"a"]), digests.digest_of([b"b"])
    digests.check(good, good, "the sample")
    with pytest.raises(Corrupt, match="the sample"):
        digests.check(good, bad, "the sample")


@pytest.mark.parametrize("digest", ["", "blake3", "blake3:abc", "sha256:" + 64 * "0", "blake3:" + 64 * "X"])
def test_what_is_no_digest_is_corrupt(digest: str) -> None:
    with pytest.raises(Corrupt):
        digests.algorithm_of(digest)


def test_an_unknown_algorithm_is_the_users_error() -> None:
    with pytest.raises(UserError):
        digests.hasher("md5")
