"""The gold answers of rows: which options a row has, and which of them it calls right.

How numbers name options is a habit of a whole file. So it is also checked over all rows: indices in
some and texts in others, or numbers that never are 0, are an error that says how to say which.
"""

from bridge_jax.config import DataConfig
from bridge_jax.data import choices, numbers
from bridge_jax.data.answers import parse_answer
from bridge_jax.data.bad_rows import BadRowError, names, shown
from bridge_jax.data.choices import Options
from bridge_jax.data.columns import Columns, Row
from bridge_jax.data.example import Example
from bridge_jax.data.options import options_in


class Gold:
    """Reads options and answers; remembers how numbers named options, for `doubt`."""

    def __init__(self, config: DataConfig, columns: Columns):
        self._config, self._columns = config, columns
        self._first: dict[str, str] = {}  # Way of naming an option -> the first row that used it.
        self._has_zero = False

    def options(self, row: Row, question: str) -> Options | None:
        """Returns the closed set: the row's own, the config's, or the options in the question.

        Returns None if the answer is a number or a free text. Raises BadRowError.
        """
        column, kind = self._columns.name("choices"), self._config.kind
        own = choices.read(self._columns.raw(row, "choices"), column, self._columns.clean)
        if kind in ("numeric", "text"):
            if own and self._config.answer_is == "auto":
                raise BadRowError(
                    f"has options in {column}, which data.kind={kind} does not read",
                    way_out="set data.kind=choice or label; or data.answer_is=text if the answer "
                    "stands for itself and the options are not to be shown",
                )
            return None
        if own:
            return own
        if self._config.choices:
            return Options(self._config.choices, of="task")
        if listed := options_in(question):
            return Options(listed, of="question")
        if row.labels:
            return Options(row.labels, of="task")
        raise BadRowError(
            "has no choices: set data.choices, name their column with data.columns=choices:COLUMN, "
            "or list the options in the question, one a line",
            "has no choices",
            "set data.choices, or name their column with data.columns=choices:COLUMN",
        )

    def answer(self, row: Row, example: Example, found: Options | None) -> str:
        """Returns the gold answer to a question with `found` options; raises BadRowError."""
        return self._option(row, example, found) if found else self._open(row, example)

    def doubt(self) -> str:
        """Returns why the numbers of all rows may name other options than was read; or ""."""
        first, column = self._first, self._columns.name("answer")
        if "index" in first and "text" in first:
            return (
                f"numbers in {column} are the texts of options in some rows ({first['text']}) and "
                f"indices in others ({first['index']}): say which with data.answer_is=text, index "
                "or number"
            )
        if "index" in first and "past" in first and not self._has_zero:
            return (
                f"numbers in {column} seem to count the options from 1: none is 0, and some are "
                f"the number of options ({first['past']}); say data.answer_is=number if so, or "
                "index if they count from 0"
            )
        return ""

    def teacher_answer(self, row: Row, found: Options | None) -> str:
        """Returns the option that a recorded teacher chose, or what else it said; maybe ""."""
        text = self._columns.text(row, "teacher_answer", required=False)
        value, how = self._columns.raw(row, "teacher_answer"), self._config.answer_is
        if not found or not text or (how == "auto" and isinstance(value, str)):
            return text
        value = text if isinstance(value, str) else value
        column = self._columns.name("teacher_answer")
        named = choices.named_by(value, found, self._config.kind, how, column)
        return found.texts[named[1]] if named else text

    def _open(self, row: Row, example: Example) -> str:
        """Returns a number or a text."""
        column, text = self._columns.name("answer"), self._columns.text(row, "answer")
        value = self._columns.raw(row, "answer")
        if example.kind == "numeric" and isinstance(value, float):
            # Its point is that of JSON, whatever mark is read.
            text = numbers.from_json(value, example.decimal)
        answer = parse_answer(text, example)
        if answer is None:
            raise BadRowError(
                f"{column}={shown(text)} is not a number{_other_marks(text, example.decimal)}",
                f"{column} is not a number",
                "data.kind=numeric reads numbers only: set data.kind=choice, label or text",
            )
        # A number keeps the digits it is shown with.
        return text if example.kind == "numeric" else answer

    def _option(self, row: Row, example: Example, found: Options) -> str:
        """Returns the text of an option."""
        column, how = self._columns.name("answer"), self._config.answer_is
        value = self._columns.raw(row, "answer")
        if isinstance(value, bool):
            value = str(value).lower()
            if value not in [text.lower() for text in found.texts]:
                raise BadRowError(
                    f"{column} is the truth value {value}, which is none of the choices "
                    f"{names(found.texts)}: name them true and false",
                    f"{column} is a truth value, and the choices are others",
                    "data.choices=true,false takes it",
                )
        else:
            text = self._columns.text(row, "answer")
            value = text if isinstance(value, str) else value
        number = choices.whole(value)
        self._has_zero |= number == 0
        named = choices.named_by(value, found, example.kind, how, column)
        if named:
            way, place = named
            if how == "auto" and number is not None:
                self._first.setdefault(way, f"{row.place}: {column}={shown(value)}")
            return found.texts[place]
        # A label may also be named by the letter that it has in the question.
        answer = parse_answer(value, example) if isinstance(value, str) else None
        if answer is not None and how == "auto":
            return answer
        if number == len(found.texts):
            self._first.setdefault("past", f"{row.place}: {column}={shown(value)}")
        by = "" if how == "auto" else f" by its {how}"
        raise BadRowError(
            f"{column}={shown(value)} is none of the choices {names(found.texts)}{by}",
            f"{column} is none of the choices{by}",
            "data.choices has to list all answers; data.answer_is says how they name an option: "
            "by text, letter, index (from 0) or number (from 1)",
        )


def _other_marks(text: str, decimal: numbers.DecimalMark) -> str:
    """Returns how to have `text` read as a number, if it is one by another decimal mark."""
    marks: tuple[numbers.DecimalMark, ...] = (".", ",")
    ways = []
    for mark in marks:
        found = numbers.read(text, mark) if mark != decimal else None
        if found:
            ways.append(f"data.decimal={mark} reads it as {numbers.canonical(found.value)}")
    return f"; {', '.join(ways)}" if ways else ""
