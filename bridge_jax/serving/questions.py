"""Reads the questions of a file as a stream: they need no gold answer and no split."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bridge_jax.data.answers import load_tensorflow_text
from bridge_jax.data.conversion import RowReader
from bridge_jax.data.example import Example, check_labels, read_task
from bridge_jax.data.formats import SUFFIXES, read_file
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Row
from bridge_jax.errors import UserError
from bridge_jax.serving.asking import QuestionsConfig


class Question(NamedTuple):
    """A row of the file.

    Attributes:
      number: of the row, from 0; bad ones count too.
      place: of the row in the file, as in "line 5".
      id: its own; empty if it has none.
      example: the question, with its gold answer if it is read; None if the row cannot be asked.
      error: why not, or why its gold answer cannot be read; empty otherwise.
    """

    number: int
    place: str
    id: str
    example: Example | None
    error: str = ""


class Questions:
    """The questions of a file, in its order; they can be read again and again.

    Args:
      settings: the file, its columns and its task.
      gold: whether gold answers are read.

    Attributes:
      total: rows of the file.

    Raises:
      UserError: there is no such file, or it has no rows; all rows have the same fault; a setting
        contradicts the rows.
    """

    def __init__(self, settings: QuestionsConfig, gold: bool):
        if not settings.path:
            raise UserError("--data.path: name the file of the questions, JSON Lines or CSV")
        self._data, self._gold = settings.as_data(), gold
        self._task = read_task(self._data)
        if gold and self._data.kind == "text":
            load_tensorflow_text()
        self.total = self._check()

    def __iter__(self) -> Iterator[Question]:
        reader = RowReader(self._data)
        for number, row in enumerate(_rows(self._data.path)):
            yield self._read(reader, number, row)[0]

    def _check(self) -> int:
        """Reads all rows once, for faults that are of the file; returns their number."""
        reader, bad, labels = RowReader(self._data), BadRows(), set[str]()
        for number, row in enumerate(_rows(self._data.path)):
            question, error = self._read(reader, number, row)
            bad.total += 1
            if error:
                bad.add(row, error)
            if question.example and question.example.kind == "label":
                labels |= set(question.example.choices)
        path = self._data.path
        if not bad.total:
            raise UserError(f"data.path={path}: there are no rows")
        if len(bad.rows) == bad.total and len(bad.kinds) == 1:
            raise BadRowsError(f"{path}: {bad.summary()}", bad)
        if doubt := reader.doubt():
            raise UserError(f"{path}: {doubt}")
        check_labels(self._task, labels | set(self._data.choices))
        return bad.total

    def _read(
        self, reader: RowReader, number: int, row: Row
    ) -> tuple[Question, BadRowError | None]:
        """Returns the question of a row, and its fault if it has one."""
        columns = reader.columns
        found = Question(number, row.place, "", None)
        try:
            columns.check(row, ["question", *(["answer"] if self._gold else [])])
            found = found._replace(id=columns.text(row, "id", required=False))
            example, choices = reader.question(row)
            found = found._replace(example=self._named(example, found))
            if self._gold:
                answer = reader.gold(row, example, choices)
                found = found._replace(example=self._named(example, found, answer))
        except BadRowError as error:
            return found._replace(error=str(error)), error
        return found, None

    def _named(self, example: Example, found: Question, answer: str = "") -> Example:
        """Returns the example with its task, and its place for a name if it has no id."""
        return Example(
            found.id or found.place,
            example.question,
            answer,
            example.kind,
            example.choices,
            min_rouge=example.min_rouge,
            task=self._task,
            decimal=example.decimal,
        )


def _rows(path: str) -> Iterator[Row]:
    """Yields the rows of a file, whose format is known by its suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"data.path={path}: the name does not end in {', '.join(SUFFIXES)}; convert the file, "
            "or rename it"
        )
    return read_file(SUFFIXES[suffix], path, "data.path")
