"""CSV as spreadsheets and databases write it, and Parquet: the same rows, and faults by place."""

import csv
import datetime
import io

import pytest

from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.data.formats import read_file
from bridge_jax.data.sources import load, read_instructions
from bridge_jax.errors import UserError

COLUMNS = ("id", "text", "team", "split")
ROWS = [
    ("1", 'My "new" lamp, the blue one; it\tflickers', "technical", "train"),
    ("2", "Grüß Gott,\nwhere is it?\n\n你好 👋", "delivery", "dev"),
    ("3", "007", "billing", "test"),
]


def rows_of(tmp_path, content, name="rows.csv", source="csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_file(source, str(path), "data.path"))


def written(delimiter=",", **how):
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, **how).writerows([COLUMNS, *ROWS])
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"},
        {"quoting": csv.QUOTE_ALL, "lineterminator": "\r"},
    ],
)
def test_every_dialect_gives_the_same_rows(tmp_path, delimiter, how):
    for text in (written(delimiter, **how), "\ufeff" + written(delimiter, **how)):
        found = rows_of(tmp_path, text)
        assert [tuple(row.value.values()) for row in found] == ROWS
        assert [row.place for row in found] == ["line 2", "line 3", "line 7"]
        assert tuple(found[0].value) == COLUMNS


def test_the_separator_is_the_one_that_the_rows_agree_on(tmp_path):
    text = "id;a, b, or c;team\n1;one, two;x\n2;three;y\n3;four, five, six;z\n"
    assert rows_of(tmp_path, text)[2].value == {"id": "3", "a, b, or c": "four, five, six",
                                                "team": "z"}  # fmt: skip
    (alone,) = rows_of(tmp_path, "text\nNothing else; really\n")
    assert alone.value == {"text": "Nothing else; really"}


def test_empty_cells_are_no_value_and_blank_lines_no_rows(tmp_path):
    found = rows_of(tmp_path, "id,text,team\n\n1, two words ,\n , ,\n2,,x\n")
    assert [row.value for row in found] == [
        {"id": "1", "text": "two words", "team": None},
        {"id": "2", "text": None, "team": "x"},
    ]
    assert [row.place for row in found] == ["line 3", "line 5"]


def test_faults_of_rows_are_told_one_by_one(tmp_path):
    lines = [b"id,text,team", b"1,a,x", b"2,b,x,,", b"3,c", b'4,"d" e,x', b"5,caf\xe9,x", b"6,f,x"]
    found = rows_of(tmp_path, b"\n".join(lines))
    assert [row.place for row in found] == [f"line {i}" for i in range(2, 8)]
    assert [str(row.problem) for row in found] == [
        "None",
        "has 5 cells, but the header has 3 (id, text, team)",
        "has 2 cells, but the header has 3 (id, text, team)",
        "is not valid CSV: ',' expected after '\"'",
        "is not UTF-8: save the file as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8",
        "None",
    ]
    assert found[5].value == {"id": "6", "text": "f", "team": "x"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "data.path=FILE is empty; it needs a header and rows"),
        (b"\n , \n", "is empty; it needs a header and rows"),
        (b"id,,team\n1,2,3\n", "the first row must name the columns, but one name is empty"),
        (b"id,text,id\n1,2,3\n", "but 'id' is listed twice"),
        (b'1,"Hello,\nI wait.",x\n', r"but 'Hello,\nI wait.' is not a name"),
        (b"1," + b"word " * 30 + b",x\n", "is not a name"),
        (b"caf\xe9,b\n", "it is not UTF-8; save the file as UTF-8"),
        (b'id,text\n1,a\n2,"b\n3,c\n4,d\n', "line 3: a quotation mark is not closed"),
        ("id,text\n1,a\n".encode("utf-16"), "is UTF-16: save it as UTF-8"),
        (b"PAR1", "is Parquet: read it with data.source=parquet"),
        (b"PK\x03\x04", "is a zip archive or a spreadsheet: unpack it, or export CSV"),
    ],
)
def test_faults_of_the_file_are_errors(tmp_path, content, said):
    with pytest.raises(UserError) as error:
        rows_of(tmp_path, content)
    assert said in str(error.value).replace(f"{tmp_path}/rows.csv", "FILE")


def test_a_cell_without_end_is_found_by_its_length(tmp_path, monkeypatch):
    monkeypatch.setattr("bridge_jax.data.formats._MAX_CELL", 10_000)
    text = 'id,text\n1,a\n2,"' + "so on\n" * 5_000
    with pytest.raises(UserError, match="line 3: a quotation mark is not closed"):
        rows_of(tmp_path, text)


def test_examples_and_instructions_come_from_csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(written(";"), newline="")
    columns = {"question": "text", "answer": "team"}
    config = DataConfig("csv", str(path), columns=columns, kind="label",
                        choices=("billing", "delivery", "technical"))  # fmt: skip
    splits = load(config, 0)
    found = [(e.id, e.question, e.answer) for e in (*splits.pool, *splits.dev, *splits.test)]
    assert found == [row[:3] for row in ROWS] and not splits.divided
    instruct = InstructConfig(source="csv", path=str(path), columns=columns)
    assert [row.question for row in read_instructions(instruct, 0).rows] == [ROWS[0][1]]


def test_parquet_keeps_numbers_and_lists(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = arrow.table(
        {
            "text": ["a", None, "c"],
            "answer": arrow.array([0.1, 2.5, None], arrow.float32()),
            "choices": [["x", "y"], None, ["z", "w"]],
            "on": [datetime.date(2026, 5, 2)] * 3,
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet", row_group_size=2)
    found = list(read_file("parquet", str(tmp_path / "rows.parquet"), "data.path"))
    assert [row.place for row in found] == ["row 1", "row 2", "row 3"]
    assert [row.value["answer"] for row in found] == [0.1, 2.5, None]  # Not 0.10000000149.
    assert found[0].value["choices"] == ["x", "y"] and found[1].value["text"] is None
    with pytest.raises(UserError, match=r"is not Parquet: read it with data\.source=csv or jsonl"):
        rows_of(tmp_path, "id,text\n", "no.parquet", "parquet")
    whole = (tmp_path / "rows.parquet").read_bytes()
    with pytest.raises(UserError, match="Parquet cannot be read after row 0"):
        rows_of(tmp_path, whole[:-20], "cut.parquet", "parquet")
