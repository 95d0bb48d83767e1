"""Raw rows of a file or dataset, their columns as clean texts, and the errors of bad rows.

All rows are checked before an error is raised. If most rows have the same fault, its cause is in
the config or in the file as a whole (another column name, CSV instead of JSON), and the message
states that fault first.
"""

import collections
import dataclasses
import decimal
import hashlib
import math
import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bridge_jax.config.data import COLUMNS
from bridge_jax.errors import UserError

SHOWN = 10  # Bad rows listed in a message; a file lists all of them.

REQUIRED = ("question", "answer", "split")
OPTIONAL = tuple(field for field in COLUMNS if field not in REQUIRED)

# Common column names in other people's files, for a hint when ours is missing.
OFTEN = {
    "question": ("prompt", "input", "text", "query", "instruction", "problem", "sentence"),
    "answer": ("gold", "label", "output", "target", "solution", "response", "answerkey"),
    "split": ("subset", "part", "fold", "set"),
    "id": ("uid", "idx", "_id", "guid"),
}

_UNLABELLED = "if nobody has labelled these questions, set data.labelled=false"

# A lone surrogate is not a character, and many programs end a text at NUL.
_NO_CHARACTER = re.compile("[\x00\ud800-\udfff]")

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


class BadRowError(Exception):
    """Raised for a fault of a row; `BadRow` adds the place of the row.

    Attributes:
      kind: the reason without this row's values, the same for all rows with this fault.
      hint: advice for a file in which most rows have this fault; may be empty.
    """

    def __init__(self, reason: str, kind: str = "", hint: str = ""):
        super().__init__(reason)
        self.kind, self.hint = kind or reason, hint


def bad_value(column: str, value: Any, fault: str, hint: str = "") -> BadRowError:
    """Returns the error for a column's value; `fault` says what is wrong with it."""
    return BadRowError(f"{column}={shown(value)} {fault}", f"{column} {fault}", hint)


class BadRow(NamedTuple):
    """A bad row: its file, its place there ("line 5"), and the reason."""

    file: str
    row: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.row}: {self.reason}"


@dataclasses.dataclass
class BadRows:
    """The bad rows of a source.

    Attributes:
      total: rows read, good and bad.
      rows: the bad ones, in file order.
      kinds: the number of rows with each kind of fault.
      hints: kind of fault -> advice for a file in which most rows have it; may be empty.
    """

    total: int = 0
    rows: list[BadRow] = dataclasses.field(default_factory=list)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    hints: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, row: "Row", error: BadRowError) -> None:
        """Adds a row with its fault."""
        self.rows.append(BadRow(row.file, row.place, str(error)))
        self.kinds[error.kind] += 1
        self.hints.setdefault(error.kind, error.hint)

    @property
    def cause(self) -> str:
        """The fault that more than half of all rows have, with advice; "" if there is none."""
        kind, count = self.kinds.most_common(1)[0] if self.rows else ("", 0)
        if 2 * count <= self.total:
            return ""
        share = "all" if count == self.total else f"{count:,} of"
        alike = (
            f"{share} {self.total:,} rows fail the same way" if count > 1 else "the only row fails"
        )
        hint = self.hints[kind]
        return f"{alike}: {kind}" + (f"; {hint}" if hint else "")

    def counts(self) -> str:
        """Returns the number of rows by kind of fault, the most frequent first."""
        return ", ".join(f"{count:,} x {kind}" for kind, count in self.kinds.most_common())

    def summary(self) -> str:
        """Returns the cause if there is one, the first bad rows, and the counts by reason."""
        lines = [self.cause] if self.cause else []
        lines.append(f"{len(self.rows):,} of {self.total:,} rows are bad:")
        lines += [f"  {row}" for row in self.rows[:SHOWN]]
        if len(self.rows) > SHOWN:
            lines.append(f"  and {len(self.rows) - SHOWN:,} more")
        return "\n".join([*lines, f"by reason: {self.counts()}"])


class BadRowsError(UserError):
    """Raised for bad rows.

    Attributes:
      bad: all bad rows.
    """

    def __init__(self, message: str, bad: BadRows):
        super().__init__(message)
        self.bad = bad


@dataclasses.dataclass(frozen=True)
class Row:
    """A raw row.

    Attributes:
      file: the file or dataset that it comes from, for messages.
      place: its place there, as in "line 5".
      value: column -> value.
      problem: the fault, if the columns could not be read.
      labels: the names of the classes, if the answers are classes of a dataset.
      split: its split, if that is known without a column; "" if a column holds it.
    """

    file: str
    place: str
    value: Mapping[str, Any]
    problem: BadRowError | None = None
    labels: tuple[str, ...] = ()
    split: str = ""

    @property
    def where(self) -> str:
        """File and place."""
        return f"{self.file}, {self.place}"


