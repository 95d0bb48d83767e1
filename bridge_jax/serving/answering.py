"""Reads the questions of a file, asks a loaded model, and parses its replies."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.data.answers import (
    answer_of,
    is_correct,
    load_tensorflow_text,
    split_completion,
)
from bridge_jax.data.conversion import RowReader
from bridge_jax.data.example import Example, check_labels, read_task
from bridge_jax.data.formats import SUFFIXES, read_file
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Row
from bridge_jax.errors import UserError
from bridge_jax.evaluation import confidence
from bridge_jax.generation import budgets
from bridge_jax.generation.budgets import Cap, capped
from bridge_jax.generation.engine import Completion, Request
from bridge_jax.pipeline.models import Model, complete_rows
from bridge_jax.progress import Advance
from bridge_jax.serving.models import AskingConfig, FoundModel, QuestionsConfig, cap
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering


class FileQuestion(NamedTuple):
    """A row of the question file.

    Attributes:
      number: index of the row, from 0; bad rows count too.
      place: where the row is in the file, such as "line 5".
      id: the row's own id; empty if it has none.
      example: the question, with its gold answer if gold answers are read; None if the row cannot
        be asked.
      error: why the row cannot be asked, or its gold answer cannot be read; empty otherwise.
    """

    number: int
    place: str
    id: str
    example: Example | None
    error: str = ""


class Questions:
    """The questions of a file, in file order; they can be iterated repeatedly.

    Args:
      settings: the file, its columns and its task.
      gold: whether gold answers are read.

    Attributes:
      total: number of rows in the file.

    Raises:
      UserError: the file is missing, of another format, or empty; all rows have the same fault; or
        a setting contradicts the rows.
    """

    def __init__(self, settings: QuestionsConfig, gold: bool):
        if not settings.path:
            raise UserError("--data.path: pass the file with the questions (JSON Lines or CSV)")
        self._data, self._gold = settings.as_data(), gold
        self._task = read_task(self._data)
        if gold and self._data.kind == "text":
            load_tensorflow_text()
        self.total = self._check()

    def __iter__(self) -> Iterator[FileQuestion]:
        reader = RowReader(self._data)
        for number, row in enumerate(_rows(self._data.path)):
            yield self._read(reader, number, row)[0]

    def _check(self) -> int:
        """Reads all rows once to find faults of the whole file; returns the number of rows."""
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
            raise UserError(f"data.path={path}: the file has no rows")
        if len(bad.rows) == bad.total and len(bad.kinds) == 1:
            raise BadRowsError(f"{path}: {bad.summary()}", bad)
        if doubt := reader.doubt():
            raise UserError(f"{path}: {doubt}")
        check_labels(self._task, labels | set(self._data.choices))
        return bad.total

    def _read(
        self, reader: RowReader, number: int, row: Row
    ) -> tuple[FileQuestion, BadRowError | None]:
        """Returns the question of a row, and its fault if it has one."""
        columns = reader.columns
        found = FileQuestion(number, row.place, "", None)
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

    def _named(self, example: Example, found: FileQuestion, answer: str = "") -> Example:
        """Returns the example with its task and answer, and with its place as id if it has none."""
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
    """Yields the rows of a file, in the format given by its suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"data.path={path}: the name does not end in {', '.join(SUFFIXES)}; convert the file, "
            "or rename it"
        )
    return read_file(SUFFIXES[suffix], path, "data.path")


