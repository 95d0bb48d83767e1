"""Defines a method: its stages, and its wording in reports."""

import dataclasses
from collections.abc import Callable, Mapping

from bridge_jax.config import RunConfig
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.stages import Stage


def _no_check(_: RunConfig) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
      name: what `method` of the config says.
      title: as in "The student of ...".
      artifacts: rows of the table for every stage that it may run, in the order of reports.
      stages: returns the stages of a config, in the order in which they are run.
      notes: name of a measured model -> what this method did to it, where it is another thing.
      check: raises a `UserError` for a config that the method cannot work with.
    """

    name: str
    title: str
    artifacts: tuple[Artifact, ...]
    stages: Callable[[RunConfig], list[Stage]]
    notes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    check: Callable[[RunConfig], None] = _no_check
