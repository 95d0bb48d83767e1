"""Finds the model that is to answer, and the settings for asking it.

The model is an exported folder, a checkpoint, or a role of a run. The settings cover its task, its
prompts, and how its replies are parsed. A run has them in its config. `launch.export` writes them
beside the weights, so an exported folder needs nothing else to be asked as in training. For any
other model, flags give them (`--data.kind=label --data.choices=...`).
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from bridge_jax import methods
from bridge_jax.config import DataConfig, GenerationConfig, MeshConfig, ModelConfig, RunConfig
from bridge_jax.config import io as config_io
from bridge_jax.config.data import COLUMNS
from bridge_jax.config.fields import Count, OneOf, Place, Range, Share, Size, check
from bridge_jax.config.io import from_json, to_json
from bridge_jax.data import practice, sources
from bridge_jax.data.example import with_task_text
from bridge_jax.errors import UserError
from bridge_jax.generation.budgets import Cap
from bridge_jax.methods import states_budgets
from bridge_jax.models.hub.checkpoint import planned_config, read_config
from bridge_jax.models.hub.files import locate
from bridge_jax.models.layouts import Use, choose
from bridge_jax.parallel import chips
from bridge_jax.pipeline import storage
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import Hashes
from bridge_jax.pipeline.files import read_json
from bridge_jax.pipeline.models import Model, RoleModel
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.thinking import TAGS, Form, thinking_of
from bridge_jax.text.tokenizer import Tokenizer

FILE = "bridge_jax.json"  # The settings, beside an exported model.
FORMAT = 1
# Columns that are read for a question; a run's data may map others.
_READ = ("id", "question", "answer", "choices")
_KINDS_DRAWN = 60  # Number of practice questions, enough to get one of each domain.


@dataclasses.dataclass(frozen=True)
class QuestionsConfig:
    """A file of questions, and their task.

    Attributes:
      path: a JSON Lines or CSV file, told apart by suffix; the path is not exported.
      columns: one of our `COLUMNS` -> the file's column.
      instruction, label_descriptions, task_file: the task, as in `DataConfig`.
      kind: kind of answers, as in `DataConfig`; empty if it is not known.
      choices, answer_is, min_rouge, decimal: how answers are parsed, as in `DataConfig`.
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
        """Returns the settings for reading rows, with the task file replaced by its content."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kind = given.pop("kind") or DataConfig.kind
        return with_task_text(DataConfig(source="jsonl", kind=kind, **given))


@dataclasses.dataclass(frozen=True)
class BudgetsConfig:
    """The thinking budgets that a model was trained at.

    Attributes:
      levels: budgets in tokens, from small to large; empty if it was trained at none.
      form: form of its replies, which determines where the thinking ends (`text.thinking`).
      closing: the text that is inserted to end thinking that is cut off.
      answer_tokens: tokens reserved for the answer. 64 is our default for models without budgets,
        whose answers may be longer.
    """

    levels: tuple[Size, ...] = ()
    form: Form = "plain"
    closing: str = ""
    answer_tokens: Size = 64


@dataclasses.dataclass(frozen=True)
class AskingConfig:
    """Settings for asking a model.

    Attributes:
      data: the questions.
      mode: mode of the prompts: `reason` before the answer, or `answer` only.
      max_prompt_tokens: a longer prompt is an error, or is cut; 0 is what the context leaves.
      on_long_prompt: as in `RunConfig`.
      generation: settings of generation.
      seed: seed of sampling.
      matmul: the dtype of matrix products, as in `ModelConfig`.
      thinking: the model's thinking budgets.
      least_confidence: minimum confidence of answers that are marked as trusted, as in
        `EvaluationConfig`; 0 marks none.
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


def asking_of_run(config: RunConfig, role: Role, mode: Literal["reason", "answer"]) -> AskingConfig:
    """Returns the settings that a run's tests of a role use, with prompts in `mode`."""
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
        # The threshold was chosen on the student's answers.
        config.evaluation.least_confidence if role == "student" else 0.0,
    )


def _of_practice(config: RunConfig) -> dict[str, Any]:
    """Returns kind and choices of practice tasks, which set their own; empty if they differ."""
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


def write_asking(folder: Path, asking: AskingConfig) -> None:
    """Writes an exported model's settings, without paths of this machine."""
    facts: dict[str, Any] = {"format": FORMAT} | to_json(asking)
    for name in ("path", "task_file"):
        del facts["data"][name]
    text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
    (folder / FILE).write_text(text, encoding="utf-8")


