"""Numbers in sentences for people: "1 sample", "2 samples". For regular nouns, in every message."""


def counted(count: int, noun: str) -> str:
    """`count` and the noun in its number."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