class Columns:
    """Reads the columns of rows.

    Args:
      mapped: our field -> the file's column, where the two differ.
      labelled: whether rows outside the test must have an answer.

    Attributes:
      mapped: as given.
      replaced: the number of characters in all texts that were replaced by U+FFFD.
    """

    def __init__(self, mapped: Mapping[str, str], labelled: bool = True):
        self.mapped = mapped
        self._labelled = labelled
        self.replaced = 0
        self._seen: dict[str, None] = {}  # Column names, a set in file order.

    def name(self, field: str) -> str:
        """Returns the file's name for our `field`."""
        return self.mapped.get(field, field)

    def raw(self, row: Row, field: str) -> Any:
        """Returns the value of a column; None if there is none.

        Options in columns of their own (`A|B|C`) are sorted by a hash of each, since files often
        have the right one first.
        """
        name = self.name(field)
        if field != "choices" or name in row.value or "|" not in name:
            return row.value.get(name)
        options = [row.value.get(part) for part in name.split("|")]
        found = [option for option in options if option is not None]
        return sorted(found, key=lambda option: hashlib.sha256(str(option).encode()).digest())

    def check(self, row: Row, required: Sequence[str] = REQUIRED) -> None:
        """Raises a BadRowError if the row could not be read, or lacks a column that it must have.

        Whether a row without an answer is bad depends on its split: see `has_answer`.

        Args:
          row: the row.
          required: our fields; by default those of an example.
        """
        if row.problem:
            raise row.problem
        self._seen |= dict.fromkeys(row.value)
        # Rows need no ids, but a column that the config names for them must exist.
        needed = [field for field in required if self._labelled or field != "answer"]
        needed += ["id"] if "id" in self.mapped else []
        if row.split and "split" in needed:
            needed.remove("split")
        missing = [field for field in needed if self.name(field) not in row.value]
        if missing and missing != ["answer"]:
            raise self._absent(missing, row)

    def has_answer(self, row: Row, is_test: bool) -> bool:
        """Returns whether a row has an answer that is not absent, null, NaN or blank.

        Args:
          row: the row.
          is_test: whether the row is in the test, whose answers can be bought from the teacher.

        Raises:
          BadRowError: the row has no answer but must have one.
        """
        value = self.raw(row, "answer")
        is_blank = isinstance(value, str) and not self.clean(value).strip()
        is_nan = isinstance(value, float | decimal.Decimal) and math.isnan(value)
        if not (value is None or is_blank or is_nan):
            return True
        if is_test or not self._labelled:
            return False
        if self.name("answer") not in row.value:
            raise self._absent(["answer"], row)
        try:
            self.text(row, "answer")
        except BadRowError as error:
            error.hint = _UNLABELLED
            raise
        return True

    def _absent(self, missing: Sequence[str], row: Row) -> BadRowError:
        kind = f"no key {', '.join(shown(self.name(field)) for field in missing)}"
        hint = self._way_out(missing, list(row.value))
        return BadRowError(f"has {kind}", kind, hint)

    def unseen(self) -> str:
        """Returns a message about mapped optional columns that no row has, or ""."""
        absent = [
            f"{field}:{self.mapped[field]}"
            for field in (*OPTIONAL, *(() if self._labelled else ("answer",)))
            if field != "id" and field in self.mapped and not self._has(self.mapped[field])
        ]
        if not absent or not self._seen:
            return ""
        return (
            f"data.columns={','.join(absent)} maps columns that no row has; the columns "
            f"are {names(self._seen)}"
        )

    def _has(self, column: str) -> bool:
        """Returns whether any row had a column; of `A|B|C`, whether each was in some row."""
        return column in self._seen or all(part in self._seen for part in column.split("|"))

    def text(self, row: Row, field: str, required: bool = True) -> str:
        """Returns the text or number in a column as text.

        The result is "" only for an optional column without a value.

        Raises:
          BadRowError: a required value is missing, or is neither a text nor a finite number.
        """
        if row.problem:
            raise row.problem
        column, value = self.name(field), self.raw(row, field)
        if required and column not in row.value:
            raise BadRowError(f"has no key {shown(column)}", f"no key {shown(column)}")
        is_nan = isinstance(value, float | decimal.Decimal) and math.isnan(value)
        if not required and (value is None or is_nan):
            return ""
        if value is None:
            raise BadRowError(f"{column} has no value; expected a text or a number")
        if isinstance(value, bool) or not isinstance(value, str | int | float | decimal.Decimal):
            fault = f"is of type {type(value).__name__}, not a text or a number"
            raise bad_value(column, value, fault)
        if is_nan:
            raise BadRowError(f"{column} is NaN, which stands for no value")
        if value in (math.inf, -math.inf):
            raise BadRowError(f"{column} is infinite")
        text = self.clean(str(value)).strip()
        if not text and required:
            raise BadRowError(f"{column} is empty")
        return text

    def clean(self, text: str) -> str:
        """Replaces the characters that tokenizers, files or databases reject with U+FFFD."""
        cleaned, count = _NO_CHARACTER.subn("\ufffd", text)
        self.replaced += count
        return cleaned

    def _way_out(self, missing: Sequence[str], columns: Sequence[str]) -> str:
        """Returns advice: the setting that maps the missing fields to likely columns."""
        free = [column for column in columns if column not in (*REQUIRED, *self.mapped.values())]
        parts = []
        for field in missing:
            likely = (column for column in free if column.lower() in OFTEN[field])
            parts.append(f"{field}:{next(likely, 'COLUMN')}")
        hint = f"the columns are {names(columns)}: map them with data.columns={','.join(parts)}"
        if "split" in missing:
            hint += ", or give each row split=train, dev or test"
        return f"{hint}; {_UNLABELLED}" if missing == ["answer"] else hint


def shown(value: Any) -> str:
    """Returns a value of a row for a message, shortened and with unprintable characters escaped."""
    return _repr.repr(value)


def names(values: Any) -> str:
    """Returns the names of a file's columns or splits for a message, 20 at most."""
    values = [str(value) for value in values]
    listed = [v if v.isprintable() and 0 < len(v) <= 40 else shown(v) for v in values[:20]]
    return ", ".join(listed) + (f" and {len(values) - 20:,} more" if len(values) > 20 else "")
