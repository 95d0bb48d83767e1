"""From a row of a file to an Example, with every check that one row or its neighbours allow."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from bridge_jax.config import DataConfig
from bridge_jax.tasks import numbers
from bridge_jax.tasks.answers import format_completion, parse_answer
from bridge_jax.tasks.example import Example
from bridge_jax.tasks.options import options_in


class BadRowError(Exception):
    """What is wrong with a row, without saying where the row is."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One raw row.

    Attributes:
      where: file and line, for messages.
      value: the columns.
      problem: why there is no value; empty if there is one.
    """

    where: str
    value: Mapping[str, Any]
    problem: str = ""


def _other_marks(text: str, decimal: numbers.DecimalMark) -> str:
    """Returns how to have `text` read as a number, if it is one by another decimal mark."""
    marks: tuple[numbers.DecimalMark, ...] = (".", ",")
    ways = []
    for mark in marks:
        found = numbers.read(text, mark) if mark != decimal else None
        if found:
            ways.append(f"data.decimal={mark} reads it as {numbers.canonical(found.value)}")
    return f"; {', '.join(ways)}" if ways else ""


class Reader:
    """Converts rows one by one; remembers ids and questions, which must be unique.

    Columns are found by our name or by what `config.columns` maps it to: `id`, `question`,
    `answer`, `split` (required), and `domain`, `choices`, `rationale`, `rationales`,
    `human_rationale` (optional). `teacher_answer` is read only if `config.columns` maps it: it is
    then appended to `rationale` as our answer line, for recorded teachers whose texts leave the
    answer out.
    """

    def __init__(self, config: DataConfig):
        self._config = config
        self._ids: dict[str, str] = {}
        self._questions: dict[str, tuple[str, str]] = {}

    def column(self, field: str) -> str:
        """Returns the file's name of our `field`."""
        return self._config.columns.get(field, field)

    def text(self, row: Row, field: str, required: bool = True) -> str:
        """Returns a text column, numbers written out; raises BadRowError if it has none."""
        if row.problem:
            raise BadRowError(row.problem)
        column = self.column(field)
        if column not in row.value and required:
            raise BadRowError(f"has no key {column!r}")
        value = row.value.get(column)
        if value is None and not required:
            return ""
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise BadRowError(f"{column}={value!r} is of type {type(value).__name__}, not a string")
        text = str(value).strip()
        if not text and required:
            raise BadRowError(f"{column} is empty")
        return text

    def example(self, row: Row, split: str) -> Example:
        """Returns the row as an Example of `split`; raises BadRowError."""
        question = self.text(row, "question")
        name = self.text(row, "id")
        example = Example(
            id=name,
            question=question,
            answer=self._answer(row),
            kind=self._config.kind,
            choices=self._choices(row, question),
            domain=self.text(row, "domain", required=False),
            rationales=self._rationales(row),
            min_rouge=self._config.min_rouge,
            decimal=self._config.decimal,
        )
        answer = parse_answer(example.answer, example)
        if answer is None and example.kind == "numeric":
            raise BadRowError(
                f"{self.column('answer')}={example.answer!r} is not a number"
                + _other_marks(example.answer, example.decimal)
            )
        if answer is None:
            raise BadRowError(
                f"{self.column('answer')}={example.answer!r} is none of the "
                f"choices {', '.join(example.choices)}"
            )
        self._remember(row, example, split)
        # Options are compared by their text; a number keeps the digits it is shown with.
        if example.kind != "numeric":
            example = dataclasses.replace(example, answer=answer)
        return example

    def _answer(self, row: Row) -> str:
        """Returns the gold answer; a number of JSON is written with the mark that is read."""
        text, value = self.text(row, "answer"), row.value[self.column("answer")]
        if self._config.kind == "numeric" and isinstance(value, float):
            return numbers.from_json(value, self._config.decimal)
        return text

    def _choices(self, row: Row, question: str) -> tuple[str, ...]:
        """Returns the closed set: the row's own, the config's, or the options in the question."""
        if self._config.kind in ("numeric", "text"):
            return ()
        own = row.value.get(self.column("choices"))
        if own is not None:
            if not isinstance(own, list) or not all(isinstance(choice, str) for choice in own):
                raise BadRowError(f"{self.column('choices')}={own!r} is not a list of strings")
            return tuple(choice.strip() for choice in own)
        choices = self._config.choices or options_in(question)
        if not choices:
            raise BadRowError(
                "has no choices: set data.choices, or list the options in the question, one a line"
            )
        return choices

    def _rationales(self, row: Row) -> dict[str, str]:
        found = {
            "rationale": self.text(row, "rationale", required=False),
            "human": self.text(row, "human_rationale", required=False),
        }
        column = self.column("rationales")
        variants = row.value.get(column)
        if not isinstance(variants, list | None):
            raise BadRowError(f"{column} is of type {type(variants).__name__}, not a list")
        for index, variant in enumerate(variants or ()):
            text = variant.get("text") if isinstance(variant, Mapping) else variant
            if not isinstance(text, str | None):
                raise BadRowError(f"{column}[{index}] has no string 'text'")
            found[str(index)] = (text or "").strip()
        if found["rationale"] and "teacher_answer" in self._config.columns:
            answer = self.text(row, "teacher_answer", required=False)
            if answer:
                found["rationale"] = "".join(format_completion(found["rationale"], answer))
        return {name: text for name, text in found.items() if text}

    def _remember(self, row: Row, example: Example, split: str) -> None:
        if example.id in self._ids:
            raise BadRowError(f"id {example.id!r} was used before ({self._ids[example.id]})")
        split_before, where = self._questions.get(example.question, (split, ""))
        if split_before != split:
            raise BadRowError(f"asks the same question as {where}, which is in {split_before}")
        self._ids[example.id] = row.where
        self._questions.setdefault(example.question, (split, row.where))
