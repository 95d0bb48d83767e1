"""JSON Lines as other people's programs write it: one JSON object a line.

A byte order mark, blank lines and any kind of line end mean nothing; UTF-16 and UTF-32 are read if
they can be told from UTF-8. Whatever else is in a line makes it a row with a problem, never an
exception: nesting beyond what the parser takes and integers of thousands of digits too.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bridge_jax.data.bad_rows import BadRowError, shown
from bridge_jax.data.columns import Row
from bridge_jax.errors import UserError

_MAX_DIGITS = 4_000  # Of an integer; Python's own limit is 4,300.

_PACKED = {
    b"\x1f\x8b": "is compressed by gzip: unpack it (gunzip)",
    b"PK\x03\x04": "is a zip archive or a spreadsheet: unpack it, or export JSON Lines from it",
    b"PAR1": "is parquet: read it with source=hf",
    b"version https://git-lfs": "is a pointer of Git LFS, not the data: fetch it (git lfs pull)",
}

_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


class Number(float):
    """A JSON number with a fraction or an exponent; as a text it has the digits of the file."""

    def __init__(self, text: str):
        self._text = text

    def __str__(self) -> str:
        return self._text

    __repr__ = __str__


def read(path: str, part: str = "data") -> Iterator[Row]:
    """Yields the rows of the file at `path`, blank lines left out.

    Args:
      path: of the file.
      part: of the run's config that names it, for messages.

    Raises:
      UserError: there is no such file, or it is not a text.
    """
    file = Path(path)
    if file.is_dir():
        raise UserError(f"{part}.path={path} is a folder: read it with {part}.source=hf")
    if not file.is_file():
        raise UserError(f"{part}.path={path}: no such file")
    with file.open("rb") as opened:
        head = opened.read(32)
    for magic, what in _PACKED.items():
        if head.startswith(magic):
            raise UserError(f"{part}.path={path} {what}")
    encoding = json.detect_encoding(head[:4])
    # Bytes that are no UTF-8 are kept as surrogates, so that each line with some can be named.
    errors = "surrogateescape" if encoding.startswith("utf-8") else "surrogatepass"
    try:
        # A JSON string holds no line break, but it may hold the separators of str.splitlines.
        with file.open(encoding=encoding, errors=errors) as lines:
            for number, line in enumerate(lines, 1):
                text = line.lstrip("\ufeff")
                if text.strip():
                    yield _row(path, f"line {number}", text, errors)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{part}.path={path}: begins as {encoding} and is not ({error.reason}); save it as "
            "UTF-8"
        ) from None


def _row(file: str, place: str, line: str, errors: str) -> Row:
    try:
        if errors == "surrogateescape" and _ESCAPED_BYTE.search(line):
            raise BadRowError(
                "is not UTF-8",
                way_out="save the file as UTF-8, or convert it: iconv -f WINDOWS-1252 -t UTF-8",
            )
        return Row(file, place, _object(line))
    except BadRowError as error:
        return Row(file, place, {}, error)


def _object(line: str) -> dict[str, Any]:
    text = line.rstrip()
    try:
        value = json.loads(
            text, parse_float=Number, parse_int=_integer, object_pairs_hook=_without_repeats
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
    """Returns an object, which must not say two things under one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise BadRowError(f"has the key {shown(twice)} twice", "has a key twice")
    return found


def _other_format(line: str) -> str:
    """Returns what the file may be if most lines look like this one, and what to do then."""
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
