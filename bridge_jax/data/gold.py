"""Reads the choices and the gold answers of rows.

An answer may name its choice in four ways: by its *text*, by a *letter* (A is the first; or by the
row's own labels, as in ARC and CommonsenseQA), by an *index* counted from 0 (the convention of
Hugging Face's datasets) or by a *number* counted from 1. `data.answer_is` says which; "auto" takes
an answer that only one way can read. It never takes a number counted from 1, which would be another
choice as an index.

A file has one convention for how numbers name choices. So that is also checked over all rows:
indices in some and texts in others, or numbers that never are 0, are an error that names the
setting.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from bridge_jax.config import DataConfig
from bridge_jax.data import numbers
from bridge_jax.data.answers import parse_answer
from bridge_jax.data.example import AnswerKind, Example
from bridge_jax.data.options import options_in
from bridge_jax.data.rows import BadRowError, Columns, Row, names, shown

Way = Literal["text", "letter", "index", "number"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Choices(NamedTuple):
    """The choices of one question.

    Attributes:
      texts: of each choice, in order, all different.
      labels: the row's own names of the choices, as "A" or "1", in capitals; empty if none.
      of: where they are listed: in the row's column; in its question; or in the task, for all rows.
      are_numbers: whether the row's own were numbers, not strings.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    of: Literal["row", "question", "task"] = "row"
    are_numbers: bool = False


class Gold:
    """Reads choices and answers, and keeps count of how numbers name choices, for `doubt`."""

    def __init__(self, config: DataConfig, columns: Columns):
        self._config, self._columns = config, columns
        self._first: dict[str, str] = {}  # Way of naming an option -> the first row that used it.
        self._has_zero = False

    def options(self, row: Row, question: str) -> Choices | None:
        """Returns the closed set: the row's own, the config's, or the options in the question.

        Returns None if the answer is a number or a free text. Raises BadRowError.
        """
        column, kind = self._columns.name("choices"), self._config.kind
        own = read_choices(self._columns.raw(row, "choices"), column, self._columns.clean)
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
            return Choices(self._config.choices, of="task")
        if listed := options_in(question):
            return Choices(listed, of="question")
        if row.labels:
            return Choices(row.labels, of="task")
        raise BadRowError(
            "has no choices: set data.choices, name their column with data.columns=choices:COLUMN, "
            "or list the options in the question, one a line",
            "has no choices",
            "set data.choices, or name their column with data.columns=choices:COLUMN",
        )

    def answer(self, row: Row, example: Example, found: Choices | None) -> str:
        """Returns the gold answer to a question with `found` options; raises BadRowError."""
        return self._option(row, example, found) if found else self._open(row, example)

    def doubt(self) -> str:
        """Returns a message if all rows together suggest another reading of numbers; or ""."""
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

    def teacher_answer(self, row: Row, found: Choices | None) -> str:
        """Returns the option that a recorded teacher chose, or else its text; may be empty."""
        text = self._columns.text(row, "teacher_answer", required=False)
        value, how = self._columns.raw(row, "teacher_answer"), self._config.answer_is
        if not found or not text or (how == "auto" and isinstance(value, str)):
            return text
        value = text if isinstance(value, str) else value
        column = self._columns.name("teacher_answer")
        named = named_by(value, found, self._config.kind, how, column)
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

    def _option(self, row: Row, example: Example, found: Choices) -> str:
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
        number = whole(value)
        self._has_zero |= number == 0
        named = named_by(value, found, example.kind, how, column)
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


def read_choices(value: Any, column: str, clean: Callable[[str], str]) -> Choices | None:
    """Returns the options in a `choices` column, or None if there are none.

    Args:
      value: a list of texts or numbers; a list of {"label": "A", "text": "..."}; their columns,
        {"label": ["A", ...], "text": [...]}; or {"A": "...", ...}, where null is no option.
      column: its name, for messages.
      clean: applied to each text.

    Raises:
      BadRowError: it is none of these, there is one option, or one is empty or there twice.
    """
    if value is None:
        return None
    pairs = _pairs(value)
    if pairs is None or not all(_is_text(each) for part in pairs for each in part):
        kind = "is not a list of texts or numbers"
        raise BadRowError(f"{column}={shown(value)} {kind}", f"{column} {kind}")
    # One line each: an option is shown on a line of its own.
    labels, texts = ([clean(" ".join(str(each).split())) for each in part] for part in pairs)
    if not texts and not labels:
        return None
    if len(texts) < 2 or len(labels) not in (0, len(texts)):
        kind = "is not two options or more"
        raise BadRowError(f"{column}={shown(value)} {kind}", f"{column} {kind}")
    labels = [_bare(label) for label in labels]
    if not labels:
        texts = _without_letters(texts)
    elif sorted(labels) == list(_LETTERS[: len(labels)]):
        labels, texts = zip(*sorted(zip(labels, texts)))
    if "" in texts:
        raise BadRowError(f"{column}[{texts.index('')}] is empty", f"{column} has an empty option")
    for given in (texts, labels):
        if twice := [name for i, name in enumerate(given) if name in given[:i]]:
            raise BadRowError(
                f"{column} has the option {shown(twice[0])} twice", f"{column} repeats an option"
            )
    are_numbers = not any(isinstance(text, str) for text in pairs[1])
    return Choices(tuple(texts), tuple(labels), "row", are_numbers)


