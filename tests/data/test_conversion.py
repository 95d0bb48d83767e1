"""Options in a column of their own: every reader sees them, and an answer names the right one."""

import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.answers import parse_answer
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError
from bridge_jax.teachers.prompts import messages as asked_of_teacher
from bridge_jax.text.prompts import messages as asked_of_model

LETTERED = "\nA) 1\nB) 2\nC) 4\nD) 3"


def load_rows(tmp_path, rows, **config):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    defaults = {"source": "jsonl", "kind": "choice", "pool": 0, "dev": 0, "test": 0}
    return load(DataConfig(path=str(path), **{**defaults, **config}), seed=0).pool


def one(tmp_path, choices, answer, question="How many?", **config):
    row = {"question": question, "answer": answer, "split": "train"}
    if choices is not None:
        row["choices"] = choices
    again = {**row, "question": f"Again: {question}", "split": "test"}
    return load_rows(tmp_path, [row, again], **config)[0]


def fault(tmp_path, *arguments, **config):
    with pytest.raises(UserError) as error:
        one(tmp_path, *arguments, **config)
    return str(error.value)


def test_every_reader_sees_the_options(tmp_path):
    example = one(tmp_path, ["1", "2", "4", "3"], "4")
    assert example.question == "How many?" + LETTERED
    for mode in ("reason", "answer", "explain"):
        assert LETTERED in asked_of_model(example, mode)[-1]["content"]
    for show_gold in (False, True):
        assert LETTERED in asked_of_teacher(example, show_gold, True)[-1].content
    assert parse_answer("C", example) == parse_answer("4", example) == "4"


def test_labels_of_a_row_are_shown_without_letters(tmp_path):
    example = one(tmp_path, ["positive", "negative"], "negative", "Nice?", kind="label")
    assert example.question == "Nice?\nOne of:\n- positive\n- negative"
    assert (example.choices, example.answer) == (("positive", "negative"), "negative")
    many = [f"intent {i}" for i in range(77)]
    example = one(tmp_path, many, "intent 76", "Ask?", kind="label")
    assert example.question.count("\n") == 78 and example.answer == "intent 76"
    assert "has 77 options, but there are only 26 letters" in fault(tmp_path, many, "intent 76")


@pytest.mark.parametrize("kind", ["choice", "label"])
def test_options_that_the_question_lists_are_not_listed_again(tmp_path, kind):
    question = "Which?\n(a) Old  one\n(b) new"
    example = one(tmp_path, ["old one", "new"], "new", question, kind=kind)
    assert (example.question, example.answer) == (question, "new")
    said = fault(tmp_path, ["new", "old one"], "new", question, kind=kind)
    assert "lists its options in a different order than its column" in said
    # What a stem lists beside is no option.
    stem = "Which is true?\nA) Snow is white.\nB) Snow is cold."
    example = one(tmp_path, ["only A", "A and B"], "A and B", stem, kind=kind)
    assert example.question.startswith(stem) and example.question.count("A and B") == 1


def test_an_option_is_one_line(tmp_path):
    example = one(tmp_path, ["two\nlines", "x"], "two\nlines")
    assert example.question == "How many?\nA) two lines\nB) x"
    assert example.answer == example.choices[0] == "two lines"


FOUR = ["1", "2", "4", "3"]


