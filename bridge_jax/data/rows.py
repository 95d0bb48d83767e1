"""From a row of a file to an Example, with every check that one row or its neighbours allow."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from bridge_jax.config import DataConfig
from bridge_jax.data import choices
from bridge_jax.data.answers import format_completion
from bridge_jax.data.bad_rows import BadRowError, shown
from bridge_jax.data.choices import Options
from bridge_jax.data.columns import Columns, Row
from bridge_jax.data.example import Example
from bridge_jax.data.gold import Gold


class Reader:
    """Converts rows one by one; remembers ids and questions, which must be unique.

    Columns are found by our name or by what `config.columns` maps it to: `question`, `answer`,
    `split` (required), and `id`, `domain`, `choices`, `rationale`, `rationales`, `human_rationale`
    (optional). `teacher_answer` is read only if `config.columns` maps it: it is then appended to
    `rationale` as our answer line, for recorded teachers whose texts leave the answer out.

    Attributes:
      columns: what reads the columns.
      replaced: rows in whose texts U+FFFD stands for what is no character.
    """

    def __init__(self, config: DataConfig):
        self.columns, self.replaced = Columns(config.columns), 0
        self._config, self._gold = config, Gold(config, self.columns)
        self._ids: dict[str, str] = {}
        self._questions: dict[str, tuple[str, str]] = {}

    def split(self, row: Row) -> str:
        """Returns what the row calls its split; raises BadRowError if it lacks a column."""
        self.columns.check(row)
        return self.columns.text(row, "split")

    def example(self, row: Row, split: str) -> Example:
        """Returns the row, which has its columns, as an Example of `split`; raises BadRowError."""
        replaced_before = self.columns.replaced
        question = self.columns.text(row, "question")
        found = self._gold.options(row, question)
        if found and found.of == "row":
            question = choices.shown_in(question, found, self._config.kind)
        example = Example(
            id=self.columns.text(row, "id", required="id" in self._config.columns),
            question=question,
            answer="",
            kind=self._config.kind,
            choices=found.texts if found else (),
            domain=self.columns.text(row, "domain", required=False),
            rationales=self._rationales(row, found),
            min_rouge=self._config.min_rouge,
            decimal=self._config.decimal,
        )
        example = dataclasses.replace(example, answer=self._gold.answer(row, example, found))
        example = self._remember(row, example, split)
        self.replaced += self.columns.replaced > replaced_before
        return example

    def doubt(self) -> str:
        """Returns what all rows together say against the config, or ""."""
        return self.columns.unseen() or self._gold.doubt()

    def _rationales(self, row: Row, found: Options | None) -> dict[str, str]:
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
        if texts["rationale"] and "teacher_answer" in self._config.columns:
            answer = self._gold.teacher_answer(row, found)
            if answer:
                texts["rationale"] = "".join(format_completion(texts["rationale"], answer))
        return {name: text for name, text in texts.items() if text}

    def _remember(self, row: Row, example: Example, split: str) -> Example:
        """Returns the example, with an id made of its content if it has none."""
        split_before, where = self._questions.get(example.question, (split, ""))
        if split_before != split:
            raise BadRowError(
                f"asks the same question as {where}, which is in {split_before}",
                "asks a question of another split",
            )
        if not example.id:
            example = dataclasses.replace(example, id=self._content_id(example))
        elif example.id in self._ids:
            raise BadRowError(
                f"id {shown(example.id)} was used before ({self._ids[example.id]})",
                "id was used before",
            )
        self._ids[example.id] = row.where
        self._questions.setdefault(example.question, (split, row.where))
        return example

    def _content_id(self, example: Example) -> str:
        """Returns an id made from the content alone; repeats get a number."""
        content = json.dumps([example.question, example.choices, example.answer])
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        name, number = digest, 1
        while name in self._ids:
            number += 1
            name = f"{digest}-{number}"
        return name
