"""Long texts that are made to be slow. Read naively, each takes minutes to years."""

import dataclasses

import pytest

from bridge_jax.data.answers import (
    answer_in_recorded_text,
    answer_of,
    is_correct,
    parse_answer,
    split_completion,
)
from bridge_jax.data.example import Example
from bridge_jax.data.options import options_in

LONG = 200_000
NUMERIC = Example(id="n", question="How much?", answer="12", kind="numeric")
CHOICE = Example("c", "Which?\nA) yes\nB) no", "yes", "choice", ("yes", "no"))
LETTERS = Example("l", CHOICE.question, "A", "label", ("A", "B"))


def much(text):
    return text * (LONG // len(text))


@pytest.mark.parametrize(
    "text",
    [
        "So the answer to" + much(" ") + ".",
        much("So the answer to "),
        much("the answer is "),
        much("#### x\n"),
        much("\\boxed{"),
        "\\boxed" + "{" * (LONG // 2) + "}" * (LONG // 2),
        much("**Answer"),
        "Answer:" + much("\n$$"),
        much("so the final ") + "answer",
        much("\\frac{1}"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_chains_without_an_answer(text):
    assert answer_in_recorded_text(text, CHOICE)[1] is None


@pytest.mark.parametrize(
    "text",
    [
        "A" * LONG,
        much("A & "),
        much("B - "),
        "A" + much(" ") + "x",
        much("("),
        "no" + much(" or"),
    ],
    ids=lambda text: repr(text[:20]),
)
@pytest.mark.parametrize("example", [CHOICE, LETTERS], ids=["choice", "label"])
def test_texts_that_name_no_option(text, example):
    assert parse_answer(text, example) is None


@pytest.mark.parametrize("text", [much("B. "), much("B) "), much("no, "), much("no (")])
def test_one_option_named_again_and_again(text):
    assert parse_answer(text, CHOICE) == "no"


def test_a_thousand_letters():
    assert parse_answer("A. " * 1000, CHOICE) == "yes"
    assert parse_answer("A" * 1000, CHOICE) is None
    assert parse_answer("A, B, " * 1000, LETTERS) is None


@pytest.mark.parametrize(
    "text",
    [
        much("9"),
        "0." + much("3"),
        "1e" + much("9"),
        much("1,"),
        much("1 "),
        much("1 1/"),
        much("1e"),
        much("("),
        much("(1"),
        much("-"),
        much("½"),
        much("٣"),
        "12" + much(" mL 5"),
        "12 = " + much(" ") + "!",
        much("minus ") + "12",
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_number(text):
    assert parse_answer(text, NUMERIC) is None
    assert not is_correct("12", dataclasses.replace(NUMERIC, answer=text))


def test_long_numbers_are_read_up_to_a_thousand_digits():
    assert parse_answer("9" * 1000, NUMERIC) == "9" * 1000
    assert parse_answer("9" * 1001, NUMERIC) is None
    assert parse_answer("1e999", NUMERIC) == "1" + "0" * 999
    assert parse_answer("1e1000", NUMERIC) is None
    assert parse_answer("1e-999", NUMERIC) == "0." + "0" * 998 + "1"
    assert parse_answer("1e-1000", NUMERIC) is None
    assert parse_answer("0." + "3" * 999, NUMERIC) == "0." + "3" * 999


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("\n" * LONG, ()),
        ("A) x" + " " * LONG + "x\nB) y", ("x" + " " * LONG + "x", "y")),
        (much("A) x\n"), ()),
        (much("A) x\nB) y\n"), ("x", "y")),
        ("A)" + " " * LONG, ()),
        (" " * LONG + "A) x\nB) y", ("x", "y")),
        (much("(a"), ()),
    ],
    ids=range(7),
)
def test_options_of_long_questions(question, options):
    assert options_in(question) == options


def test_an_answer_after_a_long_chain_is_read():
    chain = much("So the answer to this is not known. ")
    assert answer_of(f"{chain}\nAnswer: 12", NUMERIC) == "12"
    assert split_completion(f"{chain}\n**Answer:** B") == (chain.strip(), "B")
    assert answer_in_recorded_text(f"{chain}\n#### 12", NUMERIC) == (chain.strip(), "12")
    boxed = f"{chain}\nSo it is $\\boxed{{12}}$."
    assert answer_in_recorded_text(boxed, NUMERIC) == (chain.strip(), "12")
