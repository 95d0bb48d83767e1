"""Defines a stage: a plain function of its parameters and inputs.

It reads results of other stages, and inputs from outside the run. `pipeline.execution` runs it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.load import Load


@dataclasses.dataclass(frozen=True)
class Input:
    """Something from outside the run that stages read: data, a model, a mesh.

    Attributes:
      open: returns what a stage is given.
      key: returns the hash of its content; "" leaves it out of keys.
      files: returns name -> SHA-256 of the files behind it, for the hosts to compare.
    """

    open: Callable[[], Any]
    key: Callable[[], str] = lambda: ""
    files: Callable[[], Mapping[str, str]] = dict


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of a run.

    Attributes:
      artifact: its row of the table.
      run: called with `params`, the `Folder` to write to, and by name what it reads; called again
        with the same folder after an interruption.
      params: a frozen dataclass with all that it takes from the config.
      reads: argument of `run` -> the name of a stage, whose `Folder` it is given, or of an input.
      load: what it puts through its model or asks the teacher, for the planner; None if nothing.
      mend: as `run`; called with the folder of a finished stage and the names of its damaged files;
        returns whether they are whole again. Otherwise the stage runs again.
      keyed_by: inputs that are in its keys, though `run` is not given them.
    """

    artifact: Artifact
    run: Callable[..., None]
    params: Any
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    load: Load | None = None
    mend: Callable[..., bool] | None = None
    keyed_by: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.artifact.name