def _pairs(value: Any) -> tuple[list[Any], list[Any]] | None:
    """Returns labels, maybe none, and texts; or None for what holds no options."""
    if isinstance(value, Mapping):
        if value.keys() != {"label", "text"}:
            kept = {label: text for label, text in value.items() if text is not None}
            return list(kept), list(kept.values())
        labels, texts = value["label"], value["text"]
        return (labels, texts) if isinstance(labels, list) and isinstance(texts, list) else None
    if not isinstance(value, list):
        return None
    if all(isinstance(each, Mapping) and each.keys() == {"label", "text"} for each in value):
        return [each["label"] for each in value], [each["text"] for each in value]
    return [], value


def _is_text(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, str | int) and not isinstance(value, bool)


def _bare(letter: str) -> str:
    """Returns a letter or label without its brackets and points, in capitals."""
    return letter.strip("().: ").upper()


def _without_letters(texts: list[str]) -> list[str]:
    """Returns texts without "A)", "(b)" or "C." before them, if all have their letter."""
    bare = []
    for text, letter in zip(texts, _LETTERS):
        for mark in (f"{letter})", f"({letter})", f"{letter}."):
            if text[: len(mark)].upper() == mark:
                bare.append(text[len(mark) :].strip())
                break
    return bare if len(bare) == len(texts) else texts


def shown_in(question: str, options: Choices, kind: AnswerKind) -> str:
    """Returns the question with a row's own options below it, unless it lists them already.

    Every reader of an example, teacher, assistant or student, sees its question. Choices of a
    choice have letters; labels of which one fits are listed without.

    Raises:
      BadRowError: the question lists them in another order, or there are more than letters.
    """
    listed, own = (
        [" ".join(text.split()).casefold() for text in texts]
        for texts in (options_in(question), options.texts)
    )
    if listed == own:
        return question
    if sorted(listed) == sorted(own):
        raise BadRowError("lists its options in another order than its column of choices")
    if kind != "choice":
        return "\n".join([question, "One of:", *(f"- {text}" for text in options.texts)])
    if len(own) > len(_LETTERS):
        raise BadRowError(
            f"has {len(own)} options; more than {len(_LETTERS)} have no letters: use "
            "data.kind=label"
        )
    lines = (f"{letter}) {text}" for letter, text in zip(_LETTERS, options.texts))
    return "\n".join([question, *lines])


def readings(value: Any, options: Choices, kind: AnswerKind) -> dict[Way, int]:
    """Returns which option `value` names, by each way to read it that gives one."""
    found: dict[Way, int] = {}
    text, number = str(value).strip(), whole(value)
    if isinstance(value, float) and number is not None and text not in options.texts:
        text = str(number)
    same = [i for i, option in enumerate(options.texts) if option.casefold() == text.casefold()]
    name, labels = _bare(text), options.labels
    if text in options.texts:
        found["text"] = options.texts.index(text)
    elif len(same) == 1:
        found["text"] = same[0]
    elif len(name) > 1 and name not in labels:
        # As a reply is read: punctuation does not matter, nor a letter before the text.
        match = parse_answer(text, Example("", "", "", kind, options.texts))
        if match is not None:
            found["text"] = options.texts.index(match)
    if name in labels:
        found["letter"] = labels.index(name)
    elif not labels and len(name) == 1 and name in _LETTERS[: len(options.texts)]:
        label_of_row = kind == "label" and options.of != "task" and not found
        if kind == "choice" or label_of_row:
            found["letter"] = _LETTERS.index(name)
    if number is not None and 0 <= number < len(options.texts):
        found["index"] = number
    if number is not None and 1 <= number <= len(options.texts):
        found["number"] = number - 1
    return found


def whole(value: Any) -> int | None:
    """Returns a whole number, also one of digits or of a float column that has gaps; or None."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    return int(value) if value == value // 1 else None


def named_by(
    value: Any, options: Choices, kind: AnswerKind, answer_is: str, column: str
) -> tuple[Way | Literal["either"], int] | None:
    """Returns how an answer names an option, and which one; None if it names none.

    Args:
      value: a text or a number, not a truth value.
      options: of the question or of the task.
      kind: choice or label.
      answer_is: one of the four ways, or `auto`.
      column: of the answer, for messages.

    Returns:
      The way (`either` if several name the same option) and the option's place from 0.

    Raises:
      BadRowError: `auto`, and the answer names different options by different ways.
    """
    found = readings(value, options, kind)
    if answer_is != "auto":
        way: Any = answer_is
        return (way, found[way]) if way in found else None
    number = found.pop("number", None)
    if options.labels and "letter" in found:
        found.pop("index", None)
    if len(found) > 1 and len(set(found.values())) == 1:
        return "either", next(iter(found.values()))
    if options.of == "task" and "text" in found:
        return "text", found["text"]  # The task's labels are written as in its answers.
    is_index = not isinstance(value, str | float) and not options.are_numbers
    if "index" in found and is_index:
        return "index", found["index"]
    if list(found) == ["index"] and isinstance(value, str) and number is not None:
        found["number"] = number  # Digits in quotation marks may count from either.
    if len(found) > 1:
        ways = ", ".join(f"{shown(options.texts[i])} by its {way}" for way, i in found.items())
        choice = f"data.answer_is={' or '.join(found)}"
        raise BadRowError(
            f"{column}={shown(value)} is {ways}: say which with {choice}",
            f"{column} names different options by its {' and its '.join(found)}",
            f"say which is meant with {choice}",
        )
    return next(iter(found.items()), None)
