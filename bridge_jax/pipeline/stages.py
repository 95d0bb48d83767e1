"""Defines stages, with their inputs, work and keys, and methods as lists of stages.

A stage is a plain function of its parameters, the results of other stages, and inputs from outside
the run. `pipeline.execution` runs it.

It has two keys. The *deep* key is the hash of the stage, its parameters and the deep keys of what
it reads; it is known before a run. The *shallow* key is the hash of the stage, its parameters and
the content of what it reads. Fields that change only speed or cost are marked `UNKEYED` where they
are declared, and are in neither.
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

_DIGITS = 24  # Hexadecimal digits of a key, which is also the name of a folder.


@dataclasses.dataclass(frozen=True)
class Input:
    """An input of stages from outside the run: data, a model, a mesh.

    Attributes:
      open: returns the value that a stage is given.
      key: returns the hash of its content; "" leaves it out of keys.
      files: returns name -> SHA-256 of its files, which must be the same on all hosts.
    """

    open: Callable[[], Any]
    key: Callable[[], str] = lambda: ""
    files: Callable[[], Mapping[str, str]] = dict


@dataclasses.dataclass(frozen=True)
class ByLength:
    """Batches whose row width depends on the sequence lengths, of at most `tokens` tokens each."""

    tokens: int


@dataclasses.dataclass(frozen=True)
class Packed:
    """Batches of `rows` packed rows of `tokens` tokens; a row holds as many sequences as fit."""

    rows: int
    tokens: int


@dataclasses.dataclass(frozen=True)
class OwnReplies:
    """Describes the replies that a training generates with its own model before each step.

    Attributes:
      count: number of replies in a step.
      generation: the settings of generation; `max_new_tokens` is the length of the longest reply.
      reader: the role of another model that computes probabilities for the replies before the
        step; None if there is none.
      soft: how many of that model's most probable tokens are kept at each target; 0 keeps only the
        probability of the reply's own token.
    """

    count: int
    generation: GenerationConfig
    reader: Role | None = None
    soft: int = 0


@dataclasses.dataclass(frozen=True)
class Workload:
    """The work of a stage as far as it is known before the run, for the planner.

    Attributes:
      of: the set of examples.
      count: the number of examples, if it does not follow from the data; otherwise 0.
      text: the text after the prompt: an `answer`; a `rationale` with its answer; or `both`, as two
        sequences.
      modes: the prompt modes; each example is used once in each mode.
      samples: number of samples for each example; for retries, the most.
      soft: number of another model's most probable tokens stored at each target.
      share: fraction of the examples, if their number follows from the data; at least one example.
      batch: how a scoring stage forms its batches. A training has its `TrainSpec` for that, and a
        generation its `GenerationConfig`.
      as_long_as: for a training with no number of epochs or steps of its own, the trainings whose
        total number of steps it takes.
      replies: for a training on a model's own replies, these replies.
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
        """The number of sequences for each example."""
        texts = len(self.modes) + 1 if self.text == "both" else len(self.modes)
        return self.samples * texts


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
      artifact: its row of the table.
      run: called with `params`, the `Folder` to write to, and, by keyword, the stages and inputs
        that it reads; called again with the same folder after an interruption.
      params: a frozen dataclass with everything that it takes from the config.
      reads: argument of `run` -> name of a stage, passed as its `Folder`, or name of an input.
      workload: the examples that it runs its model on or asks the teacher about, for the planner;
        None if it does neither.
      repair: like `run`, but called with the folder of a finished stage, followed by the names of
        its damaged files; returns whether they are complete again. If not, the stage runs again.
      keyed_by: inputs that are part of its keys, although `run` does not receive them.
      check: called with the config and the inputs of the run, before anything is trained or paid
        for; raises a `UserError` if the stage cannot work with them.
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
      title: what it is, to complete "The student of ...".
      artifacts: rows of the table for every stage that it may run, in the order of reports.
      stages: returns the stages of a config, in the order in which they run.
      notes: name of a measured model -> how this method trained it, where the table's note does
        not apply.
      check: raises a `UserError` for a config that the method cannot work with.
    """

    name: str
    title: str
    artifacts: tuple[Artifact, ...]
    stages: Callable[[RunConfig], list[Stage]]
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[[RunConfig], None] = lambda _: None


def keyed_values(value: Any) -> Any:
    """Returns parameters as JSON values, without their unkeyed fields."""
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
        return int(value)  # 0 and 0.0 give the same key.
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
      inputs: the inputs by name.
      result: returns, for the name of a stage that it reads, that stage's deep key (for a deep key)
        or content hash (for a shallow one).
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
