"""Options and labels, by text or letter, under whatever stands around them."""

import dataclasses

import pytest

from bridge_jax.data.answers import parse_answer
from bridge_jax.data.example import Example
from bridge_jax.data.options import options_in

DRUGS = ("Aspirin", "Warfarin", "None, as heparin is given", "Vitamin K")
CHOICE = Example(
    id="c",
    question="Which?\n" + "\n".join(f"{a}) {text}" for a, text in zip("ABCD", DRUGS)),
    answer="Warfarin",
    kind="choice",
    choices=DRUGS,
)
LETTERS = dataclasses.replace(CHOICE, answer="B", kind="label", choices=tuple("ABCD"))
UNLISTED = dataclasses.replace(LETTERS, question="Which of the four?")
YES_NO = Example("y", "Is it?", "yes", "label", ("yes", "no", "not sure"))


@pytest.mark.parametrize(
    "text",
    [
        "B",
        "b",
        "(b)",
        "[B]",
        "{B}",
        '"B"',
        "“B”",
        "`B`",
        "*B*",
        "**B**",
        "__B__",
        "***B***",
        "**(B)**",
        "B.",
        "B)",
        "Ｂ",
        "B）",
        r"\text{B}",
        r"\textbf{B}",
        r"\boxed{B}",
        r"$\boxed{B}$",
        r"$\boxed{\text{B}}$",
        r"\(\boxed{\mathrm{(B)}}\)",
        "<answer>B</answer>",
        "Option B",
        "option (B)",
        "Answer: B",
        "Answer: **B**",
        "**Answer:** B",
        "Answer - B",
        "Answer：B",
        "answer: (b)",
        "Final answer: B.",
        "The answer is B",
        "The correct answer is: **B**.",
        "So the best choice is option B.",
        "B) Warfarin",
        "(B) Warfarin",
        "B - Warfarin",
        "B – Warfarin",
        "B: warfarin",
        "B. Warfarin",
        "B, Warfarin",
        "**B)** Warfarin",
        "**B - Warfarin**",
        "The answer is **B) Warfarin**.",
        "B) Warfarin, because it thins the blood",
        "B, because A is wrong",
        "B, I think",
        "B) because it thins the blood",
        "B. It thins the blood.",
    ],
)
@pytest.mark.parametrize("example", [CHOICE, LETTERS, UNLISTED], ids=["choice", "label", "bare"])
def test_a_letter_is_read_through_its_decorations(text, example):
    assert parse_answer(text, example) == example.answer


@pytest.mark.parametrize("text", ["Warfarin", "warfarin.", "Warfarin (B)", "The answer: Warfarin"])
@pytest.mark.parametrize("example", [CHOICE, LETTERS], ids=["choice", "label"])
def test_a_listed_text_is_read_too(text, example):
    assert parse_answer(text, example) == example.answer


@pytest.mark.parametrize(
    "text",
    [
        "A, B",
        "A, B, because both thin the blood",
        "A and B",
        "A or B",
        "A/B",
        "A & B",
        "A B",
        "AB",
        "A) or (B)",
        "(A), (B)",
        "A; B",
        "**A** **B**",
        r"\boxed{A} or \boxed{B}",
        "B or not B",
        "not B",
        "The answer is not B",
        "Option B or C",
        "E",
        "A man",
        "A. baumannii",
        "B+",
        "B-",
        "B's",
        "B-cell",
        "-",
        "**",
        r"\boxed{}",
    ],
)
@pytest.mark.parametrize("example", [CHOICE, LETTERS, UNLISTED], ids=["choice", "label", "bare"])
def test_two_readings_or_none_are_no_answer(text, example):
    assert parse_answer(text, example) is None