def read_asking(model: Path) -> AskingConfig:
    """Returns an exported model's settings; the defaults for any other folder or file.

    Raises:
      UserError: the settings file is damaged, or has another format version.
    """
    path = model / FILE
    if not path.is_file():
        return AskingConfig()
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise UserError(
                f"format {facts['format']!r} is not supported, only {FORMAT} is; use the version "
                "of bridge-jax that wrote it"
            )
        found = from_json(AskingConfig, facts)
        check(found)
    except UserError as error:
        raise UserError(f"{path}: {error}, or export the model again") from error
    except (OSError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: damaged ({error}); export the model again") from error
    return found


_USUAL = 1024  # Prompt tokens to plan the mesh layout for, if no limit is set.


@dataclasses.dataclass(frozen=True)
class TrainedRole:
    """The model of a role as a run has trained and tested it.

    Attributes:
      config: the run's config.
      made: the folder of the stage that trained it last.
      asking: the settings of the run's tests.
    """

    config: RunConfig
    made: Folder
    asking: AskingConfig


def trained(workdir: Path, role: Role) -> TrainedRole:
    """Finds the model of a role in a workdir, without loading it.

    Raises:
      UserError: there is no run, its method has no such model, or it is not trained yet.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir}: holds no run; pass the folder that launch.run wrote")
    config = config_io.read(RunConfig, workdir / "config.json")
    plan = {stage.name: stage for stage in methods.stages(config)}
    tests = (stage for stage in plan.values() if stage.artifact.work == "evaluate")
    test = next(
        (t for t in tests if t.artifact.measured and t.artifact.measured.name == role), None
    )
    if test is None:
        raise UserError(f"{workdir}: method={config.method} produces no {role}")
    made = plan[test.reads["made"]]
    if not storage.finished(workdir, made.name):
        raise UserError(
            f"{workdir}: stage {made.name} is not finished with this run's config; finish the run"
        )
    asking = asking_of_run(config, role, test.params.mode)
    return TrainedRole(config, Folder(workdir / made.name, made.artifact), asking)


@dataclasses.dataclass(frozen=True)
class FoundModel:
    """A model that can answer, not yet loaded.

    Attributes:
      role: its role in its run; a checkpoint without a run is a student.
      selected: its checkpoint.
      made: the folder of the stage that trained it; None for a checkpoint as it is.
      asking: the settings for asking it, as far as they are known.
      where: its name in messages.
    """

    role: Role
    selected: ModelConfig
    made: Folder | None
    asking: AskingConfig
    where: str

    def load(self, asking: AskingConfig, devices: Sequence[Any] | None = None) -> Model:
        """Loads the model onto the devices.

        Args:
          asking: its `matmul`, `generation` and `max_prompt_tokens` determine dtypes and layout.
          devices: the target devices; by default all.
        """
        chips.keep_freed_memory()
        selected = dataclasses.replace(self.selected, matmul=asking.matmul)
        planned = planned_config(selected, devices[0] if devices else None)
        longest = (asking.max_prompt_tokens or _USUAL) + asking.generation.max_new_tokens
        use = Use(asking.generation.batch_size, min(longest, planned.max_positions))
        meshes = choose(planned, MeshConfig(), devices, use)
        loader = RoleModel(selected, meshes.training, asking.seed, meshes.generation)
        return loader.load(self.made)

    def identity(self, hashes: Hashes) -> dict[str, str]:
        """Returns the hashes that identify this model by what it was made from."""
        if self.made is not None:
            made = storage.manifest(self.made.path)
            assert made, "a finished stage has a manifest"
            return {"stage": self.made.artifact.name, "key": made["key"], "of": made["content"]}
        return {"of": hashes.of_place(Path(self.selected.checkpoint))}


def find(place: str, role: Role | None = None) -> FoundModel:
    """Finds the model that a flag names.

    Args:
      place: an exported folder, a run's workdir, or a checkpoint as in `ModelConfig`.
      role: a role of the run; by default the student.

    Raises:
      UserError: there is no such model, it is not trained yet, or `role` is given and `place` is
        not a workdir.
    """
    path = Path(place)
    config = read_json(path / "config.json") or {}
    if "assistant" in config and "student" in config:
        role = role or "student"
        run = trained(path, role)
        selected: ModelConfig = getattr(run.config, role)
        return FoundModel(role, selected, run.made, run.asking, f"the {role} of {place}")
    if role:
        raise UserError(f"--role={role}: {place} is not the workdir of a run; omit the flag")
    located = locate(place)
    selected = ModelConfig(str(located))
    read_config(selected)  # Faults of the checkpoint are reported before those of settings.
    return FoundModel("student", selected, None, read_asking(located), place)


def cap(tokenizer: Tokenizer, budgets: BudgetsConfig, budget: int, where: str) -> tuple[Cap, str]:
    """Returns the cap that cuts thinking off at a budget, and a note for the user, or "".

    Args:
      budgets: the budgets that the model was trained at.
      budget: number of thinking tokens.
      where: the model's name in messages.
    """
    form, note = budgets.form, ""
    if not budgets.levels:
        note = (
            "this model was not trained with budgets; the prompt states this one and thinking is "
            "cut off at it"
        )
        form = "plain" if None in map(tokenizer.marker, TAGS) else "tags"
    thinking = thinking_of(tokenizer, form, where)
    closing = tokenizer.encode(budgets.closing)
    return Cap(budget, thinking, budgets.answer_tokens, closing), note
