"""One question with its gold answer, and the splits that a source returns."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from bridge_jax.data.bad_rows import BadRows
from bridge_jax.data.numbers import DecimalMark
from bridge_jax.data.task import Task

AnswerKind = Literal["choice", "label", "numeric", "text"]


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of a dataset.

    Attributes:
      id: unique within the dataset, over all splits.
      question: what a model is shown: context and options included, no instruction.
      answer: the gold answer, one of `choices` unless `kind` is numeric or text.
      kind: how answers are parsed and compared (`bridge_jax.data.answers`).
      choices: the texts of the options in order (choice), the closed set of labels (label), or
        empty (numeric, text).
      domain: sub-domain or source, for reports and for spotting semantic collapse; may be empty.
      rationales: what a recorded or programmatic teacher says, by name of the variant. Only
        teachers read it: it is what the budget pays for.
      min_rouge: ROUGE-L with the gold answer from which another counts as right (text).
      task: what is asked of this and all others of the dataset.
      decimal: which mark parts the decimals of a number (`bridge_jax.data.numbers`).
    """

    id: str
    question: str
    answer: str
    kind: AnswerKind
    choices: tuple[str, ...] = ()
    domain: str = ""
    rationales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    min_rouge: float = 0.5
    task: Task = dataclasses.field(default_factory=Task)
    decimal: DecimalMark = ""


@dataclasses.dataclass(frozen=True)
class Splits:
    """What a source returns. The three never share an id or a question.

    Attributes:
      pool: the training examples, from which the teacher's queries are selected.
      dev: for choices made along the way; never trained on.
      test: only for the report.
      bad: rows that were left out on request (`data.on_bad_row="skip"`).
      cut: how many rows there were of each split of which `data.pool`, `dev` or `test` kept the
        first ones.
      replaced: rows in whose texts U+FFFD stands for what is no character.
    """

    pool: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    bad: BadRows = dataclasses.field(default_factory=BadRows)
    replaced: int = 0
    cut: Mapping[str, int] = dataclasses.field(default_factory=dict)
