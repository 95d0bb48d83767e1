import dataclasses

import pytest

from bridge_jax.ledger.requests import Failure, Message, Tally, TeacherReply, TeacherRequest, alike
from bridge_jax.teachers.protocol import TeacherError
from bridge_jax.text.markers import whole_characters

BASE = TeacherRequest("a", "m", (Message("system", "Be brief."), Message("user", "1 + 1?")), 64)


def test_key_is_stable():
    # Another key would pay every answer in existing ledgers again.
    assert BASE.key == "31000c0606d2a1c11f5c48f77631ae76f32461829cfe1f5063763215f842c337"


def test_the_example_does_not_identify_a_request():
    assert dataclasses.replace(BASE, example_id="b").key == BASE.key
    assert dataclasses.replace(BASE, temperature=0).key == BASE.key


@pytest.mark.parametrize(
    "change",
    [
        {"model": "n"},
        {"messages": BASE.messages[1:]},
        {"messages": (Message("user", "Be brief."), BASE.messages[1])},
        {"max_output_tokens": 65},
        {"temperature": 0.5},
        {"temperature": None},
        {"sample": 1},
        {"structured": True},
        {"server": "http://localhost:8000/v1"},
    ],
)
def test_everything_else_does(change):
    assert dataclasses.replace(BASE, **change).key != BASE.key


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain", "plain"),
        ("ü € 😀 \U0010ffff", "ü € 😀 \U0010ffff"),
        ("", ""),
        ("\ufeffx", "\ufeffx"),
        ("a\ud83d", "a\ufffd"),
        ("\ud83db", "\ufffdb"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("\ud83d\ud83d!", "\ufffd\ufffd!"),
        # Both halves, which JSON of a careless server may write apart, are the letter.
        ("\ud83d\ude00", "😀"),
    ],
)
def test_lone_surrogates_become_replacement_characters(text, expected):
    assert whole_characters(text) == expected
    assert TeacherReply(text, 1, 1).text == Message("user", text).content == expected
    assert str(TeacherError(text)) == expected


def test_answered_failed_and_refused_are_counted_apart():
    tally = Tally()
    tally.add(TeacherReply("4", 1, 1), 2)
    tally.add(TeacherReply("", 1, 1, "length"))
    tally.add(Failure("given up: 503"))
    tally.add(Failure("400: 8193 tokens are too many", "refused"), 2)
    tally.add(Failure("400: 9001 tokens are too many", "refused"))
    tally.add(Failure("not asked: budget", "not_asked"))
    assert tally.info() == {
        **{"answered": 2, "no_answer": 1, "failed": 1, "refused": 3, "not_asked": 1}
    }
    assert tally.replies == 3
    assert tally.failures() == (
        "1 no answer, 1 failed, 3 refused, 1 not asked; the most common reason (3x): "
        "400: 8193 tokens are too many"
    )


def test_nothing_is_said_where_all_is_answered():
    tally = Tally()
    assert (tally.info(), tally.failures()) == ({"answered": 0}, "")
    tally.add(TeacherReply("4", 1, 1))
    assert (tally.info(), tally.failures()) == ({"answered": 1}, "")


def test_reasons_that_differ_in_numbers_are_alike():
    assert alike("400: 8193 tokens in e17") == alike("400: 12 tokens in e5")
    assert alike("400: too long") != alike("400: too short")
