"""Declares the table of stages: names, titles, kinds of work, and output files.

Each row is declared in the file of the method that owns the stage (`bridge_jax.methods`). Keys,
report, planner, study and the checks of a config derive from it.
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
      name: in the stage's folder.
      kind: JSON Lines, a JSON object, a NumPy array, or the parameters of a model.
      row: a TypedDict with the fields of rows and records.
      is_result: whether the content of the stage covers it; sizes, times and costs are not covered.
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
    """The sizes of the trained and of the frozen part of a model."""

    trained: dict[str, int]
    frozen: dict[str, int]


class Step(typing.TypedDict):
    """One step of training (`training.recorder`).

    A step has a `NAME_loss` for each part of its objective; those of SFT are declared here.
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
      stage: its name.
      key: its deep key, the name of its folder.
      shallow: its shallow key.
      content: the hash of its own result.
      files: path in the folder -> SHA-256.
      seconds: of work.
      restarts: after interruptions.
      compilations: programs that were compiled since the last of them.
      spans: seconds of `compile`, `data`, `dev` and `checkpoint`, of those that took any.
      made_with: the versions of libraries, the backend and the devices.
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
VALUES = record("values.json", Values)  # of PARAMS, by `content.of_params`
CURVE = rows("metrics.jsonl", Step, is_result=False)
SIZES = record("parameters.json", Sizes, is_result=False)
TRAINED = (PARAMS, VALUES, CURVE, SIZES)


@dataclasses.dataclass(frozen=True)
class MeasuredModel:
    """A model whose answers to the test questions are measured.

    Attributes:
      name: in `report.json`.
      title: in words.
      note: what was done to it, in words; a method may have its own words for it.
      is_before: whether it is not trained on the task yet; its answers are not shown then.
    """

    name: str
    title: str
    note: str
    is_before: bool = False


@dataclasses.dataclass(frozen=True)
class Artifact:
    """A row of the table.

    Attributes:
      name: of the stage; also its folder under the workdir.
      title: in words, for the report.
      work: what kind of work it is.
      role: whose model it works with; None where it runs none.
      files: its output files.
      version: raised when the files change their meaning.
      is_last: of a training: whether the report says how much of the role's model it trains; of
        trainings of the same model, one.
      measured: of an evaluation: the model.
    """

    name: str
    title: str
    work: Work
    role: Role | None = None
    files: tuple[File, ...] = ()
    version: int = 1
    is_last: bool = False
    measured: MeasuredModel | None = None
