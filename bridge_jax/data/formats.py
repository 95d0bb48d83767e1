"""Reads rows of JSON Lines files, and of datasets by the `datasets` library.

JSON Lines may begin with a byte order mark, have blank lines and any kind of line end, and be in
UTF-16 or UTF-32 if the first bytes show it. Any other fault of a line, such as very deep nesting or
an integer of thousands of digits, makes it a row with a problem; it raises nothing.

`datasets` reads the Hugging Face hub, and local files and folders of parquet, JSON and CSV. Cells
of CSV and TSV files stay texts; an empty cell is a missing value.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.config import DataConfig
from bridge_jax.data.rows import BadRowError, Row, shown
from bridge_jax.errors import UserError

_MAX_DIGITS = 4_000  # Of an integer; Python's own limit is 4,300.

_PACKED = {
    b"\x1f\x8b": "is compressed by gzip: unpack it (gunzip)",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or export JSON Lines from it",
    b"PAR1": "is parquet: read it with source=hf",
    b"version https://git-lfs": "is a pointer of Git LFS, not the data: fetch it (git lfs pull)",
}

# A file's suffix -> the builder of `datasets` that reads it.
_KINDS = {"jsonl": "json", "json": "json", "parquet": "parquet", "csv": "csv", "tsv": "csv"}

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class WrittenFloat(float):
    """A JSON number with a fraction or an exponent, whose text has the digits of the file."""

    def __init__(self, text: str):
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def read_jsonl(path: str, setting: str) -> Iterator[Row]:
    """Yields the rows of the file at `path`, blank lines left out.

    Args:
      path: of the file.
      setting: the one that names it, for messages: `data.path`, `data.test_path`, `instruct.path`.

    Raises:
      UserError: there is no such file, or it is not a text.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{setting}={path} is a folder: read it with {_section(setting)}.source=hf")
    if not file.is_file():
        raise UserError(f"{setting}={path}: no such file")
    with file.open("rb") as opened:
        head = opened.read(32)
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise UserError(f"{setting}={path} {what}")
    encoding = json.detect_encoding(head[:4])
    # Invalid bytes of UTF-8 are kept as surrogates, so that their lines can be named.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    try:
        # A JSON string holds no line break, but it may hold the separators of str.splitlines.
        with file.open(encoding=encoding, errors=errors) as lines:
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
            f"{setting}={path}: begins as {encoding} and is not ({error.reason}); save it as UTF-8"
        ) from None


def _section(setting: str) -> str:
    return setting.partition(".")[0]


def _object(line: str, is_utf8: bool) -> dict[str, Any]:
    if not is_utf8:
        raise BadRowError(
            "is not UTF-8",
            way_out="save the file as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8",
        )
    text = line.rstrip()
    try:
        value = json.loads(
            text, parse_float=WrittenFloat, parse_int=_integer, object_pairs_hook=_without_repeats
        )
    except json.JSONDecodeError as error:
        kind, column = "is not valid JSON", f"{error.msg} at column {error.pos + 1}"
        if error.pos >= len(text):
            near = ", the end of the line: it was cut, or a brace is missing"
        else:
            near = f", before {shown(text[error.pos : error.pos + 20])}"
        raise BadRowError(f"{kind}: {column}{near}", kind, _other_format(text)) from None
    except RecursionError:
        raise BadRowError("is nested too deeply") from None
    if not isinstance(value, dict):
        raise BadRowError(
            f"is a JSON {type(value).__name__}, not an object", way_out=_other_format(text)
        )
    return value


