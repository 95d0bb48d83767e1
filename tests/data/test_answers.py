import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge_jax.data import answers
from bridge_jax.data.example import Example

NUMERIC = Example(id="n", question="How many mL?", answer="12", kind="numeric")
CHOICE = Example(
    id="c",
    question="Which?\nA) Yes, always\nB) no\nC) well-known risk",
    answer="no",
    kind="choice",
    choices=("Yes, always", "no", "well-known risk"),
)
AMOUNTS = Example(
    id="a", question="?", answer="15", kind="choice", choices=("1.5", "15", "-15", "1,500")
)
LABEL = Example(id="l", question="?", answer="late", kind="label", choices=("on time", "late"))
MAYBE = Example(
    id="m",
    question="Is it?\nA) yes\nB) no\nC) maybe",
    answer="maybe",
    kind="label",
    choices=("yes", "no", "maybe"),
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("5 x 2 = 10.\nAnswer: 10", ("5 x 2 = 10.", "10")),
        ("Answer: 10 mL \nand more", ("", "10 mL")),
        ("Answer: 3? No.\nAnswer: 4", ("Answer: 3? No.", "4")),
        ("It is 10.", ("It is 10.", None)),
        ("It is 10.\nAnswer:", ("It is 10.", "")),
        ("", ("", None)),
    ],
)
def test_split_completion(text, parts):
    assert answers.split_completion(text) == parts


def test_format_completion_puts_the_line_break_in_the_answer_part():
    assert answers.format_completion(" 2 x 5 = 10. ", "10") == ("2 x 5 = 10.", "\nAnswer: 10")
    assert answers.format_completion("  ", "10") == ("", "Answer: 10")


@given(st.text(), st.text(st.characters(categories=("L", "N", "P")), min_size=1))
def test_formatted_completions_parse_back(rationale, answer):
    if answers.ANSWER_MARK in answer:
        return
    joined = "".join(answers.format_completion(rationale, answer))
    assert answers.split_completion(joined) == (rationale.strip(), answer)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("It is so.\n**Answer:** 12", ("It is so.", "12")),
        ("It is so.\n\n**Answer: 12**", ("It is so.", "12")),
        ("It is so.\n**Answer**: 12", ("It is so.", "12")),
        ("It is so.\n__Answer__: 12", ("It is so.", "12")),
        ("It is so.\n* **Answer:** 12 mL", ("It is so.", "12 mL")),
        ("It is so.\n> **Final answer:** **12**", ("It is so.", "**12**")),
        ("It is so. **Answer:** 12", ("It is so.", "12")),
        ("It is so. The final Answer: 12", ("It is so.", "12")),
        ("It is so.\nFinal answer: yes", ("It is so.", "yes")),
        ("It is so.\nANSWER: yes", ("It is so.", "yes")),
        ("It is so.\nanswer: (b)", ("It is so.", "(b)")),
        ("It is so.\nAnswer：B", ("It is so.", "B")),
        ("It is so.\nAnswer - B", ("It is so.", "B")),
        ("It is so.\nSo, the correct answer = B", ("It is so.", "B")),
        ("It is so.\n### Answer\n\nB", ("It is so.", "B")),
        ("It is so.\n**Final Answer**\nB", ("It is so.", "B")),
        ("It is so.\nAnswer:\n$$\n12\n$$", ("It is so.", "12")),
        ("It is so.\n<answer>\n12\n</answer>", ("It is so.", "12")),
        ("It is so.\n<answer>12</answer>", ("It is so.", "12")),
        ("Answer: 11\nNo.\nFinal answer: 12", ("Answer: 11\nNo.", "12")),
        # No marks: inside of a sentence, in other words, and a dash that is a sign.
        ("The best answer: we cannot say", ("", "we cannot say")),
        ("So we answer: it is 12", ("So we answer: it is 12", None)),
        ("Answers: 12", ("Answers: 12", None)),
        ("Answer -12", ("Answer -12", None)),
    ],
)
def test_marks_as_other_models_write_them_leave_a_clean_rationale(text, parts):
    assert answers.split_completion(text) == parts


def test_what_follows_the_answer_is_kept_apart():
    assert answers.cut_completion("So.\n**Answer:** 12\nBye.\n") == ("So.", "12", "Bye.")
    assert answers.cut_completion("So.") == ("So.", None, "")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("12", "12"),
        ("12 mL", "12"),
        ("12mL.", "12"),
        ("$1,200.00", "1200"),
        ("-$3.50", "-3.5"),
        ("$-3.50", "-3.5"),
        ("\u22127", "-7"),
        (".5", "0.5"),
        ("0.50", "0.5"),
        ("-0", "0"),
        ("100", "100"),
        ("45%", "45"),
        ("May 14", "14"),
        ("the dose is 12 mL", "12"),
        ("12 mL every 8 hours", "12"),
        ("12 x 5", None),
        ("60 / 5 = 12", None),
        ("12-15 mL", None),
        ("12 to 15", None),
        ("one of 3 or 4", None),
        ("twelve", None),
        ("B12", None),
        ("", None),
        (None, None),
    ],
)
def test_parse_numeric(text, canonical):
    assert answers.parse_answer(text, NUMERIC) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("B", "no"),
        ("b", "no"),
        ("(b)", "no"),
        ("B.", "no"),
        ("B) no", "no"),
        ("B: No.", "no"),
        ("NO", "no"),
        ("yes always", "Yes, always"),
        ("Well known risk!", "well-known risk"),
        ("B) Yes, always", None),
        ("A, B", None),
        ("D", None),
        ("A man", None),
        ("perhaps", None),
    ],
)
def test_parse_choice(text, canonical):
    assert answers.parse_answer(text, CHOICE) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("15", "15"), ("1.5", "1.5"), ("$15.", "15"), ("-15", "-15"), ("1500", "1,500"), ("C", "-15")],
)
def test_options_that_are_amounts_stay_apart(text, canonical):
    assert answers.parse_answer(text, AMOUNTS) == canonical


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("late", "late"),
        ("Late.", "late"),
        ('"On time"', "on time"),
        ("late, as 18 > 17", "late"),
        ("not late", None),
        ("later", None),
        ("A", None),
    ],
)
def test_parse_label(text, canonical):
    assert answers.parse_answer(text, LABEL) == canonical


