"""Files as other programs write them: which bytes are rows, and what is said about the others."""

import gzip
import json

import pytest

from bridge_jax.config import DataConfig
from bridge_jax.data.sources import load
from bridge_jax.errors import UserError


def row(name, split="train", **extra):
    base = {"id": name, "question": f"What is {name}?", "answer": "12", "split": split}
    return {**base, **extra}


ROWS = [json.dumps(row(name, split)) for name, split in (("a", "train"), ("b", "test"))]


def read(tmp_path, content, **config):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    defaults = {"source": "jsonl", "pool": 0, "dev": 0, "test": 0}
    return load(DataConfig(path=str(path), **{**defaults, **config}), seed=0)


def fault(tmp_path, content, **config):
    with pytest.raises(UserError) as error:
        read(tmp_path, content, **config)
    return str(error.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize(
    "content",
    [
        "\ufeff" + "\n".join(ROWS),
        "\n".join(ROWS) + "\n\n",
        "\n \n\t\n" + "\n\n\n".join(ROWS),
        "\r\n".join(ROWS) + "\r\n",
        "\r\r\n".join(ROWS),
        "\r".join(ROWS),
        # Two files with a mark each, put one after the other.
        "\n".join("\ufeff" + line for line in ROWS),
        "\n".join(ROWS).encode("utf-16"),
        "\r\n".join(ROWS).encode("utf-16-be"),
        ("\ufeff" + "\n".join(ROWS)).encode("utf-32-le"),
    ],
)
def test_marks_blank_lines_and_line_ends_mean_nothing(tmp_path, content, on_bad_row):
    splits = read(tmp_path, content, on_bad_row=on_bad_row)
    assert [example.id for example in (*splits.pool, *splits.test)] == ["a", "b"]
    assert splits.bad.total == 2 and splits.bad.rows == []


def test_a_missing_brace_is_reported_where_it_is(tmp_path):
    lines = [ROWS[0], ROWS[1][:-1], ROWS[1], '{"id": "c", "question" "What?"}']
    said = fault(tmp_path, "\n".join(lines) + "\n")
    column = len(ROWS[1])
    assert (
        f"rows.jsonl, line 2: is not valid JSON: Expecting ',' delimiter at column {column}, "
        in (said)
    )
    assert "the end of the line: it was truncated, or a brace is missing" in said
    assert (
        """line 4: is not valid JSON: Expecting ':' delimiter at column 24, before '"What?"}'"""
        in (said)
    )
    assert "by reason: 2 x is not valid JSON" in said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[" * 100_000, "is nested too deeply"),
        ('{"a":' * 100_000, "is nested too deeply"),
        (json.dumps(row("x"))[:-1] + f', "n": {"9" * 5_000}}}', "an integer of 5,000 digits"),
        (f'{{"answer": -{"1" * 100_000}}}', "holds an integer of 100,000 digits"),
        ('{"id": "x", "answer": "1", "answer": "2"}', "has the key 'answer' twice"),
        (json.dumps(row("x", answer=float("nan"))), "answer is NaN, which stands for no value"),
        (json.dumps(row("x", answer=float("-inf"))), "answer is infinite"),
        (json.dumps(row("x", domain=float("inf"))), "domain is infinite"),
        ('"a string"', "is a JSON str, not an object"),
        ("null", "is a JSON NoneType, not an object"),
    ],
)
def test_a_line_that_is_no_row_is_a_bad_row(tmp_path, line, reason):
    lines = "\n".join([ROWS[0], line, ROWS[1]])
    assert "rows.jsonl, line 2: " in (said := fault(tmp_path, lines)) and reason in said
    assert len(said) < 500
    splits = read(tmp_path, lines, on_bad_row="skip")
    assert [bad.row for bad in splits.bad.rows] == ["line 2"] and reason in splits.bad.rows[
        0
    ].reason
    assert [example.id for example in (*splits.pool, *splits.test)] == ["a", "b"]


def test_nesting_in_a_column_that_is_not_read_does_no_harm(tmp_path):
    deep = ROWS[0][:-1] + ', "tree": ' + "[" * 300 + "]" * 300 + "}"
    assert read(tmp_path, f"{deep}\n{ROWS[1]}").pool[0].id == "a"


def test_a_missing_value_of_pandas_is_no_value(tmp_path):
    line = json.dumps(row("a", rationale=float("nan"), domain=float("nan")))
    (example,) = read(tmp_path, f"{line}\n{ROWS[1]}").pool
    assert (example.rationales, example.domain) == ({}, "")


@pytest.mark.parametrize("written", ["0.50", "1e-05", "0.00001", "-0", "12345678901234567890.25"])
def test_numbers_keep_their_digits(tmp_path, written):
    line = json.dumps(row("a", answer=None)).replace("null", written)
    # As a free text: what is a number is for the parser of answers to say.
    assert read(tmp_path, f"{line}\n{ROWS[1]}", kind="text").pool[0].answer == (
        "0" if written == "-0" else written
    )


