"""The demo's data is real text, cut to size, and what is evaluated was not trained on."""

from pydoc_data.topics import topics

from eyas_runtime.demo.text import (
    ANSWER_CHARACTERS,
    evaluation_questions,
    held_out_conversations,
    training_conversations,
)

PROBLEMS = ["def a():\n", "def b():\n", "def c():\n"]


def test_conversations_are_many_bounded_and_spread_over_the_topics() -> None:
    found = training_conversations(topics, 240)
    answers = [conversation["messages"][1]["content"] for conversation in found]
    assert len(found) == 240
    assert max(map(len, answers)) <= ANSWER_CHARACTERS
    assert len({conversation["messages"][0]["content"].partition("?")[0] for conversation in found}) > 50
    assert len(set(answers)) > 230


def test_data_is_the_same_at_every_call() -> None:
    assert training_conversations(topics, 50) == training_conversations(dict(reversed(topics.items())), 50)


def test_less_text_than_asked_for_gives_what_there_is() -> None:
    assert len(training_conversations({"one": "Title\n***\n\n" + "word " * 60}, 10)) == 1


def test_questions_hold_both_kinds_and_nothing_that_was_trained_on() -> None:
    trained = {conversation["messages"][0]["content"] for conversation in training_conversations(topics, 10**6)}
    asked = [conversation["messages"][0]["content"] for conversation in evaluation_questions(topics, PROBLEMS)]
    assert not trained & set(asked)
    assert sum(question.startswith("Complete") for question in asked[:6]) == 3
    assert all(len(conversation["messages"]) == 1 for conversation in evaluation_questions(topics, PROBLEMS))


def test_paragraph_without_an_end_is_cut() -> None:
    text = "Title\n***\n\n" + "\n".join(["line of forty characters, more or less.."] * 100)
    assert {len(c["messages"][1]["content"]) <= ANSWER_CHARACTERS for c in training_conversations({"x": text}, 99)} == {
        True
    }


def test_held_out_conversations_have_answers_and_share_no_answer_with_training() -> None:
    held_out = held_out_conversations(topics, 8)
    trained = {conversation["messages"][1]["content"] for conversation in training_conversations(topics, 10**6)}
    assert 4 <= len(held_out) <= 8
    assert not trained & {conversation["messages"][1]["content"] for conversation in held_out}
