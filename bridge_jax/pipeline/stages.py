"""A stage: a plain function of parameters and of what it reads.

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
      key: returns what it is known by: its content; "" has no part in keys.
      files: returns path -> SHA-256 of the files behind it, for the hosts to compare.
    """

    open: Callable[[], Any]
    key: Callable[[], str] = lambda: ""
    files: Callable[[], Mapping[str, str]] = dict


@dataclasses.dataclass(frozen=True)
class Stage:
    """One arrow of the picture.

    Attributes:
      artifact: its row of the table.
      run: called with `params`, the `Folder` to write to, and by name what it reads; called again
        with the same folder after an interruption.
      params: a frozen dataclass with all that it takes from the config.
      reads: argument of `run` -> the name of a stage, whose `Folder` it is given, or of an input.
      load: what it puts through its model or asks the teacher, for the planner; None if nothing.
      mend: as `run`; called with a folder of a finished stage whose files are damaged; returns
        whether they are whole again. Otherwise the stage runs again.
    """

    artifact: Artifact
    run: Callable[..., None]
    params: Any
    reads: Mapping[str, str] = dataclasses.field(default_factory=dict)
    load: Load | None = None
    mend: Callable[..., bool] | None = None

    @property
    def name(self) -> str:
        """The name of the stage."""
        return self.artifact.name
