"""Examples (a question with its gold answer), their splits, and the task that they share.

The task holds an instruction for all questions, and descriptions of the labels. The prompts of
teacher, assistant and student contain it (`text.prompts`, `teachers.prompts`). A short task is set
by `data.instruction` and `data.label_descriptions`, a longer one by a TOML file, `data.task_file`:

    instruction = "Which team has to handle this support ticket?"

    [labels]
    billing = "Invoices, charges and refunds."
    "sign in" = "Passwords, and accounts that are locked."
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from bridge_jax.config import DataConfig
from bridge_jax.data.numbers import DecimalMark
from bridge_jax.data.rows import BadRows
from bridge_jax.errors import UserError

AnswerKind = Literal["choice", "label", "numeric", "math", "text"]
OPEN: tuple[AnswerKind, ...] = ("numeric", "math", "text")  # Kinds without options.

_TASK_KEYS = ("instruction", "labels")
_TASK_FORM = 'expected instruction = """...""" and a table [labels] with label = "description"'


@dataclasses.dataclass(frozen=True)
class Task:
    """The task of a dataset, the same for all of its questions.

    Attributes:
      instruction: the instruction for all questions; empty if each question has its own.
      label_descriptions: label -> its meaning; not every label needs one.
    """

    instruction: str = ""
    label_descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def is_said(self) -> bool:
        """Returns whether the task is not empty."""
        return bool(self.instruction or self.label_descriptions)


@dataclasses.dataclass(frozen=True)
class Example:
    """One row of a dataset.

    Attributes:
      id: unique within the dataset, over all splits.
      question: the text for a model, with context and options, without the instruction.
      answer: the gold answer, one of `choices` unless `kind` is in `OPEN`; None if nobody has given
        one. Code that needs one reads `gold`.
      kind: how answers are parsed and compared (`bridge_jax.data.answers`).
      choices: the texts of the options in order (choice), the closed set of labels (label), or
        empty (numeric, math, text).
      domain: sub-domain or source, for reports and for spotting semantic collapse; may be empty.
      rationales: variant -> the text of a recorded or programmatic teacher. Only teachers read
        them, since the budget pays for them.
      min_rouge: the minimum ROUGE-L with the gold answer for an answer to be right (text).
      task: the task of this and all other examples of the dataset.
      decimal: the decimal mark of numbers (`bridge_jax.data.numbers`).
      budget: the maximum number of thinking tokens, which the prompt states; 0 states nothing.
    """

    id: str
    question: str
    answer: str | None
    kind: AnswerKind
    choices: tuple[str, ...] = ()
    domain: str = ""
    rationales: Mapping[str, str] = dataclasses.field(default_factory=dict)
    min_rouge: float = 0.5
    task: Task = dataclasses.field(default_factory=Task)
    decimal: DecimalMark = ""
    budget: int = 0

    @property
    def gold(self) -> str:
        """The gold answer.

        Raises:
          ValueError: there is none. A missing answer must not be trained on or compared as one.
        """
        if self.answer is None:
            raise ValueError(f"example {self.id!r} has no gold answer")
        return self.answer


@dataclasses.dataclass(frozen=True)
class Splits:
    """The examples of a source. The three splits never share an id or a question.

    Attributes:
      pool: the training examples, from which the teacher's queries are selected.
      dev: for early stopping, thresholds and other choices; never trained on.
      test: only for the report.
      bad: rows that were left out because of `data.on_bad_row="skip"`.
      cut: split -> its number of rows before sampling, for splits that `data.pool`, `data.dev` or
        `data.test` made smaller.
      replaced: the number of rows in which U+FFFD replaced an invalid character.
      divided: whether the rows had no split and were divided here (`data.dividing`).
      groups: if so, the number of groups of near-duplicate questions; each group is in one split.
    """

    pool: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    bad: BadRows = dataclasses.field(default_factory=BadRows)
    replaced: int = 0
    cut: Mapping[str, int] = dataclasses.field(default_factory=dict)
    divided: bool = False
    groups: int = 0


def read_task(config: DataConfig) -> Task:
    """Returns the task in a config, or in the file that it names.

    Raises:
      UserError: the file cannot be read or is not of the form above, the instruction is blank, a
        description is empty, or both the file and the config have a task.
    """
    if config.instruction and not config.instruction.strip():
        raise UserError(
            f"data.instruction={config.instruction!r} is blank; describe the task, or leave it out"
        )
    if not config.task_file:
        return _task(config.instruction, config.label_descriptions, "data.", "label_descriptions")
    where = f"data.task_file={config.task_file}"
    for name in ("instruction", "label_descriptions"):
        if getattr(config, name):
            raise UserError(f"data.{name} and {where} both define the task: keep one")
    try:
        value = tomllib.loads(Path(config.task_file).read_bytes().decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{where}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except (ValueError, RecursionError) as error:  # A 5,000-digit integer raises a ValueError.
        raise UserError(f"{where}: is not TOML: {error}; {_TASK_FORM}") from None
    for key in value:
        if key not in _TASK_KEYS:
            (near,) = difflib.get_close_matches(key, _TASK_KEYS, n=1, cutoff=0.0)
            raise UserError(f"{where}: unknown key {key!r}; did you mean {near!r}? {_TASK_FORM}")
    labels = value.get("labels", {})
    if not isinstance(labels, dict):
        kind = type(labels).__name__
        raise UserError(f"{where}: [labels] must be a table, got {kind}; {_TASK_FORM}")
    task = _task(value.get("instruction", ""), labels, f"{where}: ", "[labels]")
    if not task.is_said:
        raise UserError(f"{where}: is empty; {_TASK_FORM}")
    return task


def with_task_text(config: DataConfig) -> DataConfig:
    """Returns `config` with the content of its task file in place of the file's name.

    A workdir therefore holds the task of its run, even if the file is moved or changed later.
    """
    if not config.task_file:
        return config
    task = read_task(config)
    return dataclasses.replace(
        config,
        instruction=task.instruction,
        label_descriptions=dict(task.label_descriptions),
        task_file="",
    )


def check_labels(task: Task, labels: Iterable[str]) -> None:
    """Raises a `UserError` unless every description belongs to one of the data's labels."""
    known = sorted(set(labels))
    for label in task.label_descriptions:
        if label in known:
            continue
        if not known:
            raise UserError(
                f"the description of label {label!r}: no question has labels, which require "
                "data.kind=label; describe it in data.instruction"
            )
        (near,) = difflib.get_close_matches(label, known, n=1, cutoff=0.0)
        shown = ", ".join([*known[:20], *(["..."] if len(known) > 20 else [])])
        raise UserError(
            f"the description of label {label!r}: the labels are {shown}; did you mean {near!r}?"
        )


def _task(instruction: Any, descriptions: Mapping[str, Any], where: str, table: str) -> Task:
    """Returns the task with its texts stripped; `where` and `table` name its parts in messages."""
    if not isinstance(instruction, str):
        kind = type(instruction).__name__
        raise UserError(f"{where}instruction is of type {kind}, not a string")
    found = {}
    for label, text in descriptions.items():
        if not isinstance(text, str):
            raise UserError(
                f"{where}{table}: the description of {label!r} is of type {type(text).__name__}, "
                "not a string"
            )
        if not label.strip() or not text.strip():
            raise UserError(
                f"{where}{table}: {label!r} = {text!r} is empty; describe the label or leave it out"
            )
        if label.strip() in found:
            raise UserError(f"{where}{table}: {label.strip()!r} is described twice; keep one")
        found[label.strip()] = text.strip()
    return Task(instruction.strip(), found)
