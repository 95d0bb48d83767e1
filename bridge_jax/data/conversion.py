"""Converts rows to examples: question, choices, gold answer and recorded rationales.

An answer may name its choice in four ways: by its *text*, by a *letter* (A is the first; or the
row's own labels, as in ARC and CommonsenseQA), by an *index* counted from 0 (the convention of
Hugging Face datasets) or by a *number* counted from 1. `data.answer_is` says which; "auto" accepts
an answer that can be read in only one of these ways. It never reads a number as counted from 1,
since the same number as an index is another choice.

A file has one convention for how numbers name choices, so this is also checked over all rows. An
error names the setting if some rows hold indices and others texts, or if no number is 0 and some
are the number of choices.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from bridge_jax.config import DataConfig
from bridge_jax.data import numbers
from bridge_jax.data.answers import format_completion, parse_answer
from bridge_jax.data.example import OPEN, AnswerKind, Example
from bridge_jax.data.options import options_in
from bridge_jax.data.rows import BadRowError, Columns, Row, bad_value, names, shown

Way = Literal["text", "letter", "index", "number"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Choices(NamedTuple):
    """The choices of one question.

    Attributes:
      texts: the text of each choice, in order, all different.
      labels: the row's own labels of the choices, such as "A" or "1", in capitals; empty if none.
      of: where the choices are listed: in a column of the row; in its question; or in the task, for
        all rows.
      are_numbers: whether the choices in the row's column were numbers, not strings.
    """

    texts: tuple[str, ...]
    labels: tuple[str, ...] = ()
    of: Literal["row", "question", "task"] = "row"
    are_numbers: bool = False


class RowReader:
    """Converts rows to examples; checks that ids are unique and no question is in two splits.

    A column is found by our name or by the one that `config.columns` maps it to. `question`,
    `answer` and `split` are required; an answer is optional in the test, and everywhere if
    `config.labelled` is false. `id`, `domain`, `choices`, `rationale`, `rationales` and
    `human_rationale` are optional. `teacher_answer` is read only if `config.columns` maps it: it is
    then appended to `rationale` as our answer line, for recorded teachers whose texts leave the
    answer out.

    Attributes:
      columns: the reader of single columns.
      replaced: the number of rows in which U+FFFD replaced an invalid character.
    """

    def __init__(self, config: DataConfig):
        self.columns, self.replaced = Columns(config.columns, config.labelled), 0
        self._config = config
        self._ids: dict[str, str] = {}  # Id -> its row.
        self._questions: dict[str, tuple[str, str]] = {}  # Question -> its split and row.
        self._first: dict[str, str] = {}  # Way of naming a choice -> the first row that used it.
        self._has_zero = False

    def example(self, row: Row, split: str) -> Example:
        """Returns a row with checked columns as an Example of `split`; raises BadRowError."""
        columns, replaced_before = self.columns, self.columns.replaced
        example, found = self.question(row)
        if "id" in self._config.columns:
            columns.text(row, "id")
        has_answer = columns.has_answer(row, is_test=split == "test")
        example = dataclasses.replace(
            example,
            domain=columns.text(row, "domain", required=False),
            rationales=self._rationales(row, found),
            answer=self.gold(row, example, found) if has_answer else None,
        )
        example = self._remember(row, example, split)
        self.replaced += columns.replaced > replaced_before
        return example

    def question(self, row: Row) -> tuple[Example, Choices | None]:
        """Returns the row as an Example without its gold answer, and its choices.

        Its id is empty if the row has none.

        Raises:
          BadRowError: its question or its choices are missing or malformed.
        """
        columns, config = self.columns, self._config
        question = columns.text(row, "question")
        found = self._choices(row, question)
        if found and found.of == "row":
            question = _shown_in(question, found, config.kind)
        example = Example(
            id=columns.text(row, "id", required=False),
            question=question,
            answer=None,
            kind=config.kind,
            choices=found.texts if found else (),
            min_rouge=config.min_rouge,
            decimal=config.decimal,
        )
        return example, found

    def gold(self, row: Row, example: Example, found: Choices | None) -> str:
        """Returns the gold answer of an example that `question` returned; raises BadRowError."""
        return self._choice(row, example, found) if found else self._open_answer(row, example)

    def doubt(self) -> str:
        """Returns a message if all rows together contradict the config, or ""."""
        if unseen := self.columns.unseen():
            return unseen
        first, column = self._first, self.columns.name("answer")
        if "index" in first and "text" in first:
            return (
                f"numbers in {column} are the texts of options in some rows ({first['text']}) and "
                f"indices in others ({first['index']}): choose with data.answer_is=text, index or "
                "number"
            )
        if "index" in first and "past" in first and not self._has_zero:
            return (
                f"numbers in {column} seem to count the options from 1: none is 0, and some are "
                f"the number of options ({first['past']}); set data.answer_is=number if so, or "
                "index if they count from 0"
            )
        return ""

    def _choices(self, row: Row, question: str) -> Choices | None:
        """Returns the choices: the row's own, the config's, those in the question, or its classes.

        Returns None if answers of this kind have no choices. Raises BadRowError.
        """
        column, kind = self.columns.name("choices"), self._config.kind
        own = _read_choices(self.columns.raw(row, "choices"), column, self.columns.clean)
        if kind in OPEN:
            if own and self._config.answer_is == "auto":
                raise BadRowError(
                    f"has options in {column}, which data.kind={kind} does not read",
                    hint="set data.kind=choice or label; or data.answer_is=text if the answer "
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

    def _open_answer(self, row: Row, example: Example) -> str:
        """Returns the gold answer of a question without choices."""
        column, text = self.columns.name("answer"), self.columns.text(row, "answer")
        value = self.columns.raw(row, "answer")
        if example.kind == "numeric" and isinstance(value, float):
            # JSON has a decimal point, whatever `data.decimal` says.
            text = numbers.from_json(value, example.decimal)
        answer = parse_answer(text, example)
        if answer is None:
            if example.kind == "math":
                raise BadRowError(
                    f"{column}={shown(text)} is not an expression in TeX",
                    f"{column} is not an expression",
                    "data.kind=math reads expressions up to 500 characters: set data.kind=text",
                )
            raise BadRowError(
                f"{column}={shown(text)} is not a number{_other_marks(text, example.decimal)}",
                f"{column} is not a number",
                "data.kind=numeric reads numbers only: set data.kind=choice, label or text",
            )
        # A number keeps the digits with which it was written.
        return text if example.kind == "numeric" else answer

    def _choice(self, row: Row, example: Example, found: Choices) -> str:
        """Returns the gold answer of a question with choices: the text of one of them."""
        column, how = self.columns.name("answer"), self._config.answer_is
        value = self.columns.raw(row, "answer")
        if isinstance(value, bool):
            value = str(value).lower()
            if value not in [text.lower() for text in found.texts]:
                raise BadRowError(
                    f"{column} is the boolean {value}, which is none of the choices "
                    f"{names(found.texts)}: name them true and false",
                    f"{column} is a boolean, which is none of the choices",
                    "set data.choices=true,false",
                )
        else:
            text = self.columns.text(row, "answer")
            value = text if isinstance(value, str) else value
        number, place = _whole(value), f"{row.place}: {column}={shown(value)}"
        self._has_zero |= number == 0
        if named := _named_by(value, found, example.kind, how, column):
            if how == "auto" and number is not None:
                self._first.setdefault(named[0], place)
            return found.texts[named[1]]
        # A label may also be named by its letter in the question.
        answer = parse_answer(value, example) if isinstance(value, str) else None
        if answer is not None and how == "auto":
            return answer
        if number == len(found.texts):
            self._first.setdefault("past", place)
        by = "" if how == "auto" else f" by its {how}"
        raise BadRowError(
            f"{column}={shown(value)} is none of the choices {names(found.texts)}{by}",
            f"{column} is none of the choices{by}",
            "data.choices must list all answers; data.answer_is says how they name an option: "
            "by text, letter, index (from 0) or number (from 1)",
        )

    def _rationales(self, row: Row, found: Choices | None) -> dict[str, str]:
        columns = self.columns
        texts = {
            "rationale": columns.text(row, "rationale", required=False),
            "human": columns.text(row, "human_rationale", required=False),
        }
        column, variants = columns.name("rationales"), columns.raw(row, "rationales")
        if not isinstance(variants, list | None):
            raise BadRowError(f"{column} is of type {type(variants).__name__}, not a list")
        for index, variant in enumerate(variants or ()):
            text = variant.get("text") if isinstance(variant, Mapping) else variant
            if not isinstance(text, str | None):
                raise BadRowError(
                    f"{column}[{index}] has no string 'text'", f"{column} hold no string 'text'"
                )
            texts[str(index)] = columns.clean(text or "").strip()
        if texts["rationale"] and "teacher_answer" in columns.mapped:
            answer = self._teacher_answer(row, found)
            if answer:
                texts["rationale"] = "".join(format_completion(texts["rationale"], answer))
        return {name: text for name, text in texts.items() if text}

    def _teacher_answer(self, row: Row, found: Choices | None) -> str:
        """Returns the choice that a recorded teacher names, or else its text; may be empty."""
        text = self.columns.text(row, "teacher_answer", required=False)
        value, how = self.columns.raw(row, "teacher_answer"), self._config.answer_is
        if not found or not text or (how == "auto" and isinstance(value, str)):
            return text
        value = text if isinstance(value, str) else value
        column = self.columns.name("teacher_answer")
        named = _named_by(value, found, self._config.kind, how, column)
        return found.texts[named[1]] if named else text

    def _remember(self, row: Row, example: Example, split: str) -> Example:
        """Returns the example, with an id from its content if it has none; raises BadRowError."""
        split_before, where = self._questions.get(example.question, (split, ""))
        if split_before != split:
            raise BadRowError(
                f"asks the same question as {where}, which is in {split_before}",
                "asks a question of another split",
            )
        if not example.id:
            content = json.dumps([example.question, example.choices, example.answer])
            digest = hashlib.sha256(content.encode()).hexdigest()[:16]
            name, number = digest, 1
            while name in self._ids:  # Repeated rows are numbered.
                number += 1
                name = f"{digest}-{number}"
            example = dataclasses.replace(example, id=name)
        elif example.id in self._ids:
            raise BadRowError(
                f"id {shown(example.id)} was used before ({self._ids[example.id]})",
                "id was used before",
            )
        self._ids[example.id] = row.where
        self._questions.setdefault(example.question, (split, row.where))
        return example


def _other_marks(text: str, decimal: numbers.DecimalMark) -> str:
    """Returns advice on `data.decimal` if `text` is a number with another decimal mark, or ""."""
    marks: tuple[numbers.DecimalMark, ...] = (".", ",")
    ways = []
    for mark in marks:
        found = numbers.read(text, mark) if mark != decimal else None
        if found:
            ways.append(f"data.decimal={mark} reads it as {numbers.canonical(found.value)}")
    return f"; {', '.join(ways)}" if ways else ""


def _read_choices(value: Any, column: str, clean: Callable[[str], str]) -> Choices | None:
    """Returns the options in a `choices` column, or None if there are none.

    Args:
      value: a list of texts or numbers; a list of {"label": "A", "text": "..."}; the same by
        columns, {"label": ["A", ...], "text": [...]}; or {"A": "...", ...}, null being no option.
      column: the column's name, for messages.
      clean: applied to each text.

    Raises:
      BadRowError: the value has none of these forms or a single option, or an option is empty or
        repeated.
    """
    if value is None:
        return None
    pairs = _pairs(value)
    if pairs is None or not all(map(_is_text, pairs[0] + pairs[1])):
        raise bad_value(column, value, "is not a list of texts or numbers")
    # White space is collapsed, since each option is shown on a line of its own.
    labels, texts = ([clean(" ".join(str(each).split())) for each in part] for part in pairs)
    if not texts and not labels:
        return None
    if len(texts) < 2 or len(labels) not in (0, len(texts)):
        raise bad_value(column, value, "is not two options or more")
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
    """Returns (labels, texts) of a `choices` column, or None for a value of another form."""
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
    """Returns a letter or label in capitals, without parentheses, periods and colons around it."""
    return letter.strip("().: ").upper()


def _without_letters(texts: list[str]) -> list[str]:
    """Returns texts without a leading "A)", "(b)" or "C.", if each starts with its own letter."""
    marks = [
        re.match(rf"(?:\({letter}\)|{letter}[).])", text, re.IGNORECASE | re.ASCII)
        for text, letter in zip(texts, _LETTERS)
    ]
    if None in marks or len(marks) < len(texts):
        return texts
    return [text[mark.end() :].strip() for text, mark in zip(texts, marks) if mark]


def _shown_in(question: str, options: Choices, kind: AnswerKind) -> str:
    """Returns the question with a row's own options below it, unless it lists them already.

    This way teacher, assistant and student all see the options. Options of kind "choice" get
    letters, labels get none.

    Raises:
      BadRowError: the question lists them in another order, or there are more options than letters.
    """
    listed, own = (
        [" ".join(text.split()).casefold() for text in texts]
        for texts in (options_in(question), options.texts)
    )
    if listed == own:
        return question
    if sorted(listed) == sorted(own):
        raise BadRowError("lists its options in a different order than its column of choices")
    if kind != "choice":
        return "\n".join([question, "One of:", *(f"- {text}" for text in options.texts)])
    if len(own) > len(_LETTERS):
        raise BadRowError(
            f"has {len(own)} options, but there are only {len(_LETTERS)} letters: use "
            "data.kind=label"
        )
    lines = (f"{letter}) {text}" for letter, text in zip(_LETTERS, options.texts))
    return "\n".join([question, *lines])


def _readings(value: Any, options: Choices, kind: AnswerKind) -> dict[Way, int]:
    """Returns, for each way that can read `value`, the index of the choice that it names."""
    found: dict[Way, int] = {}
    text, number = str(value).strip(), _whole(value)
    if isinstance(value, float) and number is not None and text not in options.texts:
        text = str(number)
    same = [i for i, option in enumerate(options.texts) if option.casefold() == text.casefold()]
    name, labels = _bare(text), options.labels
    if text in options.texts:
        found["text"] = options.texts.index(text)
    elif len(same) == 1:
        found["text"] = same[0]
    elif len(name) > 1 and name not in labels:
        # Parsed like a reply: punctuation and a letter before the text do not matter.
        match = parse_answer(text, Example("", "", "", kind, options.texts))
        if match is not None:
            found["text"] = options.texts.index(match)
    may_be_letter = kind == "choice" or (options.of != "task" and not found)
    if name in labels:
        found["letter"] = labels.index(name)
    elif may_be_letter and not labels and name in list(_LETTERS[: len(options.texts)]):
        found["letter"] = _LETTERS.index(name)
    if number is not None and 0 <= number < len(options.texts):
        found["index"] = number
    if number is not None and 1 <= number <= len(options.texts):
        found["number"] = number - 1
    return found


def _whole(value: Any) -> int | None:
    """Returns a whole number as an int, or None.

    It may be a string of digits, or a float: integer columns with gaps are read as floats.
    """
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    return int(value) if value == value // 1 else None


def _named_by(
    value: Any, options: Choices, kind: AnswerKind, answer_is: str, column: str
) -> tuple[Way | Literal["either"], int] | None:
    """Returns how an answer names an option, and which one; None if it names none.

    Args:
      value: a text or a number, not a truth value.
      options: the choices of the question or of the task.
      kind: choice or label.
      answer_is: one of the four ways, or `auto`.
      column: the name of the answer's column, for messages.

    Returns:
      The way (`either` if several name the same option) and the option's index.

    Raises:
      BadRowError: `answer_is` is `auto`, and the answer names different options in different ways.
    """
    found = _readings(value, options, kind)
    if answer_is != "auto":
        way: Any = answer_is
        return (way, found[way]) if way in found else None
    number = found.pop("number", None)
    if options.labels and "letter" in found:
        found.pop("index", None)
    if len(found) > 1 and len(set(found.values())) == 1:
        return "either", next(iter(found.values()))
    if options.of == "task" and "text" in found:
        return "text", found["text"]  # The task's labels are spelled as in the answers.
    if "index" in found and not isinstance(value, str | float) and not options.are_numbers:
        return "index", found["index"]
    if list(found) == ["index"] and isinstance(value, str) and number is not None:
        found["number"] = number  # A string of digits may count from 0 or from 1.
    if len(found) > 1:
        ways = ", ".join(f"{shown(options.texts[i])} by its {way}" for way, i in found.items())
        choice = f"data.answer_is={' or '.join(found)}"
        raise BadRowError(
            f"{column}={shown(value)} is {ways}: say which with {choice}",
            f"{column} names different options by its {' and its '.join(found)}",
            f"say which is meant with {choice}",
        )
    return next(iter(found.items()), None)
