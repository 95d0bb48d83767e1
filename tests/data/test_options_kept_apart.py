"""Options that differ in one sign, and replies that name two: neither may become another answer."""

import unicodedata

import pytest

from bridge_jax.data.answers import answer_in_recorded_text, parse_answer
from bridge_jax.data.example import Example
from bridge_jax.data.options import options_in

DRUGS = ("Aspirin", "Warfarin", "Heparin")
NUMERIC = Example("1", "q", "5", "numeric")


def choice(*options):
    return Example("1", "q", options[0], "choice", options)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("2", ("√2", "√3", "4")),
        ("3", ("3!", "4!", "12")),
        ("p", ("¬p", "q", "p → q")),
        ("p ∨ q", ("p ∧ q", "p", "q")),
        ("f(x)", ("f'(x)", "g(x)")),
        ("f(x)", ("f", "g")),
        ("x", ("|x|", "y")),
        ("x/2", ("x^2", "y")),
        ("1^2", ("1/2", "3/4")),
        ("x y", ("x + y", "z")),
        ("x - 1", ("x", "1")),
        ("3 2", ("3:2", "2:3")),
        ("- 5", ("-5", "5")),
        ("- 5°", ("-5", "5")),
        ("x", ("-x", "y")),
    ],
)
def test_a_sign_that_has_a_meaning_is_kept(text, options):
    assert parse_answer(text, choice(*options)) is None
    for option in options:
        assert parse_answer(option, choice(*options)) == option


@pytest.mark.parametrize(
    ("text", "option"),
    [
        (r"$\sqrt{2}$", "√2"),
        ("p∨q", "p ∨ q"),
        ("(yes)", "yes"),
        ("'Well known' risk!", "well-known risk"),
        ("5 year survival", "5-year survival"),
        ("mg / kg", "mg/kg"),
        ("45", "45°"),
    ],
)
def test_ordinary_punctuation_is_not(text, option):
    assert parse_answer(text, choice(option, "else")) == option


@pytest.mark.parametrize(
    "text",
    [
        "B) Warfarin or C) Heparin",
        "B. Warfarin and C. Heparin",
        "B) Warfarin, C) Heparin",
        "B) Warfarin / C) Heparin",
        "B) Warfarin/Heparin",
        "B) Warfarin and Heparin",
        "B, or maybe C",
        "Warfarin, and also Heparin",
        "Warfarin, plus Heparin",
        "Warfarin, as well as Heparin",
        "Warfarin (Heparin)",
        "B) Warfarin, since it is oral. Or C",
    ],
)
def test_two_options_are_no_answer(text):
    assert parse_answer(text, choice(*DRUGS)) is None


@pytest.mark.parametrize(
    "text",
    [
        "B) Warfarin, since it thins the blood",
        "B) Warfarin, since Heparin is injected",
        "B, because C) is wrong",
        "Warfarin, which is a pill",
    ],
)
def test_a_reason_is_no_second_option(text):
    assert parse_answer(text, choice(*DRUGS)) == "Warfarin"


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes, I mean no", None),
        ("yes. Correction: no", None),
        ("Yes, actually no", None),
        ("yes; or rather no", None),
        ("yes, because no notice was given", "yes"),
    ],
)
def test_a_label_that_is_taken_back(text, label):
    assert parse_answer(text, Example("1", "q", "yes", "label", ("yes", "no"))) == label


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("word", ["über", "café"])
def test_accents_are_compared_however_they_are_composed(word, form):
    listed = unicodedata.normalize("NFD" if form == "NFC" else "NFC", word)
    said = unicodedata.normalize(form, word)
    assert parse_answer(said, Example("1", "q", listed, "label", (listed, "x"))) == listed


@pytest.mark.parametrize(
    ("text", "number"),
    [("(3) apples", None), ("(12) mg", None), ("Total: (3) apples", None), ("Loss: (3)", "-3")],
)
def test_brackets_before_words_are_no_minus(text, number):
    assert parse_answer(text, NUMERIC) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 12, not 5", "12"),
        ("The answer is 12 or 13", None),
        ("The answer is not 5", None),
        (r"\boxed{12}, not \boxed{13}", "12"),
        (r"\boxed{12} or \boxed{13}", None),
        ("The answer is 5\nNote: see [3]", "5"),
        ("The answer is 5.\nWait, it is 6.", None),
        ("The wrong answer is 5.", None),
        ("The answer is 4.\nThe answer is 12 or 13.", None),
        (r"It is \boxed{2}. The answer is: $\boxed", "2"),
        ("He has 3 - 1 = 2 left.", "2"),
    ],
)
def test_an_announced_answer_is_read_or_none_is(text, number):
    assert answer_in_recorded_text(text, NUMERIC)[1] == number


def test_a_wrong_answer_is_not_the_answer():
    assert answer_in_recorded_text("The wrong answer is A.", choice(*DRUGS))[1] is None
    assert answer_in_recorded_text("The answer is A, not B.", choice(*DRUGS))[1] == "Aspirin"


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("A) 1\nC) 2\nB) 3", ()),
        ("A) 1\nB) 2\nD) 3", ()),
        ("A) 1\nB) 2\nB) 3", ()),
        ("A) 1\nC) 2\nWhich?\nA) 3\nB) 4", ("3", "4")),
        ("Q: what?\nA: x\nB: y", ()),
        ("A: Hello.\nB: Hi.\nA: Bye.\nB: Bye.", ()),
        ("Which?\nA: x\nB: y", ("x", "y")),
    ],
)
def test_lists_with_letters_out_of_order_and_dialogues_are_no_options(question, options):
    assert options_in(question) == options


def test_two_options_a_megabyte_apart():
    text = "Warfarin, " + "which is a pill, " * 60_000
    assert parse_answer(text, choice(*DRUGS)) == "Warfarin"
    assert parse_answer(text + "Heparin", choice(*DRUGS)) is None
    assert parse_answer("B) " + "as " * 300_000, choice(*DRUGS)) == "Warfarin"
