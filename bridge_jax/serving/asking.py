"""Describes how a model is asked: its task, its prompts, and how its replies are read.

A run has these settings in its config. `launch.export` writes them beside the weights, so that an
exported folder needs nothing else to be asked as in training. For any other model they are given by
flags (`--data.kind=label --data.choices=...`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from bridge_jax.config import DataConfig, GenerationConfig, RunConfig
from bridge_jax.config.data import COLUMNS
from bridge_jax.config.fields import Count, OneOf, Place, Range, Share, Size, check
from bridge_jax.config.io import from_json, to_json
from bridge_jax.data import practice, sources
from bridge_jax.data.example import with_task_text
from bridge_jax.errors import UserError
from bridge_jax.methods import states_budgets
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.text.thinking import Form

FILE = "bridge_jax.json"  # Beside an exported model.
FORMAT = 1
# Columns that are read of a question; a run's data may have others.
_READ = ("id", "question", "answer", "choices")
_KINDS_DRAWN = 60  # Practice questions, enough for one of each domain.


@dataclasses.dataclass(frozen=True)
class QuestionsConfig:
    """The questions of a file, and their task.

    Attributes:
      path: a file of JSON Lines or CSV, by its suffix; it is not exported.
      columns: one of our `COLUMNS` -> the file's column.
      instruction, label_descriptions, task_file: the task, as in `DataConfig`.
      kind: of answers, as in `DataConfig`; empty where it is not known.
      choices, answer_is, min_rouge, decimal: how answers are read, as in `DataConfig`.
    """

    path: Place = ""
    columns: Mapping[Annotated[str, OneOf(COLUMNS)], str] = dataclasses.field(default_factory=dict)
    instruction: str = ""
    label_descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    task_file: Place = ""
    kind: Literal["", "choice", "label", "numeric", "math", "text"] = ""
    choices: tuple[str, ...] = ()
    answer_is: Literal["auto", "text", "letter", "index", "number"] = "auto"
    min_rouge: Annotated[float, Range(above=0, most=1)] = 0.5
    decimal: Literal["", ".", ","] = ""

    def as_data(self) -> DataConfig:
        """Returns the settings with which rows are read; the text of the task file in its place."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kind = given.pop("kind") or DataConfig.kind
        return with_task_text(DataConfig(source="jsonl", kind=kind, **given))


@dataclasses.dataclass(frozen=True)
class BudgetsConfig:
    """The budgets of thinking that a model was trained at.

    Attributes:
      levels: tokens, from small to large; empty where it was trained at none.
      form: of its replies: where the thinking ends (`text.thinking`).
      closing: the text that ends thinking that is cut off.
      answer_tokens: reserved for the answer. 64 is our default for models without budgets, whose
        answers may be longer.
    """

    levels: tuple[Size, ...] = ()
    form: Form = "plain"
    closing: str = ""
    answer_tokens: Size = 64


@dataclasses.dataclass(frozen=True)
class AskingConfig:
    """Describes how a model is asked.

    Attributes:
      data: the questions.
      mode: the prompt: to `reason` before the answer, or to `answer` alone.
      max_prompt_tokens: a longer prompt has an error, or is cut; 0 is what the context leaves.
      on_long_prompt: as in `RunConfig`.
      generation: how the model writes.
      seed: of sampling.
      matmul: the dtype of products, as in `ModelConfig`.
      thinking: its budgets.
      least_confidence: from which answers are marked as trusted, as in `EvaluationConfig`; 0 marks
        none.
    """

    data: QuestionsConfig = dataclasses.field(default_factory=QuestionsConfig)
    mode: Literal["reason", "answer"] = "reason"
    max_prompt_tokens: Count = 0
    on_long_prompt: Literal["error", "cut_end", "cut_beginning", "cut_middle"] = "error"
    generation: GenerationConfig = dataclasses.field(default_factory=GenerationConfig)
    seed: Count = 0
    matmul: Literal["auto", "bfloat16"] = "auto"
    thinking: BudgetsConfig = BudgetsConfig()
    least_confidence: Share = 0.0


def of_run(config: RunConfig, role: Role, mode: Literal["reason", "answer"]) -> AskingConfig:
    """Returns how a run asks the model of a role in its tests; `mode` is of their prompts."""
    data = with_task_text(config.data)
    names = {field.name for field in dataclasses.fields(QuestionsConfig)}
    kept = {name: getattr(data, name) for name in names - {"path", "task_file"}}
    kept["columns"] = {ours: name for ours, name in data.columns.items() if ours in _READ}
    if data.source == "practice":
        kept |= _of_practice(config)
    thinking = BudgetsConfig()
    if states_budgets(config.method) and role == "student":
        how = config.thinking
        thinking = BudgetsConfig(how.levels, how.form, how.closing, how.answer_tokens)
    return AskingConfig(
        QuestionsConfig(**kept),
        mode,
        config.max_prompt_tokens,
        config.on_long_prompt,
        config.generation,
        config.seed,
        getattr(config, role).matmul,
        thinking,
        # It was chosen for the answers of the student.
        config.evaluation.least_confidence if role == "student" else 0.0,
    )


def _of_practice(config: RunConfig) -> dict[str, Any]:
    """Returns kind and choices of practice tasks, which have their own; empty if they are mixed."""
    data = config.data
    if data.kind == "text":
        return {"kind": "text", "choices": ()}
    names = ("domains", "min_steps", "max_steps", "families")
    settings = {name: getattr(data, name) for name in names}
    drawn = practice.generate(
        config.seed,
        pool=min(data.pool or sources.SIZES["pool"], _KINDS_DRAWN),
        dev=0,
        test=0,
        **settings,
    )
    kinds = {example.kind for example in drawn.pool}
    choices = {example.choices for example in drawn.pool}
    return {
        "kind": kinds.pop() if len(kinds) == 1 else "",
        "choices": choices.pop() if len(choices) == 1 else (),
    }


def write(folder: Path, asking: AskingConfig) -> None:
    """Writes how an exported model is asked; it has no path of this machine."""
    facts: dict[str, Any] = {"format": FORMAT} | to_json(asking)
    for name in ("path", "task_file"):
        del facts["data"][name]
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def read(model: Path) -> AskingConfig:
    """Returns how an exported model is asked; the defaults for any other folder or file.

    Raises:
      UserError: the file is damaged, or of a later version.
    """
    path = model / FILE
    if not path.is_file():
        return AskingConfig()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UserError(
                f"format {facts['format']!r} is not the one that is read here, {FORMAT}; use the "
                "version of bridge-jax that wrote it"
            )
        found = from_json(AskingConfig, facts)
        check(found)
    except UserError as error:
        raise UserError(f"{path}: {error}, or export the model again") from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); export the model again") from error
    return found
