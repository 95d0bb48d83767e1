"""Instructions of a file or a dataset: what is read of a row, and what is refused."""

import json
import re
import sys

import pytest

from bridge_jax.config import InstructConfig, RunConfig
from bridge_jax.config.io import override
from bridge_jax.data.sources import Instruction, read_instructions
from bridge_jax.errors import UserError
from bridge_jax.methods.checks import validate

ROWS = [
    {"id": f"d{i}", "question": f"Name {i} {{things}}.", "answer": f"Thing {i}.\nAnd so on."}
    for i in range(20)
]


def config(tmp_path, rows, **settings):
    path = tmp_path / "instructions.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return InstructConfig(source="jsonl", path=str(path), **settings)


def test_rows_are_shuffled_by_the_seed_and_none_is_lost(tmp_path):
    found = read_instructions(config(tmp_path, ROWS), 3).rows
    expected = [Instruction(row["question"], row["answer"]) for row in ROWS]
    assert sorted(found) == sorted(expected) and list(found) != expected
    assert (
        read_instructions(config(tmp_path, ROWS), 3).rows
        == found
        != read_instructions(config(tmp_path, ROWS), 4).rows
    )


def test_rows_of_dev_and_test_are_not_read(tmp_path):
    splits = ["train", "dev", "test", None, "pool", "validation"]
    rows = [row | {"split": split} for row, split in zip(ROWS, splits)]
    # What is wrong with them is nothing to the warm-up.
    del rows[2]["answer"]
    found = read_instructions(config(tmp_path, rows), 0).rows
    assert {row.question for row in found} == {rows[i]["question"] for i in (0, 3, 4)}


def test_columns_are_mapped_and_the_context_is_part_of_the_question(tmp_path):
    rows = [
        {"instruction": "Sum up.", "input": "A long text.", "output": "Short."},
        {"instruction": "Say hello.", "input": "", "output": "Hello."},
        {"instruction": "Count.", "input": None, "output": 3},
    ]
    columns = {"question": "instruction", "context": "input", "answer": "output"}
    assert set(read_instructions(config(tmp_path, rows, columns=columns), 0).rows) == {
        ("Sum up.\n\nA long text.", "Short."),
        ("Say hello.", "Hello."),
        ("Count.", "3"),
    }


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"question": "Q"}, "has no key 'answer'"),
        ({"question": " ", "answer": "A"}, "question is empty"),
        (
            {"question": "Q", "answer": ["A"]},
            "answer=['A'] is of type list, not a text or a number",
        ),
        ({"question": "Q", "answer": "A", "context": {}}, "context={} is of type dict"),
        ('{"question": "Q"', "is not valid JSON"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(tmp_path, bad, message):
    rows = [ROWS[0], bad, ROWS[1]]
    with pytest.raises(UserError, match=re.escape(message)) as error:
        read_instructions(config(tmp_path, rows), 0)
    assert "instructions.jsonl, line 2" in str(error.value)
    assert "instruct.columns" in str(error.value) and "instruct.on_bad_row" in str(error.value)
    found = read_instructions(config(tmp_path, rows, on_bad_row="skip"), 0)
    assert (len(found.rows), len(found.bad.rows)) == (2, 1)


def test_a_source_without_a_row_to_train_on_says_what_it_has(tmp_path):
    rows = [ROWS[0] | {"split": "test_sft"}, {"question": "Q"}]
    message = (
        "no instructions of split train, 1 bad rows (1 x no key 'answer'), and rows of split "
        "test_sft; give some"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        read_instructions(config(tmp_path, rows, on_bad_row="skip"), 0)


def test_a_dataset(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "data"
    folder.mkdir()
    for name, rows in (("train", ROWS[:4]), ("test", ROWS[4:])):
        datasets.Dataset.from_list(rows).to_parquet(folder / f"{name}.parquet")
    found = read_instructions(InstructConfig(source="hf", path=str(folder)), 0)
    assert {row.question for row in found.rows} == {row["question"] for row in ROWS[:4]}
    (tmp_path / "rows.xyz").write_text("?")
    with pytest.raises(UserError, match=r"instruct\.path=.*rows\.xyz: datasets cannot load it"):
        read_instructions(InstructConfig(source="hf", path=str(tmp_path / "rows.xyz")), 0)


def test_a_dataset_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"instruct\.source=hf needs the datasets library"):
        read_instructions(InstructConfig(source="hf", path="someone/something"), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("source=jsonl", "instruct.path is empty, but instruct.source=jsonl reads from it"),
        ("source=hf", "instruct.path is empty, but instruct.source=hf reads from it"),
        ("source=jsonl path=gone.jsonl", "instruct.path=gone.jsonl: no such file"),
        ("path=a.jsonl", "instruct.path=a.jsonl: instruct.source=generated reads no file; set"),
        ("columns=answer:output", "instruct.source=generated reads no file"),
        (
            "source=hf path=x columns=anser:output",
            "instruct.columns=anser: choose one of question, answer, context, split",
        ),
        ("source=tsv", "instruct.source=tsv: choose one of generated, jsonl, csv, parquet, hf"),
    ],
)
def test_what_cannot_work_is_found_at_the_start(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        validate(override(RunConfig(), [f"instruct.{each}" for each in settings.split()]))