@pytest.mark.parametrize(
    ("choices", "answer", "answer_is", "gold"),
    [
        (FOUR, 2, "auto", "4"),
        (FOUR, 0, "auto", "1"),
        (FOUR, 2, "index", "4"),
        (FOUR, "2", "index", "4"),
        (FOUR, 2, "number", "2"),
        (FOUR, "4", "number", "3"),
        (FOUR, "2", "text", "2"),
        (FOUR, 2, "text", "2"),
        (FOUR, "C", "auto", "4"),
        (FOUR, "(d)", "letter", "3"),
        (FOUR, "B) 2", "auto", "2"),
        ([1, 2, 4, 3], "4", "text", "4"),
        ([1.5, 2.5], "2.5", "auto", "2.5"),
        (["red", "blue"], "0", "auto", "red"),
        (["red", "blue"], 1.0, "auto", "blue"),
        (["red", "blue"], 2, "number", "blue"),
        (["red", "blue"], "BLUE", "auto", "blue"),
        (["10", "20"], 20, "auto", "20"),
        (["0", "1"], "1", "auto", "1"),
        (["true", "false"], False, "auto", "false"),
        (["True", "False", "Unknown"], True, "auto", "True"),
        # Letters as texts, each in its own place.
        (["A", "B", "AB", "O"], "B", "auto", "B"),
        # With letters of their own, as in AQuA.
        (["A)21", "B)21.5", "C)22"], "B", "auto", "21.5"),
        (["(a) lead", "(b) gold"], "gold", "auto", "gold"),
        # Labels of their own, as in CommonsenseQA, ARC and MedQA.
        ({"label": ["A", "B"], "text": ["bank", "library"]}, "B", "auto", "library"),
        ({"label": ["1", "2", "3"], "text": ["air", "ice", "fog"]}, "3", "auto", "fog"),
        ({"label": [1, 2, 3], "text": ["air", "ice", "fog"]}, 3, "auto", "fog"),
        ([{"label": "A", "text": "bank"}, {"label": "B", "text": "bed"}], "A", "auto", "bank"),
        ({"B": "beta", "A": "alpha", "C": None}, "B", "auto", "beta"),
        ({"label": ["1", "2"], "text": ["2", "1"]}, "1", "letter", "2"),
        ({"label": ["1", "2"], "text": ["2", "1"]}, "1", "text", "1"),
        ({"label": ["X", "Y"], "text": ["left", "right"]}, 1, "auto", "right"),
    ],
)
def test_an_answer_names_its_option(tmp_path, choices, answer, answer_is, gold):
    example = one(tmp_path, choices, answer, answer_is=answer_is)
    assert example.answer == gold and gold in example.choices


def test_options_with_labels_are_shown_with_letters_in_their_order(tmp_path):
    example = one(tmp_path, {"B": "beta", "A": "alpha"}, "A")
    assert example.question == "How many?\nA) alpha\nB) beta"


@pytest.mark.parametrize(
    ("choices", "answer", "message"),
    [
        (FOUR, "2", "answer='2' is '2' by its text, '4' by its index: say which with "),
        ([1, 2, 4, 3], 2, "answer=2 is '2' by its text, '4' by its index: say which with "),
        ([1, 2, 4, 3], 2.0, "answer=2.0 is '2' by its text, '4' by its index: say which with "),
        (["red", "blue"], "1", "answer='1' is 'blue' by its index, 'red' by its number: say which"),
        (["B", "A"], "A", "answer='A' is 'A' by its text, 'B' by its letter: say which"),
        ({"label": ["1", "2"], "text": ["2", "1"]}, "1", "is '1' by its text, '2' by its letter"),
    ],
)
def test_what_can_be_read_in_two_ways_is_an_error(tmp_path, choices, answer, message):
    said = fault(tmp_path, choices, answer)
    assert message in said
    assert "data.answer_is=text or " in said or "data.answer_is=index or number" in said


@pytest.mark.parametrize(
    ("choices", "answer", "answer_is", "message"),
    [
        (["a b", "c d"], "B", "text", "answer='B' is none of the choices a b, c d by its text"),
        (["a b", "c d"], "a b", "index", "none of the choices a b, c d by its index"),
        (["a b", "c d"], 0, "number", "answer=0 is none of the choices a b, c d by its number"),
        (["a b", "c d"], 1, "letter", "answer=1 is none of the choices a b, c d by its letter"),
        (["a b", "c d"], -1, "auto", "answer=-1 is none of the choices a b, c d"),
        (["a b", "c d"], 1.5, "auto", "answer=1.5 is none of the choices a b, c d"),
        (["yes", "no"], True, "auto", "the boolean true, which is none of the choices yes, no"),
        (["a", "b", "a"], "b", "auto", "choices has the option 'a' twice"),
        (["a", "b", " a "], "b", "auto", "choices has the option 'a' twice"),
        (
            {"label": ["A", "A"], "text": ["a", "b"]},
            "A",
            "auto",
            "choices has the option 'A' twice",
        ),
        (["a", " "], "a", "auto", "choices[1] is empty"),
        (["a"], "a", "auto", "choices=['a'] is not two options or more"),
        ("a|b", "a", "auto", "choices='a|b' is not a list of texts or numbers"),
        (["a", ["b"]], "a", "auto", "is not a list of texts or numbers"),
        ([True, False], "True", "auto", "is not a list of texts or numbers"),
        (["a", float("nan")], "a", "auto", "is not a list of texts or numbers"),
        ({"label": ["A"], "text": ["a", "b"]}, "A", "auto", "is not two options or more"),
        ({"label": "A", "text": "a"}, "A", "auto", "is not a list of texts or numbers"),
        ([], "a", "auto", "has no choices: set data.choices, name their column"),
    ],
)
def test_options_and_answers_that_do_not_fit(tmp_path, choices, answer, answer_is, message):
    said = fault(tmp_path, choices, answer, answer_is=answer_is)
    assert "rows.jsonl, line 1: " in said and message in said


