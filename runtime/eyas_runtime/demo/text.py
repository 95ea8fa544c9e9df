"""Conversations about the Python language, from the help topics that come with Python; and questions to evaluate on.

Pure. Topics are cut at paragraphs into answers of a bounded size, so that a sample fits the demo's `maxLength`. A few
topics are held back: their questions are asked in the evaluation and never trained on.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

ANSWER_CHARACTERS: Final = 720
"""About 200 tokens, which leaves room for the question in a sample of 256."""
ANSWER_CHARACTERS_MIN: Final = 160
HELD_BACK_EVERY: Final = 10
"""Every tenth topic is for the evaluation."""
Conversation = dict[str, Any]


def training_conversations(topics: Mapping[str, str], count: int) -> list[Conversation]:
    """`count` conversations (fewer if there is less text), spread evenly over all topics that are not held back."""
    return _spread(_conversations(topics, held_back=False), count)


def held_out_conversations(topics: Mapping[str, str], count: int) -> list[Conversation]:
    """The same of the topics that are held back, but for answers with a paragraph that a trained topic quotes."""
    trained = "\n\n".join(text for _, text in _topics(topics, held_back=False))
    found = _conversations(topics, held_back=True)
    return _spread([one for one in found if not any(part in trained for part in _paragraphs(one))], count)


def evaluation_questions(topics: Mapping[str, str], problems: Sequence[str]) -> list[Conversation]:
    """Questions about the topics held back and programming `problems`, in turn, so that any first few hold both."""
    about = [_question(text, 1) for _, text in _topics(topics, held_back=True)]
    coding = [f"Complete this Python function.\n\n{problem.strip()}" for problem in problems]
    asked: list[str] = []
    for index in range(max(len(about), len(coding))):
        asked += about[index : index + 1] + coding[index : index + 1]
    return [{"messages": [{"role": "user", "content": question}]} for question in asked]


def _conversations(topics: Mapping[str, str], *, held_back: bool) -> list[Conversation]:
    return [
        _conversation(_question(text, part), answer)
        for _, text in _topics(topics, held_back=held_back)
        for part, answer in enumerate(_answers(text), start=1)
    ]


def _spread(found: list[Conversation], count: int) -> list[Conversation]:
    """`count` of them, evenly over all; all if there are fewer."""
    return found if len(found) <= count else [found[index * len(found) // count] for index in range(count)]


def _paragraphs(conversation: Conversation) -> list[str]:
    return str(conversation["messages"][1]["content"]).split("\n\n")


def _topics(topics: Mapping[str, str], *, held_back: bool) -> Iterator[tuple[str, str]]:
    for index, name in enumerate(sorted(topics)):
        if (index % HELD_BACK_EVERY == HELD_BACK_EVERY - 1) == held_back:
            yield name, topics[name]


def _conversation(question: str, answer: str) -> Conversation:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _question(text: str, part: int) -> str:
    title = text.strip().splitlines()[0].replace('"', "")
    question = f'What does the Python manual say under "{title}"?'
    return question if part == 1 else f"{question} Part {part}, please."


def _answers(text: str) -> Iterator[str]:
    """The text without its title, cut at blank lines; a paragraph that is too long alone is cut at line ends."""
    packed = ""
    for piece in _pieces(text):
        if packed and len(packed) + 2 + len(piece) > ANSWER_CHARACTERS:
            yield packed
            packed = ""
        packed = f"{packed}\n\n{piece}" if packed else piece
    if len(packed) >= ANSWER_CHARACTERS_MIN:
        yield packed


def _pieces(text: str) -> Iterator[str]:
    for paragraph in text.strip().split("\n\n")[1:]:
        piece = ""
        for line in paragraph.splitlines():
            if piece and len(piece) + 1 + len(line) > ANSWER_CHARACTERS:
                yield piece
                piece = ""
            piece = f"{piece}\n{line}" if piece else line
        if piece.strip():
            yield piece
