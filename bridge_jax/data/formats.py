"""Reads rows from files: JSON Lines, CSV and Parquet. `data.hub` reads datasets.

A fault of one row, such as deeply nested JSON or a line with too many cells, raises nothing: the
row is yielded with a `problem`. JSON Lines may have blank lines and any kind of line ending, and
may be in UTF-16 or UTF-32 if the first bytes show it.

CSV has a header. Its separator is a comma, a semicolon, a tab or a vertical bar, whichever fits the
beginning of the file best. Cells are texts; an empty cell is a missing value.
"""

import csv
import functools
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.data.rows import BadRowError, Row, names, shown
from bridge_jax.errors import UserError

_MAX_DIGITS = 4_000  # Digits of an integer; Python's own limit is 4,300.
_MAX_CELL = 10_000_000  # Characters of a cell; a longer one means an unclosed quotation mark.
_MAX_NAME = 100  # Characters of a column's name; a longer one is a text, not a header.
_SAMPLE = 100  # Lines from which the separator is chosen.
_SEPARATORS = ",;\t|"

_PARQUET = b"PAR1"
_PACKED = {
    b"\x1f\x8b": "is compressed with gzip: unpack it (gunzip)",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or export CSV from it",
    _PARQUET: "is Parquet: read it with {section}.source=parquet",
    b"version https://git-lfs": "is a Git LFS pointer, not the data: fetch it (git lfs pull)",
}
_AS_UTF8 = "save the file as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8"

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class WrittenFloat(float):
    """A JSON number with a fraction or an exponent, which prints with the digits of the file."""

    def __init__(self, text: str):
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def read_file(source: str, path: str, setting: str) -> Iterator[Row]:
    """Yields the rows of the file at `path`, without blank ones.

    Args:
      source: the file's format, a key of `READERS`.
      path: the path of the file.
      setting: the setting that names it, for messages: `data.path`, `data.test_path` or
        `instruct.path`.

    Raises:
      UserError: there is no such file, or it has another format.
    """
    file, where = Path(path), f"{setting}={path}"
    if file.is_dir():
        raise UserError(f"{where} is a folder: read it with {section(setting)}.source=hf")
    if not file.is_file():
        raise UserError(f"{where}: no such file")
    with file.open("rb") as opened:
        head = opened.read(32)
    is_parquet = source == "parquet"
    if is_parquet and not head.startswith(_PARQUET):
        raise UserError(
            f"{where} is not Parquet: read it with {section(setting)}.source=csv or jsonl"
        )
    for magic, what in _PACKED.items():
        if head.startswith(magic) and not is_parquet:
            raise UserError(f"{where} {what.format(section=section(setting))}")
    return READERS[source](path, where)


def section(setting: str) -> str:
    """Returns the part of the config that a setting is in: `data` for `data.path`."""
    return setting.partition(".")[0]


def _jsonl(path: str, where: str) -> Iterator[Row]:
    with Path(path).open("rb") as opened:
        encoding = json.detect_encoding(opened.read(4))
    # Invalid bytes of UTF-8 are kept as surrogates, so that their lines can be named.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    try:
        # A JSON string holds no line break, but it may hold the other separators of str.splitlines.
        with Path(path).open(encoding=encoding, errors=errors) as lines:
            for number, line in enumerate(lines, 1):
                text = line.lstrip("\ufeff")
                if not text.strip():
                    continue
                is_utf8 = errors == "surrogatepass" or not _ESCAPED_BYTE.search(text)
                try:
                    row = Row(path, f"line {number}", _object(text, is_utf8))
                except BadRowError as error:
                    row = Row(path, f"line {number}", {}, error)
                yield row
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: begins as {encoding} but is not valid ({error.reason}); save it as UTF-8"
        ) from None


def _object(line: str, is_utf8: bool) -> dict[str, Any]:
    if not is_utf8:
        raise BadRowError("is not UTF-8", hint=_AS_UTF8)
    text = line.rstrip()
    try:
        value = json.loads(
            text, parse_float=WrittenFloat, parse_int=_integer, object_pairs_hook=_without_repeats
        )
    except json.JSONDecodeError as error:
        kind, column = "is not valid JSON", f"{error.msg} at column {error.pos + 1}"
        if error.pos >= len(text):
            near = ", the end of the line: it was truncated, or a brace is missing"
        else:
            near = f", before {shown(text[error.pos : error.pos + 20])}"
        raise BadRowError(f"{kind}: {column}{near}", kind, _other_format(text)) from None
    except RecursionError:
        raise BadRowError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadRowError(
            f"is a JSON {type(value).__name__}, not an object", hint=_other_format(text)
        )
    return value


