"""Reads the examples of a run, and the instructions of the student's warm-up.

Examples are generated practice tasks, the rows of a JSON Lines file, or a dataset of the hub.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from bridge_jax.config import DataConfig, InstructConfig
from bridge_jax.data import gold, practice
from bridge_jax.data.answers import format_completion
from bridge_jax.data.example import Example, Splits, check_labels, read_task
from bridge_jax.data.formats import read_dataset, read_jsonl
from bridge_jax.data.rows import BadRowError, BadRows, BadRowsError, Columns, Row, names, shown
from bridge_jax.errors import UserError

# Names of splits in other people's data, in lower case -> ours.
SPLITS = {
    **dict.fromkeys(("train", "training", "pool"), "pool"),
    **dict.fromkeys(("dev", "development", "validation", "valid", "val", "eval"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
}

# Fields of the config that practice tasks are made from.
PRACTICE = ("domains", "min_steps", "max_steps", "families", "label_share")


class Instruction(NamedTuple):
    """A question with its context, and the answer as it was written."""

    question: str
    answer: str


class Instructions(NamedTuple):
    """The instructions of a source.

    Attributes:
      rows: in random order: the first N are a random sample, and the first of a larger one.
      bad: rows that were left out on request.
    """

    rows: tuple[Instruction, ...]
    bad: BadRows


def load(config: DataConfig, seed: int) -> Splits:
    """Returns the examples that `config` names.

    Args:
      config: where they come from. For `jsonl` and `hf`, `pool`, `dev` and `test` keep the first
        examples of each split, in file order; 0 keeps all.
      seed: of practice tasks; the other sources do not depend on it.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or there are no others.
      UserError: the data or the task cannot be read, answers can be read in two ways, or pool or
        test is empty.
    """
    _check(config)
    if config.source == "practice":
        settings = {name: getattr(config, name) for name in ("pool", "dev", "test", *PRACTICE)}
        splits = practice.generate(seed, **settings)
        for name in ("pool", "test"):
            if not getattr(splits, name):
                raise UserError(f"practice tasks: no examples for {name}; set data.{name} above 0")
        if config.kind == "text":
            splits = practice.open_ended(splits, config.min_rouge)
    else:
        splits = _collect(_raw_rows(config), config)
    return _told(splits, config)


def read_instructions(config: InstructConfig, seed: int) -> Instructions:
    """Returns the instructions of `config.path` for training, shuffled by `seed`.

    A row has a `question` and an `answer`, found by these names or by what `instruct.columns` maps
    them to; a `context` that the question needs, if it has that column; and a `split`, if it has
    that: rows of dev and test are not read.

    Raises:
      BadRowsError: rows are malformed (unless `on_bad_row="skip"`), or none is for training.
      UserError: the source cannot be read.
    """
    assert config.source != "generated"
    source = DataConfig(source=config.source, path=config.path, columns=config.columns)
    columns, bad = Columns(config.columns), BadRows()
    found, others = [], set()
    for row in _raw_rows(source, "instruct"):
        bad.total += 1
        try:
            split = columns.text(row, "split", required=False)
            if split and SPLITS.get(split.lower()) != "pool":
                others.add(split)
                continue
            question, answer = columns.text(row, "question"), columns.text(row, "answer")
            if context := columns.text(row, "context", required=False):
                question = f"{question}\n\n{context}"
            found.append(Instruction(question, answer))
        except BadRowError as error:
            bad.add(row, error)
    where = f"instruct.path={config.path}"
    if bad.rows and config.on_bad_row == "error":
        raise BadRowsError(
            f"{where}: {bad.summary()}\nmend them, map their columns with instruct.columns, or "
            "leave them out with instruct.on_bad_row=skip",
            bad,
        )
    if not found:
        beside = f", {len(bad.rows):,} bad rows ({bad.counts()})" if bad.rows else ""
        beside += f", and rows of split {', '.join(sorted(others))}" if others else ""
        raise BadRowsError(
            f"{where}: no instructions of split train{beside}; give some rows split=train, or none "
            "a split",
            bad,
        )
    order = np.random.default_rng(seed).permutation(len(found))
    return Instructions(tuple(found[i] for i in order), bad)


class RowReader:
    """Converts rows to examples one by one, and checks that ids and questions are unique.

    Columns are found by our name or by what `config.columns` maps it to: `question`, `answer`,
    `split` (required), and `id`, `domain`, `choices`, `rationale`, `rationales`, `human_rationale`
    (optional). `teacher_answer` is read only if `config.columns` maps it: it is then appended to
    `rationale` as our answer line, for recorded teachers whose texts leave the answer out.

    Attributes:
      columns: the reader of single columns.
      replaced: rows in whose texts U+FFFD stands for what is no character.
    """

    def __init__(self, config: DataConfig):
        self.columns, self.replaced = Columns(config.columns), 0
        self._config, self._gold = config, gold.Gold(config, self.columns)
        self._ids: dict[str, str] = {}
        self._questions: dict[str, tuple[str, str]] = {}

    def example(self, row: Row, split: str) -> Example:
        """Returns the row, which has its columns, as an Example of `split`; raises BadRowError."""
        replaced_before = self.columns.replaced
        question = self.columns.text(row, "question")
        found = self._gold.options(row, question)
        if found and found.of == "row":
            question = gold.shown_in(question, found, self._config.kind)
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
        """Returns a message if all rows together contradict the config, or ""."""
        return self.columns.unseen() or self._gold.doubt()

    def _rationales(self, row: Row, found: gold.Choices | None) -> dict[str, str]:
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


def _raw_rows(config: DataConfig, part: str = "data") -> Iterator[Row]:
    """Yields the rows of a file or a dataset; `part` of the run's config names it in messages."""
    if config.source == "jsonl":
        return read_jsonl(config.path, part)
    return read_dataset(config, part)