class Answering:
    """A loaded model that answers parts of a file.

    Args:
      found: the model.
      asking: settings for asking it.
      gold: whether questions have gold answers to compare with.
      budget: maximum number of thinking tokens; 0 for no budget.

    Attributes:
      notes: messages for the user.
    """

    def __init__(self, found: FoundModel, asking: AskingConfig, gold: bool, budget: int):
        self._mode: Mode = asking.mode
        self._gold, self._budget = gold, budget
        model = found.load(asking)
        self._tokenizer = model.tokenizer
        self.notes = list(model.tokenizer.notes)
        self._cap: Cap | None = None
        new = asking.generation.max_new_tokens
        if budget:
            self._cap, note = cap(model.tokenizer, asking.thinking, budget, found.where)
            self.notes += [note] if note else []
            new = capped([0], self._cap).limit or new
        self._reading = _rendering(model, asking, new, found.where)
        self._engine = model.engine(asking.generation, asking.seed)

    def answer(
        self, questions: Sequence[FileQuestion], begun: Path, advance: Advance
    ) -> list[dict[str, Any]]:
        """Answers some of the questions, and returns a result row for each.

        Args:
          questions: in file order.
          begun: the file that keeps finished answers while the others are generated.
          advance: called with the number of newly finished questions.
        """
        prompts = self._prompts(questions)
        ids = {number: found for number, found in prompts.items() if not isinstance(found, str)}
        requests = [self._request(prompt, number) for number, prompt in ids.items()]
        by_number = {question.number: question for question in questions}
        examples: list[Any] = [by_number[number].example for number in ids]
        self._engine.release()
        written = complete_rows(begun, self._engine, examples, requests, self._row, advance)
        answers = dict(zip(ids, written, strict=True))
        advance(len(questions) - len(ids))
        found = []
        for question in questions:
            error = prompts.get(question.number)
            row: dict[str, Any] = {"id": question.id or None, "row": question.place}
            row |= answers.get(question.number) or self._no_row()
            row["error"] = question.error or (error if isinstance(error, str) else None)
            found.append(row)
        return found

    def _prompts(self, questions: Sequence[FileQuestion]) -> dict[int, list[int] | str]:
        """Returns row number -> prompt ids or error message, for the rows that have a question."""
        examples = {
            question.number: dataclasses.replace(question.example, budget=self._budget)
            for question in questions
            if question.example is not None
        }
        try:
            found = self._reading.prompts(list(examples.values()), "", self._mode)
            return {number: found[n] for n, number in enumerate(examples)}
        except UserError:
            return {number: self._prompt(example) for number, example in examples.items()}

    def _prompt(self, example: Example) -> list[int] | str:
        try:
            return self._reading.prompt(example, self._mode)
        except UserError as error:
            return str(error).removeprefix(f"example {example.id!r}: ")

    def _request(self, prompt: Sequence[int], number: int) -> Request:
        request = capped(prompt, self._cap) if self._cap else Request(prompt)
        return request._replace(stream=number)

    def _row(self, example: Example, completion: Completion) -> dict[str, Any]:
        tokenizer, ids = self._tokenizer, completion.ids
        start = 0
        if self._cap:
            reply = budgets.read(tokenizer, self._cap.thinking, ids, example)
            text, answer = reply.text, reply.answer
            rest = self._cap.thinking.split(ids)[1]
            start = 0 if rest is None else len(ids) - len(rest)
        else:
            text = tokenizer.decode(ids)
            answer = answer_of(text, example)
        row = self._no_row() | {"answer": answer, "rationale": text.strip()}
        if answer is not None:
            row["rationale"] = split_completion(text)[0]
            row["confidence"] = confidence.of_answer(tokenizer, completion, start)
        if self._gold and example.answer:
            row["correct"] = is_correct(answer, example)
        return row

    def _no_row(self) -> dict[str, Any]:
        names = ("answer", "rationale", "confidence", *(("correct",) if self._gold else ()))
        return dict.fromkeys(names)


def _rendering(model: Model, asking: AskingConfig, new: int, where: str) -> Rendering:
    """Returns the prompt renderer, which leaves room in the context for `new` tokens."""
    room = model.config.max_positions - new
    if room < 1:
        raise UserError(
            f"generation.max_new_tokens={new} leaves no room for a prompt in the model's context "
            f"of {model.config.max_positions} tokens; lower it"
        )
    return Rendering(
        model.tokenizer,
        table_rows=model.config.vocab_size,
        checkpoint=where,
        max_prompt_tokens=min(asking.max_prompt_tokens or room, room),
        on_long_prompt=asking.on_long_prompt,
    )