def test_half_a_surrogate_pair_and_nul_are_replaced_and_counted(tmp_path):
    rows = [
        row("a\udc00", question="What \ud83d?", answer="6", domain="\udfff", rationale="So\x00 6."),
        row("b", rationales=[{"text": "\ud83d\ude00 and \ude00\ud83d"}], human_rationale="\ud800"),
        row("c", "test"),
    ]
    splits = read(tmp_path, "\n".join(map(json.dumps, rows)))
    first, second = splits.pool
    assert (first.id, first.question, first.domain) == ("a\ufffd", "What \ufffd?", "\ufffd")
    assert first.rationales == {"rationale": "So\ufffd 6."}
    assert second.rationales == {"human": "\ufffd", "0": "\U0001f600 and \ufffd\ufffd"}
    assert splits.replaced == 2 and splits.bad.rows == []
    json.dumps([first.question, *second.rationales.values()], ensure_ascii=False).encode()


def test_half_a_pair_in_options_and_answers(tmp_path):
    rows = [
        row("a", choices=["x\ud83d", "y"], answer="x\ud83d"),
        row("b", "test", choices=["y", "z"], answer="z"),
    ]
    splits = read(tmp_path, "\n".join(map(json.dumps, rows)), kind="choice")
    assert (splits.pool[0].choices, splits.pool[0].answer) == (("x\ufffd", "y"), "x\ufffd")
    assert splits.pool[0].question.endswith("\nA) x\ufffd\nB) y") and splits.replaced == 1


def test_half_a_pair_in_a_message_is_spelled_out(tmp_path):
    said = fault(tmp_path, "\n".join([json.dumps(row("x", answer="\ud83d[/b]\x1b")), *ROWS]))
    assert "answer='\ufffd[/b]\\x1b' is not a number" in said
    keys = {"\ud83d": 1, "\x1b[2J": 2}
    assert r"the columns are '\ud83d', '\x1b[2J'" in fault(tmp_path, json.dumps(keys))


def test_bytes_that_are_not_utf8(tmp_path):
    lines = [ROWS[0].encode(), '{"id": "é"}'.encode("cp1252"), ROWS[1].encode()]
    assert "rows.jsonl, line 2: is not UTF-8" in fault(tmp_path, b"\n".join(lines))
    assert "iconv -f WINDOWS-1252 -t UTF-8" in fault(tmp_path, lines[1])
    cut = "\n".join(ROWS).encode("utf-16")[:-1]
    assert "rows.jsonl: begins as utf-16 but is not valid (truncated data)" in fault(tmp_path, cut)


CSV = "id,question,answer,split\na,What?,1,train\nb,Who?,2,test\n"


@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (CSV, "CSV; read it with source=csv"),
        (CSV.replace(",", "\t"), "CSV; read it with source=csv"),
        (f"[{', '.join(ROWS)}]", "a JSON array; write one object per line: jq -c '.[]'"),
        (json.dumps([json.loads(r) for r in ROWS], indent=1), "a JSON array; write one object"),
        (json.dumps(json.loads(ROWS[0]), indent=1), "objects over several lines; write one per"),
        (f"{row('a')}\n{row('b')}", "Python's own notation; write each row with json.dumps"),
    ],
)
def test_another_format_is_named(tmp_path, content, cause, on_bad_row):
    said = fault(tmp_path, content, on_bad_row=on_bad_row)
    assert f"the file is not JSON Lines, it looks like {cause}" in said.partition("\n")[0]
    assert "give some rows" not in said and "line 1: " in said


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (gzip.compress("\n".join(ROWS).encode(), mtime=0), "is compressed with gzip: unpack it"),
        (b"PAR1....", "is Parquet: read it with data.source=parquet"),
        (b"PK\x03\x04....", "is a zip archive or a spreadsheet"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, content, cause):
    assert cause in fault(tmp_path, content, on_bad_row="skip")


def test_an_empty_file_and_a_folder(tmp_path):
    assert "rows.jsonl: no examples for pool: there are no rows" in fault(tmp_path, " \n\n")
    with pytest.raises(UserError, match=r"is a folder: read it with data\.source=hf"):
        load(DataConfig(source="jsonl", path=str(tmp_path)), seed=0)


def test_a_line_of_a_megabyte_of_brackets_and_spaces(tmp_path):
    noise = ["[1," * 333_333, "{" + " " * 1_000_000, '{"a": "' + "\\" * 1_000_000]
    said = fault(tmp_path, "\n".join([*ROWS, *ROWS, *noise]))
    assert all(f"line {number}: " in said for number in (5, 6, 7)) and len(said) < 2_000
