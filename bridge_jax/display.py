"""Prints untrusted text: from data, configs, servers, models and files of a run.

None of it is interpreted as markup, or can control a terminal or a spreadsheet. Everything that a
launcher prints that is not a constant of ours goes through here.
"""

import logging
import re
import sys
import traceback
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# Control characters except tab and line feed, characters that change the writing direction, line
# separators, and lone surrogates, which cannot be encoded.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BREAKS = re.compile(r"[\t\n]")
# Beginnings that make a spreadsheet read a text as a formula, full-width signs included.
_FORMULA = re.compile("[\\s\ufeff]*[=+@\uff1d\uff0b\uff20\uff0d-]|[\t\r\n]")
_MARKDOWN = re.compile(r"[\\`*\[\]<>|&]")
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?", re.ASCII)

Part = str | tuple[str, str]


def plain(value: object) -> str:
    r"""Returns a text in which all that controls a terminal is escaped, such as "\x1b[2J"."""
    return _STEERING.sub(_escaped, str(value).replace("\r\n", "\n"))


def line(value: object) -> str:
    """Returns a text as `plain` does, on one line."""
    return _BREAKS.sub(_escaped, plain(value))


def text(*parts: Part) -> Text:
    """Returns parts, each a text or (text, style), as rich text without markup or emoji codes."""
    styled = [(part, "") if isinstance(part, str) else part for part in parts]
    return Text.assemble(*[(plain(words), style) for words, style in styled])


def cell(value: object, style: str = "") -> Text:
    """Returns a cell of a table."""
    return Text(line(value), style)


def table(*columns: str, words: int = 1) -> Table:
    """Returns an empty table without lines; its first `words` columns hold text, others numbers."""
    made = Table(box=None, header_style="", pad_edge=False, padding=(0, 2, 0, 0))
    for i, name in enumerate(columns):
        side = "left" if i < words else "right"
        made.add_column(cell(name), justify=side, no_wrap=i >= words, overflow="fold")
    return made


def say(console: Console, *parts: Part, hang: int = 0) -> None:
    """Prints parts as one line; on a terminal it is wrapped between words, elsewhere not at all.

    Args:
      console: where to print.
      parts: the parts of the line.
      hang: number of columns by which lines after the first are indented.
    """
    whole = text(*parts)
    if console.is_terminal:
        lines = whole.divide(_breaks(whole.plain, console.width, hang))
        for each in lines[:-1]:
            each.rstrip()
        whole = Text("\n" + " " * hang).join(lines)
    console.print(whole, highlight=False, soft_wrap=True)


def _breaks(whole: str, width: int, hang: int) -> list[int]:
    """Returns where to break a text; a word longer than a line, such as a path, is not broken."""
    found, column = [], 0
    for word in re.finditer(r"\s*\S+|\s+$", whole):
        if "\n" in word.group():
            column = 0
        body = word.group().lstrip()
        needed = cell_len(word.group().rpartition("\n")[2])
        if column > hang and column + needed > width:
            found.append(word.end() - len(body))
            column, needed = hang, cell_len(body)
        column += needed
    return found


def print_error(message: str) -> None:
    """Prints a message to standard error."""
    print(plain(message), file=sys.stderr, flush=True)


def markdown(value: object) -> str:
    """Returns a text as one line of Markdown that starts no link or HTML and ends no table cell."""
    return _MARKDOWN.sub(r"\\\g<0>", line(value))


def csv_value(value: Any) -> Any:
    """Returns a value for a CSV file: numbers unchanged, texts such that none is a formula.

    A text that would be a formula gets an apostrophe in front, as OWASP recommends.
    """
    if not isinstance(value, str):
        return value
    words = plain(value)
    is_formula = _FORMULA.match(words) and not _NUMBER.fullmatch(words)
    return f"'{words}" if is_formula else words


class PlainFormatter(logging.Formatter):
    """Formats log records with another formatter, then escapes them with `plain`."""

    def __init__(self, inner: logging.Formatter | None):
        super().__init__()
        self._inner = inner or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """Returns the formatted and escaped record."""
        return plain(self._inner.format(record))


def print_traceback(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Prints the traceback of an unexpected error; a `sys.excepthook`."""
    print_error("".join(traceback.format_exception(kind, error, trace)).rstrip("\n"))


def _escaped(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()
