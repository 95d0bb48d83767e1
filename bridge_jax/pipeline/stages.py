"""Defines a stage, what it reads, its work and its keys; and a method as a list of stages.

A stage is a plain function of its parameters, of results of other stages, and of inputs from
outside the run. `pipeline.execution` runs it.

It has two keys. The *deep* key is the hash of the stage, its parameters and the deep keys of what
it reads: it is known before a run. The *shallow* key is the hash of the stage, its parameters and
the content of what it reads. Fields that change speed or cost alone, which are marked `UNKEYED`
where they are declared, are in neither.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from bridge_jax.config import GenerationConfig, RunConfig
from bridge_jax.config.fields import Unkeyed
from bridge_jax.pipeline.artifacts import Artifact, Role
from bridge_jax.pipeline.content import of_value
from bridge_jax.text.prompts import Mode

_DIGITS = 24  # of a key, hexadecimal; it is the name of a folder


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of stages from outside the run: data, a model, a mesh.

    Attributes:
      open: returns what a stage is given.
      key: returns the hash of its content; "" leaves it out of keys.
      files: returns name -> SHA-256 of its files, which all hosts must have alike.
    """

    open: Callable[[], Any]
    key: Callable[[], str] = lambda: ""
    files: Callable[[], Mapping[str, str]] = dict


@dataclasses.dataclass(frozen=True)
class ByLength:
    """Batches of rows whose width follows from the lengths: `tokens` in each, at most."""

    tokens: int


@dataclasses.dataclass(frozen=True)
class Packed:
    """Batches of `rows` rows of `tokens`; a row holds as many sequences as it has room for."""

    rows: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class OwnReplies:
    """Describes the replies that a training has its own model write before each step.

    Attributes:
      count: replies of a step.
      generation: how they are written; `max_new_tokens` is the length of the longest.
      reader: the role of another model that reads them before they are learned from; None if there
        is none.
      soft: how many of that model's most probable tokens are kept at each target; 0 keeps the
        probability of the reply's own token.
    """

    count: int
    generation: GenerationConfig
    reader: Role | None = None
    soft: int = 0


@dataclasses.dataclass(frozen=True)
class Workload:
    """The work of a stage as it is known before the run; for the planner.

    Attributes:
      of: the set of examples.
      count: their number, where it does not follow from the data; 0 otherwise.
      text: what is read beside the prompt: an `answer`, a `rationale` with its answer, or in `both`
        passes each by itself.
      modes: how the model is asked; each example once in each mode.
      samples: of each example; of retries, at most.
      soft: the most probable tokens of another model beside each target.
      share: fraction of the examples, where their number follows from the data; at least one.
      batch: how a scoring forms its batches. A training has its `TrainSpec` for that, and a
        generation its `GenerationConfig`.
      as_long_as: of a training without a number of epochs or steps of its own: the trainings that
        take as many steps together.
      replies: of a training on a model's own replies.
    """

    of: Literal["pool", "dev", "test", "selected", "instructions"]
    count: int = 0
    text: Literal["answer", "rationale", "both"] = "rationale"
    modes: tuple[Mode, ...] = ("reason",)
    samples: int = 1
    soft: int = 0
    share: float = 1.0
    batch: ByLength | Packed | None = None
    as_long_as: "tuple[Stage, ...]" = ()
    replies: OwnReplies | None = None

    @property
    def passes(self) -> int:
        """The number of sequences of each example."""
        texts = len(self.modes) + 1 if self.text == "both" else len(self.modes)
        return self.samples * texts


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
      artifact: its row of the table.
      run: called with `params`, the `Folder` to write to, and by name what it reads; called again
        with the same folder after an interruption.
      params: a frozen dataclass with all that it takes from the config.
      reads: argument of `run` -> the name of a stage, whose `Folder` it is given, or of an input.
      workload: what it puts through its model or asks the teacher, for the planner; None if it does
        neither.
      repair: as `run`; called with the folder of a finished stage and the names of its damaged
        files; returns whether they are whole again. Otherwise the stage runs again.
      keyed_by: inputs that are in its keys, though `run` is not given them.
      check: called with the config and the inputs of the run, before anything is trained or paid;
        raises a `UserError` for what the stage cannot work with.
    """

    artifact: Artifact
    run: Callable[..., None]
    params: Any
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    workload: Workload | None = None
    repair: Callable[..., bool] | None = None
    keyed_by: tuple[str, ...] = ()
    check: Callable[[RunConfig, Any], None] | None = None

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.artifact.name


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method: its stages, and its wording in reports.

    Attributes:
      name: the value of `method` in the config.
      title: as in "The student of ...".
      artifacts: rows of the table for every stage that it may run, in the order of reports.
      stages: returns the stages of a config, in the order in which they are run.
      notes: name of a measured model -> how this method trained it, where the table's note is not
        right.
      check: raises a `UserError` for a config that the method cannot work with.
    """

    name: str
    title: str
    artifacts: tuple[Artifact, ...]
    stages: Callable[[RunConfig], list[Stage]]
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[[RunConfig], None] = lambda _: None


def keyed_values(value: Any) -> Any:
    """Returns parameters as JSON values, without the fields that are in no key."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = typing.get_type_hints(type(value), include_extras=True)
        names = (field.name for field in dataclasses.fields(value))
        return {
            name: keyed_values(getattr(value, name)) for name in names if _is_keyed(hints[name])
        }
    if isinstance(value, tuple | list):
        return [keyed_values(part) for part in value]
    if isinstance(value, Mapping):
        return {str(key): keyed_values(part) for key, part in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 0 and 0.0 are one.
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} cannot be part of a key")


def _is_keyed(hint: Any) -> bool:
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return not any(isinstance(mark, Unkeyed) for mark in marks)


def deep_keys(stages: Sequence[Stage], inputs: Mapping[str, Input]) -> dict[str, str]:
    """Returns the deep key of each stage, in order."""
    known: dict[str, str] = {}
    for stage in stages:
        known[stage.name] = key_of(stage, inputs, known.__getitem__)
    return known


def key_of(stage: Stage, inputs: Mapping[str, Input], result: Callable[[str], str]) -> str:
    """Returns the key of a stage.

    Args:
      stage: the stage whose key is computed.
      inputs: by name.
      result: name of a stage that it reads -> its deep key, for a deep key, or the hash of its
        content, for a shallow one.
    """
    read = {
        argument: inputs[name].key() if name in inputs else result(name)
        for argument, name in stage.reads.items()
    }
    read |= {name: inputs[name].key() for name in stage.keyed_by}
    keyed = {
        "stage": stage.artifact.name,
        "version": stage.artifact.version,
        "params": keyed_values(stage.params),
        "reads": {argument: found for argument, found in read.items() if found},
    }
    return of_value(keyed)[:_DIGITS]
