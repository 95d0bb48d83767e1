"""All bad rows in one start: the cause first, ten of them, and how many have which fault."""

import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.rows import BadRowsError, names
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError


def row(name, split="train", **extra):
    base = {"id": name, "question": f"What is {name}?", "answer": "12", "split": split}
    return {**base, **extra}


GOOD = [row("a"), row("b", "dev"), row("c", "test")]


def read(tmp_path, rows, **config):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in rows))
    defaults = {"source": "jsonl", "pool": 0, "dev": 0, "test": 0}
    return load(DataConfig(path=str(path), **{**defaults, **config}), seed=0)


def lines_of(tmp_path, rows, **config):
    with pytest.raises(BadRowsError) as error:
        read(tmp_path, rows, **config)
    return str(error.value).replace(f"{tmp_path}/", "").split("\n"), error.value.bad


def test_all_bad_rows_are_found_in_one_start(tmp_path):
    many = [row(f"x{i}", answer="no" * i) for i in range(1, 10)]
    more = [row("a"), row("y", "holdout"), '{"id": ', "", row("z", answer="none")]
    said, bad = lines_of(tmp_path, [*GOOD, *many, *GOOD, *(row(f"g{i}") for i in range(9)), *more])
    assert said == [
        "rows.jsonl: 16 of 28 rows are bad:",
        *(f"  rows.jsonl, line {i + 3}: answer='{'no' * i}' is not a number" for i in range(1, 10)),
        "  rows.jsonl, line 13: id 'a' was used before (rows.jsonl, line 1)",
        "  and 6 more",
        "by reason: 10 x answer is not a number, 4 x id was used before, "
        "1 x split is not train, dev or test, 1 x is not valid JSON",
        "fix them, or leave them out with data.on_bad_row=skip",
    ]
    assert len(bad.rows) == 16
    assert bad.rows[-1]._asdict() == {
        "file": f"{tmp_path}/rows.jsonl",
        "row": "line 29",
        "reason": "answer='none' is not a number",
    }


def test_skipped_rows_are_counted_by_reason(tmp_path):
    bad_rows = [row("x", answer="?"), row("a"), row("y", answer="??")]
    splits = read(tmp_path, [*GOOD, *bad_rows], on_bad_row="skip")
    assert (splits.bad.total, len(splits.pool), splits.bad.cause) == (6, 1, "")
    assert splits.bad.counts() == "2 x answer is not a number, 1 x id was used before"


ALIKE = [
    (
        [{"id": i, "prompt": f"{i}?", "gold": "1", "split": "train"} for i in range(3)],
        {},
        "all 3 rows fail the same way: no key 'question', 'answer'; the columns are id, prompt, "
        "gold, split: map them with data.columns=question:prompt,answer:gold",
    ),
    (
        [{"a": 1, "question": "?", "answer": "1"}] * 2,
        {"columns": {"id": "uid", "split": "part"}},
        "all 2 rows fail the same way: no key 'part', 'uid'; the columns are a, question, answer: "
        "map them with data.columns=split:COLUMN,id:COLUMN, or give each row split=train, dev or "
        "test",
    ),
    (
        [row(i, f"part {i % 2}") for i in range(2)],
        {},
        "all 2 rows fail the same way: split is not train, dev or test; map your splits, as in "
        "data.splits=part 0:train; others are left out",
    ),
    (
        [*GOOD[:1], *(row(f"x{i}", answer="yes") for i in range(3))],
        {},
        "3 of 4 rows fail the same way: answer is not a number; data.kind=numeric reads numbers "
        "only: set data.kind=choice, label or text",
    ),
    (
        [row(i, answer="maybe") for i in range(2)],
        {"kind": "label", "choices": ("yes", "no")},
        "all 2 rows fail the same way: answer is none of the choices; data.choices must list all",
    ),
    (
        [row(i) for i in range(2)],
        {"kind": "choice"},
        "all 2 rows fail the same way: has no choices; set data.choices, or name their column with "
        "data.columns=choices:COLUMN",
    ),
]


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize(("rows", "config", "cause"), ALIKE)
def test_the_cause_comes_first_when_most_rows_fail_alike(tmp_path, rows, config, cause, on_bad_row):
    said, _ = lines_of(tmp_path, rows, on_bad_row=on_bad_row, **config)
    start = "rows.jsonl: " if on_bad_row == "error" else "rows.jsonl: no examples for "
    assert said[0].startswith(start) and cause in said[0]
    assert not any("give some rows" in line or "on_bad_row" in line for line in said)


def test_an_optional_column_that_no_row_has_is_an_error(tmp_path):
    with pytest.raises(UserError) as error:
        read(tmp_path, GOOD, columns={"choices": "optoins"}, on_bad_row="skip")
    assert "data.columns=choices:optoins maps columns that no row has; the columns are id," in str(
        error.value
    )
    rows = [*GOOD, row("d", part="x")]
    assert read(tmp_path, rows, columns={"domain": "part"}).pool[1].domain == "x"


def test_a_split_whose_rows_are_all_bad_is_not_called_missing(tmp_path):
    rows = [row("a"), row("b"), row("c", "test", answer="?")]
    said, _ = lines_of(tmp_path, rows, on_bad_row="skip")
    assert said[0] == "rows.jsonl: no examples for test: 1 of 3 rows are bad:"
    assert "give some rows" not in "\n".join(said)


def test_a_split_that_no_row_has_is_called_missing(tmp_path):
    rows = [row("a"), row("b", "val"), row("c", answer="?")]
    said, _ = lines_of(tmp_path, rows, on_bad_row="skip")
    assert said == [
        "rows.jsonl: no examples for test; the splits are train (2), val (1) (bad rows were "
        "skipped: 1 x answer is not a number): give some rows split=test, or map one with "
        "data.splits=NAME:test"
    ]


def test_long_values_and_many_names_are_cut(tmp_path):
    said, _ = lines_of(tmp_path, [*GOOD, *GOOD[:1], row("x", answer="long " * 100_000)])
    assert max(map(len, said)) < 200
    wide = {f"column {i}": i for i in range(500)}
    said, _ = lines_of(tmp_path, [wide])
    assert "column 19 and 480 more" in said[0] and len(said[0]) < 600
    assert names(["a b", "\x1b[2J", "x" * 500]).startswith("a b, '\\x1b[2J', 'xxx")
