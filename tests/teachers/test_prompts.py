import dataclasses

import pytest

from bridge_jax.tasks.example import Example
from bridge_jax.teachers.prompts import messages

LABEL = Example("e1", "Is it?", "maybe", "label", ("yes", "no", "maybe"))
NUMBER = Example("e2", "How many?", "12", "numeric")


def test_the_gold_answer_is_shown_on_request_only():
    system, user = messages(NUMBER, show_gold=False, structured=False)
    assert user.content == "How many?"
    assert "12" not in system.content
    shown = messages(NUMBER, show_gold=True, structured=False)
    assert shown[0] == system
    assert shown[1].content.startswith("How many?\n\nThe answer is known: 12.")


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (LABEL, "exactly one of: yes, no, maybe."),
        (NUMBER, "one number in digits"),
        (
            Example("e3", "Which?", "b", "choice", ("a", "b")),
            "one of the options, word for word: a, b",
        ),
    ],
)
def test_the_form_of_the_answer_is_named(example, words):
    assert words in messages(example, False, False)[0].content


def test_a_decimal_comma_is_asked_for():
    said = [messages(dataclasses.replace(NUMBER, decimal=mark), False, False) for mark in ("", ",")]
    assert "comma" not in said[0][0].content
    assert "The comma is the decimal mark: 1,5 is one and a half." in said[1][0].content


def test_the_form_of_the_reply_follows_the_mode():
    text, json = (messages(LABEL, False, structured)[0].content for structured in (False, True))
    assert 'The last line is "Answer: "' in text
    assert "JSON" not in text
    assert '"rationale"' in json
    assert "Answer:" not in json