def test_an_index_of_options_in_the_question(tmp_path):
    question = "How many?" + LETTERED
    example = one(tmp_path, None, 2, question)
    assert (example.question, example.answer) == (question, "4")
    assert "say which with data.answer_is=text or index" in fault(tmp_path, None, "2", question)


def labels(tmp_path, answers, choices, **config):
    rows = [{"question": f"{i}?", "answer": x, "split": "train"} for i, x in enumerate(answers)]
    rows.append({"question": "Last?", "answer": answers[0], "split": "test"})
    pool = load_rows(tmp_path, rows, kind="label", choices=choices, **config)
    return [example.answer for example in pool]


def test_labels_of_the_task_are_said_as_they_are_or_counted(tmp_path):
    stars = ("1", "2", "3", "4", "5")
    assert labels(tmp_path, [1, 5, "3"], stars) == ["1", "5", "3"]
    assert labels(tmp_path, [1, 4, 0], stars, answer_is="index") == ["2", "5", "1"]
    assert labels(tmp_path, [0, 1, 1], ("bad", "good")) == ["bad", "good", "good"]
    assert labels(tmp_path, [1, 2, 2], ("bad", "good"), answer_is="number") == ["bad"] + 2 * [
        "good"
    ]
    assert labels(tmp_path, [True, False], ("true", "false")) == ["true", "false"]


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_numbers_are_read_in_one_way_in_a_whole_file(tmp_path, on_bad_row):
    with pytest.raises(UserError) as error:
        labels(tmp_path, [1, 5, 0], ("1", "2", "3", "4", "5"), on_bad_row=on_bad_row)
    assert "answer are the texts of options in some rows (line 1: answer=1) and indices in " in str(
        error.value
    )
    assert "others (line 3: answer=0): choose with data.answer_is=text" in str(error.value)


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_a_file_that_counts_from_one_is_found(tmp_path, on_bad_row):
    with pytest.raises(UserError) as error:
        labels(tmp_path, [1, 2, 3, 1], ("bad", "fair", "good"), on_bad_row=on_bad_row)
    assert "seem to count the options from 1: none is 0, and some are the number of options " in (
        str(error.value)
    )
    assert "(line 3: answer=3); set data.answer_is=number" in str(error.value)
    # One row too many does not make it so.
    assert labels(tmp_path, [1, 2, 3, 0], ("bad", "fair", "good"), on_bad_row="skip") == [
        *("fair", "good", "bad")
    ]


@pytest.mark.parametrize("kind", ["numeric", "text"])
def test_options_that_the_kind_does_not_read_are_an_error(tmp_path, kind):
    row = {"question": "How many?", "answer": 2, "choices": FOUR, "split": "train"}
    rows = [row, {**row, "question": "And now?", "split": "test"}]
    with pytest.raises(UserError, match=f"has options in choices, which data.kind={kind} does not"):
        load_rows(tmp_path, rows, kind=kind)
    (example,) = load_rows(tmp_path, rows, kind=kind, answer_is="text")
    assert (example.question, example.answer, example.choices) == ("How many?", "2", ())


def test_a_recorded_teacher_names_its_option_the_same_way(tmp_path):
    row = {"question": "?", "choices": FOUR, "answer": 2, "rationale": "So.", "split": "train"}
    rows = [
        {**row, "said": 3},
        {**row, "question": "??", "said": "58 - 6"},
        {**row, "question": "???", "split": "test"},
    ]
    first, second = load_rows(tmp_path, rows, columns={"teacher_answer": "said"})
    assert first.rationales == {"rationale": "So.\nAnswer: 3"}
    assert second.rationales == {"rationale": "So.\nAnswer: 58 - 6"}
