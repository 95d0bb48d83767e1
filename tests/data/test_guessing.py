"""What a file tells about itself is guessed and said; what it does not tell is asked for."""

import csv
import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.guessing import guess
from bridge_jax.errors import UserError

WORDS = "How do I get from the station to the harbor"


def guessed(tmp_path, header, rows, name="rows.csv", **given):
    path = tmp_path / name
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return guess(DataConfig(path=str(path), **given), given)


def test_labels_are_the_answers_that_many_rows_have(tmp_path):
    teams = ["Billing"] * 60 + ["billing"] * 3 + ["Returns"] * 50 + ["bililng", "?"]
    rows = [(f"T{i}", f"{WORDS} {i}?", team, "n/a") for i, team in enumerate(teams)]
    found = guessed(tmp_path, ("ticket", "body of it", "team", "note"), rows)
    assert found.config.source == "csv" and found.config.kind == "label"
    assert found.config.columns == {"question": "body of it", "answer": "team"}
    assert found.config.choices == ("Billing", "Returns")
    assert list(found.said) == [
        "data.source=csv, from the name of the file",
        "data.columns=question:body of it,answer:team, from their names and values",
        "data.kind=label, as team is one of 2: Billing, Returns",
        "not taken for labels, since few rows have them: bililng, ?",
    ]


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([str(i * 7) for i in range(120)], "numeric"),
        ([f"{i} boxes" for i in range(120)], "numeric"),
        ([f"{WORDS} and {'x' * i}" for i in range(120)], "text"),
        ([f"It took {i} days to get there" for i in range(120)], "text"),
        (["yes", "no"] * 60, "label"),
        (["1", "2", "3", "4", "5"] * 24, "label"),  # Stars.
        (["yes", "no"] * 3, "label"),
        (["yes", "no", "maybe"], "text"),  # Too few to tell.
    ],
)
def test_the_kind_follows_from_the_answers(tmp_path, answers, kind):
    rows = [(f"{WORDS} {i}?", answer) for i, answer in enumerate(answers)]
    found = guessed(tmp_path, ("question", "answer"), rows)
    assert found.config.kind == kind and found.config.columns == {}
    assert any(f"data.kind={kind}" in said for said in found.said)


def test_without_answers_the_teachers_are_the_labels(tmp_path):
    rows = [(f"{WORDS} {i}?", "") for i in range(20)]
    found = guessed(tmp_path, ("question", "note"), rows, choices=("a", "b"))
    assert (found.config.kind, found.config.labelled) == ("label", False)
    assert any("data.labelled=false: no row has an answer" in said for said in found.said)
    with pytest.raises(UserError, match="no column clearly holds the answers"):
        guessed(tmp_path, ("question", "note"), rows)


def test_known_names_are_mapped_where_their_values_allow_it(tmp_path):
    rows = [(i, "train" if i else "test", f"{WORDS} {i}?", str(i * 3), "x") for i in range(60)]
    found = guessed(tmp_path, ("uid", "subset", "prompt", "target", "set"), rows)
    assert found.config.columns == {
        "question": "prompt", "answer": "target", "split": "subset", "id": "uid"
    }  # fmt: skip
    rows = [(7, "a", *row[2:]) for row in rows]
    found = guessed(tmp_path, ("uid", "subset", "prompt", "target", "set"), rows)
    assert found.config.columns == {"question": "prompt", "answer": "target"}


def test_what_is_given_is_not_guessed(tmp_path):
    rows = [(f"{WORDS} {i}?", ["yes", "no"][i % 2]) for i in range(20)]
    given = {"kind": "text", "columns": {"question": "a", "answer": "b"}, "source": "csv"}
    found = guessed(tmp_path, ("a", "b"), rows, name="rows", **given)
    assert (found.config.kind, found.config.choices, found.said) == ("text", (), ())
    found = guessed(tmp_path, ("a", "b"), rows, columns={"question": "a"})
    assert found.config.columns == {"question": "a", "answer": "b"}
    found = guessed(tmp_path, ("text", "label"), rows, choices=("yes", "no", "maybe"))
    assert (found.config.kind, found.config.choices) == ("label", ("yes", "no", "maybe"))


def test_options_of_a_row_make_a_choice(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"{WORDS}?", "choices": ["a", "b"], "answer": "a"} for _ in range(9)]
    path.write_text("\n".join(map(json.dumps, rows)))
    found = guess(DataConfig(path=str(path)))
    assert (found.config.source, found.config.kind, found.config.choices) == ("jsonl", "choice", ())


@pytest.mark.parametrize(
    ("columns", "name", "said"),
    [
        (
            ("text", "input"),
            "rows.csv",
            r"no column clearly holds the answers; .* text, inp",
        ),
        (("text", "team"), "rows.dat", r"its name does not show its format; .*--data\.source=csv"),
    ],
)
def test_what_is_not_clear_is_asked_for(tmp_path, columns, name, said):
    rows = [(f"{WORDS} {i}?", f"{WORDS} {i}!") for i in range(20)]
    with pytest.raises(UserError, match=said):
        guessed(tmp_path, columns, rows, name=name)


def test_the_number_of_labels_of_a_file_of_many_answers_is_bounded(tmp_path):
    rows = [(f"{WORDS} {i}?", f"city {i % 60}") for i in range(600)]
    assert guessed(tmp_path, ("question", "answer"), rows).config.kind != "label"