def _integer(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > _MAX_DIGITS:
        raise BadRowError(f"holds an integer of {digits:,} digits", "holds a very long integer")
    return int(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a BadRowError if a key is in it twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRowError(f"has the key {shown(twice)} twice", "has a key twice")
    return found


def _other_format(line: str) -> str:
    """Returns a guess at the file's format from a line, and how to convert it; or ""."""
    start = line.lstrip()[:200]
    if start.startswith("["):
        what = "a JSON array; write one object per line: jq -c '.[]' FILE > FILE.jsonl"
    elif start == "{":
        what = "objects over several lines; write one per line: jq -c . FILE > FILE.jsonl"
    elif start.startswith("{'"):
        what = "Python's own notation; write each row with json.dumps"
    elif not start.startswith("{") and re.search(r"[,;\t]", start):
        what = "CSV; read it with source=csv"
    else:
        return ""
    return f"the file is not JSON Lines, it looks like {what}"


def _csv(path: str, where: str) -> Iterator[Row]:
    csv.field_size_limit(_MAX_CELL)
    with Path(path).open("rb") as opened:
        head = opened.read(4)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{where} is UTF-16: save it as UTF-8 (in a spreadsheet: CSV UTF-8)")
    read = functools.partial(
        Path(path).open, encoding="utf-8-sig", errors="surrogateescape", newline=""
    )
    with read() as lines:
        separator = _separator(lines)
    with read() as lines:
        # Only `strict` detects an unclosed quotation mark.
        records = csv.reader(lines, delimiter=separator, strict=True)
        header: list[str] = []
        while True:
            place = f"line {records.line_num + 1}"
            try:
                cells = next(records, None)
                problem = None
            except csv.Error as error:
                cells, problem = [""], _csv_fault(error, where, place, bool(header))
            if cells is None:
                break
            cells = [cell.strip() for cell in cells]
            if not problem and not any(cells):
                continue
            if not header:
                header = _header(cells, where)
                continue
            problem = problem or _cells_fault(cells, header)
            values = {} if problem else dict(zip(header, (cell or None for cell in cells)))
            yield Row(path, place, values, problem)
    if not header:
        raise UserError(f"{where} is empty; it needs a header and rows")


def _separator(lines: Iterator[str]) -> str:
    """Returns the separator with which most of the first records have as many cells as the header.

    `csv.Sniffer` also accepts letters, and fails on cells of several lines.
    """
    sample = list(itertools.islice(lines, _SAMPLE))

    def agreement(separator: str) -> tuple[int, int]:
        records = csv.reader(sample, delimiter=separator)
        lengths = [len(cells) for cells in records if any(cells)]
        return (lengths.count(lengths[0]), lengths[0]) if lengths and lengths[0] > 1 else (0, 0)

    try:
        return max(_SEPARATORS, key=agreement)
    except csv.Error:  # A cell is too long; reading the file reports where.
        return ","


def _header(cells: list[str], where: str) -> list[str]:
    """Returns the names of the columns; raises a UserError if the first row does not name them."""
    for cell in cells:
        fault = ""
        if not cell:
            fault = "one name is empty"
        elif _ESCAPED_BYTE.search(cell):
            fault = f"it is not UTF-8; {_AS_UTF8}"
        elif len(cell) > _MAX_NAME or "\n" in cell:
            fault = f"{shown(cell)} is not a name"
        elif cells.count(cell) > 1:
            fault = f"{shown(cell)} is listed twice"
        if fault:
            raise UserError(f"{where}: the first row must name the columns, but {fault}")
    return cells


def _cells_fault(cells: list[str], header: list[str]) -> BadRowError | None:
    if any(map(_ESCAPED_BYTE.search, cells)):
        return BadRowError(f"is not UTF-8: {_AS_UTF8}", "is not UTF-8", _AS_UTF8)
    if len(cells) == len(header):
        return None
    return BadRowError(
        f"has {len(cells)} cells, but the header has {len(header)} ({names(header)})",
        "has more cells than the header" if len(cells) > len(header) else "has too few cells",
        "put texts that contain the separator in quotation marks",
    )


def _csv_fault(error: csv.Error, where: str, place: str, has_header: bool) -> BadRowError:
    """Returns the fault of a row; raises a UserError for one that affects other rows too."""
    if "end of data" in str(error) or "field limit" in str(error):
        raise UserError(
            f"{where}, {place}: a quotation mark is not closed; close it, or double it if it is "
            "part of the text"
        ) from None
    if not has_header:
        raise UserError(f"{where}, {place}: is not valid CSV: {error}") from None
    kind = "is not valid CSV"
    return BadRowError(
        f"{kind}: {error}", kind, "a quotation mark within a quoted text must be doubled"
    )


def _parquet(path: str, where: str) -> Iterator[Row]:
    try:
        import pyarrow as arrow  # pyright: ignore[reportMissingImports]
        import pyarrow.parquet as parquet  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{where}: Parquet needs pyarrow: pip install 'bridge-jax[parquet]'"
        ) from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            # Floats of 16 and 32 bits get the fewest digits that identify them.
            small = {
                field.name: np.dtype(field.type.to_pandas_dtype()).type
                for field in file.schema_arrow
                if field.type in (arrow.float16(), arrow.float32())
            }
            for batch in file.iter_batches():
                for value in batch.to_pylist():
                    number += 1
                    value |= {c: float(str(t(value[c]))) for c, t in small.items() if value[c]}
                    yield Row(path, f"row {number}", value)
    except (arrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: Parquet cannot be read after row {number}: {reason}") from None


# A source -> the function that yields the rows of a file, given its path and its name in messages.
READERS: dict[str, Callable[[str, str], Iterator[Row]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
# Suffix of a file -> source.
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}