def test_a_letter_names_a_label_only_where_the_question_lists_options():
    assert answers.parse_answer("C", MAYBE) == "maybe"
    assert answers.parse_answer("C) no", MAYBE) is None


@pytest.mark.parametrize(
    ("gold", "predicted", "right"),
    [
        ("12", "12", True),
        ("12", "12.0", True),
        ("12", "12.4", False),
        ("12", "-12", False),
        ("20000", "20001", False),
        ("2.5", "2.54", False),
        ("2.5", "2.5", True),
        ("22.22", "22.2249", True),
        ("22.22", "22.226", False),
        ("-22.22", "-22.2222", True),
        ("$1,000", "1000", True),
        ("12", None, False),
        ("12", "late", False),
    ],
)
def test_numeric_is_correct(gold, predicted, right):
    example = Example(id="n", question="?", answer=gold, kind="numeric")
    assert answers.is_correct(predicted, example) is right


def test_choice_is_correct_by_option_even_if_gold_is_a_letter():
    lettered = Example(id="c", question="?", answer="B", kind="choice", choices=CHOICE.choices)
    assert answers.is_correct("no", lettered)
    assert not answers.is_correct("Yes, always", lettered)


def test_answer_of_reads_the_completion():
    assert answers.answer_of("The notice came late.\nAnswer: on time", LABEL) == "on time"
    assert answers.answer_of("late", LABEL) is None


@pytest.mark.parametrize(
    ("example", "text", "expected"),
    [
        (
            MAYBE,
            'So the answer is "A) yes".\n\nTherefore, among A through C, the answer is A.',
            ('So the answer is "A) yes".', "yes"),
        ),
        (
            MAYBE,
            "Unclear. Therefore, among A through C, the answer is C, maybe.",
            ("Unclear.", "maybe"),
        ),
        (
            MAYBE,
            "We cannot say. The answer is not known.",
            ("We cannot say. The answer is not known.", None),
        ),
        (
            CHOICE,
            "It fits.\nThe most accurate statement is:\n\n\\boxed{B}",
            ("It fits.\nThe most accurate statement is:", "no"),
        ),
        (
            CHOICE,
            "Of the above choices, only B fits.",
            ("Of the above choices, only B fits.", None),
        ),
        (NUMERIC, "We get 3 + 9 = 12.\n#### 12", ("We get 3 + 9 = 12.", "12")),
        (
            NUMERIC,
            "Derivation: 44.1-56.7. The answer is -12.6 million.",
            ("Derivation: 44.1-56.7.", "-12.6"),
        ),
        (NUMERIC, "So:\n\\[\n\\boxed{\\$1,200}\n\\]", ("So:", "1200")),
        (
            NUMERIC,
            "The answer is 5 each, so in all 5 x 3 = 15.",
            ("The answer is 5 each, so in all 5 x 3 = 15.", "15"),
        ),
        (NUMERIC, "He has 3 - 13 = -10 left.", ("He has 3 - 13 = -10 left.", "-10")),
        (NUMERIC, "Three plus nine.\nAnswer: 12", ("Three plus nine.", "12")),
        (NUMERIC, "No idea.", ("No idea.", None)),
        (NUMERIC, "We add.\n**Answer:** 12", ("We add.", "12")),
        (NUMERIC, "We add.\nFinal answer: \u221212 mL", ("We add.", "-12")),
        (CHOICE, "It fits.\n\n**Answer: B) no**", ("It fits.", "no")),
        (CHOICE, "It fits.\n\n**Answer:** A, B", ("It fits.", None)),
        (
            MAYBE,
            "It fits.\n### Final Answer\nThe rest is:\n\\[ \\boxed{C} \\]",
            ("It fits.", "maybe"),
        ),
        (NUMERIC, "So $\\boxed{\\frac{1}{2}}$.", ("", "0.5")),
        (NUMERIC, "Nested. So $\\boxed{\\text{\\textbf{12}} \\text{ mL}}$.", ("Nested.", "12")),
        (NUMERIC, "Add. The answer to the first question is 12.", ("Add.", "12")),
        (NUMERIC, "It is \\boxed{12", ("It is \\boxed{12", "12")),
        (NUMERIC, "Answer: see above.", ("", None)),
    ],
)
def test_answer_in_recorded_text(example, text, expected):
    assert answers.answer_in_recorded_text(text, example) == expected
