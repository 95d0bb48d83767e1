"""Questions of JSON Lines and CSV: no answer and no split is needed, and no row is lost."""

import json

import pytest

from bridge_jax.errors import UserError
from bridge_jax.serving.answering import Questions
from bridge_jax.serving.models import QuestionsConfig


def write(tmp_path, rows, name="new.jsonl"):
    path = tmp_path / name
    text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_text(text)
    return str(path)


def read(path, gold=False, **settings):
    questions = Questions(QuestionsConfig(path, kind="numeric", **settings), gold)
    return questions, list(questions)


def test_rows_that_cannot_be_asked_keep_their_place(tmp_path):
    rows = [
        {"id": "a", "question": " One? ", "split": "none of ours", "answer": [3]},
        {"question": "Two?", "id": 7},
        {"question": ""},
        {"question": ["a"], "id": "d"},
        {"question": "Five?"},
    ]
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows) + "{cut\n")
    questions, found = read(path)
    assert questions.total == 6
    assert [each.number for each in found] == list(range(6))
    assert [each.place for each in found] == [f"line {n}" for n in range(1, 7)]
    assert [each.id for each in found] == ["a", "7", "", "d", "", ""]
    assert [each.example.question for each in found if each.example] == ["One?", "Two?", "Five?"]
    assert [each.error for each in found[:3]] == ["", "", "question is empty"]
    assert "of type list, not a text" in found[3].error
    assert "not valid JSON" in found[5].error
    assert list(questions) == found  # They can be read again.


def test_gold_answers_are_read_where_they_are_asked_for(tmp_path):
    rows = [{"question": "a?", "answer": "1,200 mg"}, {"question": "b?", "answer": "many"}]
    path = write(tmp_path, rows)
    assert [each.example.answer for each in read(path)[1]] == ["", ""]
    first, second = read(path, gold=True)[1]
    assert (first.example.answer, first.error) == ("1,200 mg", "")
    # It is asked all the same.
    assert second.example is not None and second.example.answer == ""
    assert "answer='many' is not a number" in second.error


def test_a_question_has_its_own_options_and_the_task(tmp_path):
    path = write(tmp_path, [{"q": "Which?", "options": ["red", "blue"]}])
    columns = {"question": "q", "choices": "options"}
    settings = QuestionsConfig(path, columns, instruction="Say a colour.", kind="choice")
    (found,) = Questions(settings, gold=False)
    assert found.example is not None
    assert found.example.question == "Which?\nA) red\nB) blue"
    assert found.example.choices == ("red", "blue")
    assert found.example.task.instruction == "Say a colour."
    assert found.example.id == "line 1" and found.id == ""


def test_csv(tmp_path):
    path = write(tmp_path, '\ufeffid,question\r\n1,"Two\r\nlines?"\r\n2,\r\n3,a,b\r\n', "new.csv")
    found = read(path)[1]
    assert [each.id for each in found] == ["1", "2", ""]
    assert found[0].example.question == "Two\r\nlines?"
    assert "question has no value" in found[1].error
    assert found[2].error


LABEL = {"kind": "label", "choices": ("billing", "login")}


@pytest.mark.parametrize(
    ("rows", "settings", "gold", "message"),
    [
        ([], {}, False, "the file has no rows"),
        ([{"text": "a"}] * 3, {}, False, "all 3 rows fail the same way: no key 'question'; .*map"),
        ([{"question": "a"}], {"kind": "label"}, False, "has no choices"),
        ([{"question": "a"}], {"columns": {"choices": "o"}}, False, "maps columns that no row has"),
        (
            [{"question": "a"}],
            LABEL | {"label_descriptions": {"bill": "x"}},
            False,
            "did you mean 'billing'",
        ),
        (
            [{"question": f"{n}?", "answer": n} for n in ("1", "2", "3")],
            {"kind": "label", "choices": ("1", "2", "3", "x"), "answer_is": "letter"},
            True,
            "none of the choices",
        ),
        ([{"question": "a"}], {"instruction": " "}, False, "is blank"),
    ],
)
def test_faults_of_a_whole_file_are_told_before_a_model_is_loaded(
    tmp_path, rows, settings, gold, message
):
    path = write(tmp_path, rows)
    with pytest.raises(UserError, match=message):
        Questions(QuestionsConfig(**{"path": path, "kind": "numeric"} | settings), gold)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "--data.path: pass the file"),
        ("no.jsonl", "no such file"),
        ("no.csv", "no such file"),
        ("a.xlsx", "does not end in .jsonl, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_files_that_cannot_be_read(path, message):
    with pytest.raises(UserError, match=message):
        Questions(QuestionsConfig(path), gold=False)