def _integer(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > _MAX_DIGITS:
        raise BadRowError(f"holds an integer of {digits:,} digits", "holds a very long integer")
    return int(text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns a JSON object; raises a BadRowError if it has a key twice."""
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
        what = "a JSON array; write one object a line: jq -c '.[]' FILE > FILE.jsonl"
    elif start == "{":
        what = "objects over several lines; write one a line: jq -c . FILE > FILE.jsonl"
    elif start.startswith("{'"):
        what = "Python's own notation; write each row with json.dumps"
    elif not start.startswith("{") and re.search(r"[,;\t]", start):
        what = "CSV or TSV; name it so and read it with data.source=hf, or convert it"
    else:
        return ""
    return f"the file is not JSON Lines, it looks like {what}"


def read_dataset(config: DataConfig, setting: str) -> Iterator[Row]:
    """Yields the rows of all splits, each with the name of its split unless a column has it.

    Classes become their names. Floats of 16 and 32 bits get the fewest digits that identify them.

    Args:
      config: names the dataset, file or folder.
      setting: the one that names `config.path`, for messages.

    Raises:
      UserError: the library is missing, or cannot load what `config.path` names.
    """
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{_section(setting)}.source=hf needs the datasets library: pip install "
            "'bridge-jax[datasets]'"
        ) from None
    try:
        loaded, is_csv = _load(datasets, config)
    except Exception as error:
        # `datasets` says "while generating", and the reason in what that came from.
        told = (error, error.__cause__) if error.__cause__ else (error,)
        reason = " ".join(" ".join(str(each) for each in told).split())[:500]
        several = ""
        if setting == "data.path":
            several = "; data.config names one of several configs, data.revision a version"
        raise UserError(
            f"{setting}={config.path}: datasets cannot load it ({type(error).__name__}: "
            f"{reason}); give a dataset of the hub, or a local file or folder of parquet, JSON or "
            f"CSV{several}"
        ) from error
    split_column = config.columns.get("split", "split")
    answer_column = config.columns.get("answer", "answer")
    for name, rows in loaded.items():
        classes, small = {}, {}  # Columns of classes -> names; of short floats -> their type.
        for column, feature in rows.features.items():
            if isinstance(feature, datasets.ClassLabel):
                classes[column] = feature.names
            elif getattr(feature, "dtype", None) in ("float16", "float32"):
                small[column] = np.dtype(feature.dtype).type
        labels = tuple(classes.get(answer_column, ()))
        for number, value in enumerate(rows):
            if is_csv:
                value = {column: cell or None for column, cell in value.items()}
            # A column of splits comes before the splits of the dataset.
            if value.get(split_column) is None:
                value = {**value, split_column: name}
            value = value | {c: float(str(t(value[c]))) for c, t in small.items() if value[c]}
            yield _dataset_row(config.path, f"{name} row {number}", value, classes, labels)


def _dataset_row(
    file: str,
    place: str,
    value: dict[str, Any],
    classes: Mapping[str, list[str]],
    labels: tuple[str, ...],
) -> Row:
    for column, known in classes.items():
        index = value[column]
        if not isinstance(index, int):
            continue
        if not 0 <= index < len(known):
            return Row(
                file,
                place,
                {},
                BadRowError(f"{column}={index} is no class", f"{column} has no class"),
            )
        # A class whose name is its own index stays a number, the index of an option.
        if known[index] != str(index):
            value[column] = known[index]
    return Row(file, place, value, labels=labels)


def _load(datasets: Any, config: DataConfig) -> tuple[Any, bool]:
    """Returns a dict of splits, and whether they come from CSV or TSV files."""
    file, path = Path(config.path), config.path
    if file.exists() and config.revision:
        raise ValueError(f"data.revision={config.revision} is of the hub, and this is on the disk")
    if file.is_file():  # A single file is read by its type.
        if config.config:
            raise ValueError(f"data.config={config.config} is of a dataset, and this is one file")
        suffix = file.suffix.lstrip(".")
        if suffix not in _KINDS:
            raise ValueError(f"unknown type .{suffix}")
        path = _KINDS[suffix]
        options = {"data_files": config.path} | ({"sep": "\t"} if suffix == "tsv" else {})
    else:
        options = {"name": config.config or None, "revision": config.revision or None}
    builder = datasets.load_dataset_builder(path, **options)
    # Without types, pandas would guess them, and a cell would depend on the other rows.
    is_csv = hasattr(builder.config, "pd_read_csv_kwargs")
    if is_csv:
        columns = _header(datasets, builder.config)
        texts = datasets.Features({column: datasets.Value("string") for column in columns})
        options |= {"features": texts, "na_filter": False}
    return datasets.load_dataset(path, **options), is_csv


def _header(datasets: Any, csv: Any) -> list[str]:
    """Returns the columns of CSV files; raises a ValueError unless all files have the same."""
    import pandas as pd  # pyright: ignore[reportMissingImports]

    options = csv.pd_read_csv_kwargs | {"chunksize": None, "nrows": 1, "dtype": str}
    downloads = datasets.DownloadManager()
    columns, first = None, ""
    for files in downloads.download_and_extract(csv.data_files).values():
        for file in downloads.iter_files(files):
            frame = pd.read_csv(file, **options)
            found = list(frame.columns)
            if csv.index_col is None and not isinstance(frame.index, pd.RangeIndex):
                raise ValueError(f"{file}: line 2 has more cells than the header; give each a name")
            if columns is None:
                columns, first = found, file
            elif set(found) != set(columns):
                raise ValueError(
                    f"{file} has the columns {', '.join(found)}, and {first} has "
                    f"{', '.join(columns)}; name them alike"
                )
    return columns or []