@pytest.mark.parametrize(
    "text",
    ["B) Aspirin", "B - Aspirin", "B) Aspirin, as it thins", "B: vitamin K", "Aspirin, Warfarin"],
)
@pytest.mark.parametrize("example", [CHOICE, LETTERS], ids=["choice", "label"])
def test_a_letter_must_not_contradict_its_text(text, example):
    assert parse_answer(text, example) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Final answer: yes", "yes"),
        ("ANSWER: yes", "yes"),
        ("Answer: **Yes**", "yes"),
        (r"$\boxed{\text{yes}}$", "yes"),
        ("Label: not sure", "not sure"),
        ("*not sure*", "not sure"),
        ("yes, as 18 > 17", "yes"),
        ("No. It was late.", "no"),
        ("yes (it was signed)", "yes"),
        ("no - it was not signed", "no"),
        ("yes, no", None),
        ("yes, or no", None),
        ("yes, but maybe not sure", None),
        ("yes (no doubt)", None),
        ("yes, (b) no", None),
        ('"yes" or "no"', None),
        ("yesterday", None),
        ("A", None),
    ],
)
def test_labels(text, label):
    assert parse_answer(text, YES_NO) == label


@pytest.mark.parametrize(
    ("labels", "text", "label"),
    [
        (("A+", "A-", "B+"), "A+", "A+"),
        (("A+", "A-", "B+"), "a-", "A-"),
        (("A+", "A-", "B+"), "**A-**", "A-"),
        (("A+", "A-", "B+"), "A", None),
        (("C", "C++", "C#"), "C++", "C++"),
        (("C", "C++", "C#"), "C", "C"),
        (("A*", "BFS"), "A*", "A*"),
        (("not_spam", "spam"), "**not_spam**", "not_spam"),
        (("not_spam", "spam"), "spam", "spam"),
        (("<5", "5 to 10", ">10"), ">10", ">10"),
        (("<5", "5 to 10", ">10"), "> 10", ">10"),
        (("<5", "5 to 10", ">10"), ">5", None),
        (("Option A", "Option B"), "option b", "Option B"),
        (("Option A", "Option B"), "Answer: Option B.", "Option B"),
        (("choice of law", "other"), "Choice of law", "choice of law"),
        (("-15", "15"), "\u221215", "-15"),
        (("-15", "15"), "-$15", "-15"),
        (("€15", "£20"), "$15", None),
        (("€15", "£20"), "15", "€15"),
        ((".5", "5"), ".5", ".5"),
        ((".5", "5"), "0.5", None),
        (("15", "16"), "15, 16", None),
        (("１５", "16"), "15", "１５"),
        (("heart failure", "heart failure, acute"), "heart failure, acute", "heart failure, acute"),
        (("heart failure", "heart failure, acute"), "heart failure; acute", "heart failure, acute"),
    ],
)
def test_labels_that_hold_punctuation_stay_apart(labels, text, label):
    assert parse_answer(text, Example("p", "Which?", labels[0], "label", labels)) == label


def test_options_need_letters_in_order():
    assert options_in("Who?\n(a) old\n(b) new") == ("old", "new")
    assert options_in("Who?\nA) old\nC) new") == ()
    assert options_in("I. e. nothing") == ()


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("A. baumannii grew.\nWhich drug?\nA) colistin\nB) ampicillin", ("colistin", "ampicillin")),
        ("A. baumannii grew.\nWhich drug?\nA. colistin\nB. ampicillin", ("colistin", "ampicillin")),
        ("A. baumannii grew,\nB. cereus did not.\nWhy?\n(a) heat\n(b) cold", ("heat", "cold")),
        ("A. baumannii grew.\nWhich drug helps?", ()),
        ("Facts:\nA) one\nB) two\nWhich?\nA) the first\nB) none", ("the first", "none")),
        ("Who?\nA) old\n  and grey\nB) new\n\nThink.", ("old", "new")),
        ("Who?\r\nA) old\r\nB) new\r\n", ("old", "new")),
        ("Who?\nA)   old  \n B) new", ("old", "new")),
    ],
)
def test_a_question_stem_is_no_option(question, options):
    assert options_in(question) == options


def test_a_reply_to_a_question_whose_stem_begins_with_a_letter():
    question = "A. baumannii grew.\nWhich drug?\nA) colistin\nB) ampicillin"
    example = Example("q", question, "colistin", "choice", options_in(question))
    assert parse_answer("A", example) == parse_answer("A) colistin", example) == "colistin"