def _check(config: DataConfig) -> None:
    """Raises a UserError for settings that would be ignored or could not work."""
    for theirs, ours in config.splits.items():
        if ours.lower() not in SPLITS:
            raise UserError(
                f"data.splits={theirs}:{ours}: name one of our splits, train, dev or test"
            )
    for name in ("config", "revision"):
        if getattr(config, name) and config.source != "hf":
            raise UserError(
                f"data.{name}={getattr(config, name)} is of data.source=hf, not {config.source}"
            )
    if config.kind in ("numeric", "text") and config.answer_is not in ("auto", "text"):
        raise UserError(
            f"data.answer_is={config.answer_is} names an option, and data.kind={config.kind} has "
            "none: set data.kind=choice or label"
        )


def _told(splits: Splits, config: DataConfig) -> Splits:
    """Returns the examples with the task, if the config says it."""
    task = read_task(config)
    if not task.is_said:
        return splits
    parts = {name: getattr(splits, name) for name in ("pool", "dev", "test")}
    labels = (e.choices for part in parts.values() for e in part if e.kind == "label")
    check_labels(task, itertools.chain.from_iterable(labels))
    told = {
        name: tuple(dataclasses.replace(example, task=task) for example in part)
        for name, part in parts.items()
    }
    return dataclasses.replace(splits, **told)


def _collect(rows: Iterable[Row], config: DataConfig) -> Splits:
    """Returns the converted rows by split; the caps apply after all rows have been checked."""
    reader, bad = RowReader(config), BadRows()
    found: dict[str, list[Example]] = {"pool": [], "dev": [], "test": []}
    called: collections.Counter[str] = collections.Counter()
    lost: set[str] = set()  # Splits of ours that bad rows belong to.
    for row in rows:
        bad.total += 1
        name = ""
        try:
            reader.columns.check(row)
            theirs = reader.columns.text(row, "split")
            called[theirs] += 1
            name = _ours(theirs, config, reader.columns.name("split"))
            if name:
                found[name].append(reader.example(row, name))
        except BadRowError as error:
            lost.add(name)
            bad.add(row, error)
    if doubt := reader.doubt():
        listed = [bad.summary()] if bad.rows else []
        raise BadRowsError("\n".join([f"{config.path}: {doubt}", *listed]), bad)
    if bad.rows and config.on_bad_row == "error":
        # Where most rows fail alike, leaving them out would leave nothing.
        way_out = "" if bad.cause else "\nmend them, or leave them out with data.on_bad_row=skip"
        raise BadRowsError(f"{config.path}: {bad.summary()}{way_out}", bad)
    for name in ("pool", "test"):
        if not found[name]:
            raise BadRowsError(
                f"{config.path}: no examples for {name}{_why(name, bad, called, lost)}", bad
            )
    caps = {"pool": config.pool, "dev": config.dev, "test": config.test}
    kept = {name: tuple(rows[: caps[name] or None]) for name, rows in found.items()}
    cut = {name: len(rows) for name, rows in found.items() if len(rows) > len(kept[name])}
    return Splits(**kept, bad=bad, replaced=reader.replaced, cut=cut)


def _ours(theirs: str, config: DataConfig, column: str) -> str:
    """Returns our name of a split, or "" for one that `data.splits` leaves out."""
    if config.splits:
        chosen = {name.lower(): ours for name, ours in config.splits.items()}
        return SPLITS[chosen[theirs.lower()].lower()] if theirs.lower() in chosen else ""
    if theirs.lower() not in SPLITS:
        raise BadRowError(
            f"{column}={shown(theirs)} is not train, dev or test",
            f"{column} is not train, dev or test",
            f"say what is what, as in data.splits={names([theirs])}:train; others are left out",
        )
    return SPLITS[theirs.lower()]


def _why(name: str, bad: BadRows, called: Mapping[str, int], lost: set[str]) -> str:
    """Returns why a split is empty, and the way out."""
    if bad.cause or name in lost:
        return f": {bad.summary()}"
    if not bad.total:
        return ": there are no rows"
    theirs = "train" if name == "pool" else name
    splits = ", ".join(f"{names([split])} ({count:,})" for split, count in called.items())
    skipped = f" (bad rows were skipped: {bad.counts()})" if bad.rows else ""
    return (
        f"; the splits are {splits}{skipped}: give some rows split={theirs}, or say which one is "
        f"meant with data.splits=NAME:{theirs}"
    )
