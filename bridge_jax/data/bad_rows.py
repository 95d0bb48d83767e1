"""Rows that cannot be used: what is wrong with each, and what to tell the user about all of them.

Every row is checked in one start. When most of them fail alike, the fault is in the config or in
the file as a whole (another column name, CSV instead of JSON), and that is said first.
"""

import collections
import dataclasses
import reprlib
from typing import Any, NamedTuple

from bridge_jax.errors import UserError

SHOWN = 10  # Bad rows in a message; the whole list is in a file.

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80


class BadRowError(Exception):
    """Says what is wrong with a row, without saying where the row is.

    Attributes:
      kind: the reason without this row's values, the same for all rows with this fault.
      way_out: what to do if most rows have this fault; may be empty.
    """

    def __init__(self, reason: str, kind: str = "", way_out: str = ""):
        super().__init__(reason)
        self.kind, self.way_out = kind or reason, way_out


class BadRow(NamedTuple):
    """One row that was left out: its file, where it is there ("line 5"), and what is wrong."""

    file: str
    row: str
    reason: str

    def __str__(self) -> str:
        return f"{self.file}, {self.row}: {self.reason}"


@dataclasses.dataclass
class BadRows:
    """All rows of a source that cannot be used.

    Attributes:
      total: rows seen, good and bad.
      rows: the bad ones, in file order.
      kinds: how many have each kind of fault.
      ways_out: by kind, what to do if most rows have it.
    """

    total: int = 0
    rows: list[BadRow] = dataclasses.field(default_factory=list)
    kinds: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    ways_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, file: str, row: str, error: BadRowError) -> None:
        """Adds the row at `row` of `file`."""
        self.rows.append(BadRow(file, row, str(error)))
        self.kinds[error.kind] += 1
        self.ways_out.setdefault(error.kind, error.way_out)

    @property
    def cause(self) -> str:
        """The fault that more than half of all rows have, and the way out; "" if there is none."""
        kind, count = self.kinds.most_common(1)[0] if self.rows else ("", 0)
        if 2 * count <= self.total:
            return ""
        share = "all" if count == self.total else f"{count:,} of"
        alike = f"{share} {self.total:,} rows fail alike" if count > 1 else "the only row fails"
        way_out = self.ways_out[kind]
        return f"{alike}: {kind}" + (f"; {way_out}" if way_out else "")

    def listed(self) -> list[dict[str, str]]:
        """Returns the bad rows as rows of a file."""
        return [row._asdict() for row in self.rows]

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
    """Rows that cannot be used stand in the way.

    Attributes:
      bad: all of them.
    """

    def __init__(self, message: str, bad: BadRows):
        super().__init__(message)
        self.bad = bad


def shown(value: Any) -> str:
    """Returns a value of a row for a message: short, and without characters that do not print."""
    return _repr.repr(value)


def names(values: Any, most: int = 20) -> str:
    """Returns the names of a file's columns or splits for a message."""
    values = [str(value) for value in values]
    listed = [v if v.isprintable() and 0 < len(v) <= 40 else shown(v) for v in values[:most]]
    return ", ".join(listed) + (f" and {len(values) - most:,} more" if len(values) > most else "")
