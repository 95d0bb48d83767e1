"""A raw row, and its columns as texts: by our names or the file's, cleaned, never a guess."""

import dataclasses
import decimal
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.config.data import COLUMNS
from bridge_jax.data.bad_rows import BadRowError, names, shown

REQUIRED = ("question", "answer", "split")
OPTIONAL = tuple(field for field in COLUMNS if field not in REQUIRED)

# What others call a column, for a hint when ours is not there.
_OFTEN = {
    "question": ("prompt", "input", "text", "query", "instruction", "problem", "sentence"),
    "answer": ("gold", "label", "output", "target", "solution", "response", "answerkey"),
    "split": ("subset", "part", "fold", "set"),
    "id": ("uid", "idx", "_id", "guid"),
}

# Half of a surrogate pair is no character, and many programs end a text at NUL.
_NO_CHARACTER = re.compile("[\x00\ud800-\udfff]")


@dataclasses.dataclass(frozen=True)
class Row:
    """One raw row.

    Attributes:
      file: where it comes from, for messages.
      place: where it is there, as in "line 5".
      value: the columns.
      problem: why there is no value, if there is none.
      labels: the names of the classes, if the answers are classes of a dataset.
    """

    file: str
    place: str
    value: Mapping[str, Any]
    problem: BadRowError | None = None
    labels: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """File and place."""
        return f"{self.file}, {self.place}"


class Columns:
    """Reads the columns of rows.

    Args:
      mapped: our field -> the file's column, where the two differ.

    Attributes:
      mapped: as given.
      replaced: how many characters of all texts became U+FFFD.
    """

    def __init__(self, mapped: Mapping[str, str]):
        self.mapped = mapped
        self.replaced = 0
        self._seen: dict[str, None] = {}  # A set in the order of the file.

    def name(self, field: str) -> str:
        """Returns the file's name of our `field`."""
        return self.mapped.get(field, field)

    def raw(self, row: Row, field: str) -> Any:
        """Returns what a column holds; None if there is none."""
        return row.value.get(self.name(field))

    def check(self, row: Row) -> None:
        """Raises a BadRowError if the row has no value, or lacks a column that it must have."""
        if row.problem:
            raise row.problem
        self._seen |= dict.fromkeys(row.value)
        # Ids are made where there are none, but a column that is named for them has to be there.
        needed = [*REQUIRED, *(["id"] if "id" in self.mapped else [])]
        missing = [field for field in needed if self.name(field) not in row.value]
        if missing:
            kind = f"no key {', '.join(shown(self.name(field)) for field in missing)}"
            raise BadRowError(f"has {kind}", kind, self._way_out(missing, list(row.value)))

    def unseen(self) -> str:
        """Returns a message on optional columns that are mapped and no row had; or ""."""
        absent = [
            f"{field}:{self.mapped[field]}"
            for field in OPTIONAL
            if field != "id" and field in self.mapped and self.mapped[field] not in self._seen
        ]
        if not absent or not self._seen:
            return ""
        return (
            f"data.columns={','.join(absent)} names what no row has; the columns are "
            f"{names(self._seen)}"
        )

    def text(self, row: Row, field: str, required: bool = True) -> str:
        """Returns a text column, numbers written out; raises BadRowError if it has none."""
        if row.problem:
            raise row.problem
        column, value = self.name(field), self.raw(row, field)
        if required and column not in row.value:
            raise BadRowError(f"has no key {shown(column)}", f"no key {shown(column)}")
        is_nan = isinstance(value, float | decimal.Decimal) and math.isnan(value)
        if not required and (value is None or is_nan):
            return ""
        if value is None:
            raise BadRowError(f"{column} is null; give a text or a number")
        if isinstance(value, bool) or not isinstance(value, str | int | float | decimal.Decimal):
            kind = f"is of type {type(value).__name__}, not a text or a number"
            raise BadRowError(f"{column}={shown(value)} {kind}", f"{column} {kind}")
        if is_nan:
            raise BadRowError(f"{column} is NaN, which stands for no value")
        if value in (math.inf, -math.inf):
            raise BadRowError(f"{column} is infinite")
        text = self.clean(str(value)).strip()
        if not text and required:
            raise BadRowError(f"{column} is empty")
        return text

    def clean(self, text: str) -> str:
        """Returns a text with U+FFFD for what no tokenizer, file or database takes."""
        cleaned, count = _NO_CHARACTER.subn("\ufffd", text)
        self.replaced += count
        return cleaned

    def _way_out(self, missing: Sequence[str], columns: Sequence[str]) -> str:
        """Returns how to say which columns are meant."""
        free = [column for column in columns if column not in (*REQUIRED, *self.mapped.values())]
        parts = []
        for field in missing:
            likely = [column for column in free if column.lower() in _OFTEN[field]]
            parts.append(f"{field}:{likely[0] if likely else 'COLUMN'}")
        hint = f"the columns are {names(columns)}: map them with data.columns={','.join(parts)}"
        return hint + ", or give each row split=train, dev or test" * ("split" in missing)
