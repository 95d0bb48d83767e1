"""Declares the table of stages: names, titles, kinds of work, and output files.

Each row is declared in the module of `bridge_jax.methods` that owns the stage. Keys, report,
planner, study and the checks of a config are derived from the table.
"""

import dataclasses
import typing
from typing import Any, Literal

Role = Literal["assistant", "student"]
ROLES: tuple[Role, ...] = typing.get_args(Role)
Work = Literal["train", "score", "generate", "select", "ask", "judge", "evaluate"]
FileKind = Literal["rows", "record", "array", "params"]


@dataclasses.dataclass(frozen=True)
class File:
    """A file (for parameters a folder) that a stage writes.

    Attributes:
      name: its name in the stage's folder.
      kind: JSON Lines, a JSON object, a NumPy array, or the parameters of a model.
      row: a TypedDict with the fields of rows or of a record.
      is_result: whether the content hash of the stage covers it; sizes, times and costs are not
        covered.
    """

    name: str
    kind: FileKind
    row: Any = None
    is_result: bool = True

    @property
    def fields(self) -> tuple[str, ...]:
        """The declared fields of a row."""
        return tuple(typing.get_type_hints(self.row)) if self.row else ()


def rows(name: str, row: Any, is_result: bool = True) -> File:
    """Returns a JSON Lines file with rows of a TypedDict."""
    return File(name, "rows", row, is_result)


def record(name: str, row: Any, is_result: bool = True) -> File:
    """Returns a file with one JSON object of a TypedDict."""
    return File(name, "record", row, is_result)


def array(name: str) -> File:
    """Returns a .npy file."""
    return File(name, "array")


class Sizes(typing.TypedDict):
    """The sizes of the trained and the frozen part of a model."""

    trained: dict[str, int]
    frozen: dict[str, int]


class Step(typing.TypedDict):
    """One step of training (`training.recorder`).

    A step has a field `NAME_loss` for each part of its objective; only those of SFT are declared.
    """

    step: int
    loss: float
    rationale_loss: typing.NotRequired[float]
    answer_loss: typing.NotRequired[float]
    grad_norm: float
    step_seconds: float
    tokens_per_second: float
    mfu: typing.NotRequired[float]
    learning_rate: float


class Values(typing.TypedDict):
    """The hash of trained parameters."""

    sha256: str


class Manifest(typing.TypedDict):
    """The manifest of a finished stage, which `pipeline.storage` writes last and checks.

    Attributes:
      stage: the name of the stage.
      key: its deep key, which is the name of its folder.
      shallow: its shallow key.
      content: the hash of its own result.
      files: path in the folder -> SHA-256.
      seconds: of work, over all attempts.
      restarts: number of restarts after interruptions.
      compilations: number of programs compiled since the last restart.
      spans: seconds of `compile`, `data`, `dev` and `checkpoint` since the last restart, for those
        that took any.
      made_with: the versions, the machine and the devices (`pipeline.provenance`).
      dropped: whether its parameters were deleted to save space.
    """

    stage: str
    key: str
    shallow: str
    content: str
    files: dict[str, str]
    seconds: float
    restarts: int
    compilations: int
    spans: dict[str, float]
    made_with: dict[str, str]
    dropped: typing.NotRequired[bool]


PARAMS = File("params", "params", is_result=False)
VALUES = record("values.json", Values)  # The hash of PARAMS, by `content.of_params`.
CURVE = rows("metrics.jsonl", Step, is_result=False)
SIZES = record("parameters.json", Sizes, is_result=False)
TRAINED = (PARAMS, VALUES, CURVE, SIZES)


@dataclasses.dataclass(frozen=True)
class MeasuredModel:
    """A model whose answers to the test questions are measured.

    Attributes:
      name: its name in `report.json`.
      title: its name for people.
      note: how it was trained, in words; a method may replace them (`Method.notes`).
      is_before: whether it is a model before training on the task; its answers are not shown.
    """

    name: str
    title: str
    note: str
    is_before: bool = False


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A row of the table.

    Attributes:
      name: the name of the stage; also its folder under the workdir.
      title: its name in the report.
      work: the kind of work.
      role: the role whose model it uses; None if it uses none.
      files: its output files.
      version: incremented when the meaning of its files changes.
      is_last: for a training, whether it can be the last one of its role's model. The report says
        how much of the model is trained by the last such training of a method.
      measured: for an evaluation, the model.
    """

    name: str
    title: str
    work: Work
    role: Role | None = None
    files: tuple[File, ...] = ()
    version: int = 1
    is_last: bool = False
    measured: MeasuredModel | None = None
