"""Messages about the prepared inputs: one producer makes them once, every role compares and uses them."""

from typing import Literal

from eyas_contract.wire.common import Holder, Message


class PrepareRequest(Message, frozen=True, kw_only=True):
    """Ask whether to run `prepare`. One producer at a time is told to."""

    holder: Holder
    wait_seconds: float = 0.0


class PrepareReply(Message, frozen=True, kw_only=True):
    """`done`: fetch it; `yours`: run it and commit it; `wait`: somebody else does."""

    verdict: Literal["done", "yours", "wait"]


class Inputs(Message, frozen=True, kw_only=True):
    """Digests of everything that fixes what is trained; compared by every role at its start."""

    data: str
    tokenizer: str
    template: str
    target: str
    evaluation: str = ""
    """Of the held-out prompts; empty when there are none."""


class Prepared(Message, frozen=True, kw_only=True):
    """Result of `prepare`, written once."""

    inputs: Inputs
    prompt_count: int
    """N: prompts that are trained. The columns below go on with the held-out ones."""
    file_indices: str
    """base64 of little-endian uint16[N]: which data file a prompt is in."""
    offsets: str
    """base64 of little-endian uint64[N]: byte offset of its line (or index of its feature file)."""
    token_counts: str
    """base64 of little-endian uint32[N]: tokens after the cut to max_length."""
    supervised_counts: str
    """base64 of little-endian uint32[N]: supervised positions, the last position excluded."""
    draft_to_target: str
    """base64 of little-endian int64[D]: d2t as offsets; d2t[i] + i is the target id of draft id i."""
    target_vocab_size: int
    hidden_size: int
    """Hidden size H of the target: one token's features are 4 H elements of the target dtype."""
    bytes_per_token: int
    """Bytes of one token's features, for reservations."""
    bytes_per_sample: int
    """Fixed bytes of one blob (header, ids are per token), for reservations."""
    held_out_count: int = 0
    """H: prompts that are only evaluated, numbered N .. N + H - 1."""
    truncated_prompts: int = 0
    empty_prompts: tuple[int, ...] = ()
    """Prompt indices with no supervised token: dead letters from the start."""


class PrepareCommitRequest(Message, frozen=True, kw_only=True):
    """The first commit wins; a later one must be equal or is refused with `UserError`."""

    holder: Holder
    prepared: Prepared


class PreparedRequest(Message, frozen=True, kw_only=True):
    """Ask for the prepared inputs, waiting for them if need be."""

    wait_seconds: float = 0.0


class PreparedReply(Message, frozen=True, kw_only=True):
    """None: not there yet."""

    prepared: Prepared | None
