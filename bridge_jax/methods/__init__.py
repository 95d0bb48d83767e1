"""Registers the training methods; each one reads like the list of steps in its paper.

A new method takes one file and one entry in `METHODS`.
"""

import dataclasses
from collections.abc import Collection, Sequence

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError, nearest
from bridge_jax.methods import (
    baselines,
    bridge,
    budgeted,
    on_policy,
    reinforcement,
    selection_parts,
)
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.pipeline.artifacts import ROLES, Artifact, MeasuredModel
from bridge_jax.pipeline.stages import Method, Stage

METHODS: dict[str, Method] = {
    found.name: found
    for found in (
        bridge.METHOD,
        on_policy.METHOD,
        baselines.DIRECT_METHOD,
        baselines.SELF_TRAINING_METHOD,
        baselines.LABELS_METHOD,
        budgeted.METHOD,
        reinforcement.METHOD,
    )
}
# Phase -> the folders of its stages; () stands for all stages.
PHASES = {
    "all": (),
    "apprenticeship": ("apprenticeship",),
    "tutoring": ("tutoring", "baselines"),
    "budgets": ("budgets",),
    "evaluate": ("evaluation",),
}


def get_method(name: str) -> Method:
    """Returns the method of a name.

    Raises:
      UserError: no method has this name.
    """
    if name not in METHODS:
        raise UserError(f"method={name} is unknown; choose one of {', '.join(METHODS)}")
    return METHODS[name]


def stages(config: RunConfig, until: str = "all", finished: Collection[str] = ()) -> list[Stage]:
    """Returns the stages of a part of a run, and the stages that they depend on.

    Args:
      until: a key of `parts`.
      finished: names of stages whose results are reused as they are, so that they do not need the
        stages before them.

    Raises:
      UserError: the run has no such part.
    """
    plan = get_method(config.method).stages(config)
    known = parts(plan)
    if until not in known:
        short = [name for name in known if "/" not in name]
        raise UserError(
            f"--stop_after={until}: not part of this run; did you mean {nearest(until, known)}? "
            f"Choose one of {', '.join(short)}"
        )
    wanted = set(known[until])
    for stage in reversed(plan):
        if stage.name in wanted and stage.name not in finished:
            wanted.update(stage.reads.values())
    return [stage for stage in plan if stage.name in wanted]


def parts(plan: Sequence[Stage]) -> dict[str, list[str]]:
    """Returns the parts of a run that it can stop after, each with the names of its stages.

    A part is a phase, a stage (by its name with or without the folder), or a role. The part of a
    role is the last training of its model; that of the teacher is all stages that ask it. If a name
    fits several of these, the first one counts, and a training comes before a test.
    """
    found = {
        phase: [stage.name for stage in plan if not folders or stage.name.split("/")[0] in folders]
        for phase, folders in PHASES.items()
    }
    for stage in sorted(plan, key=lambda stage: stage.artifact.work == "evaluate"):
        found.setdefault(stage.name.rpartition("/")[2], [stage.name])
    last = {stage.artifact.role: stage.name for stage in plan if stage.artifact.is_last}
    for role in ROLES:
        if role in last:
            found.setdefault(role, [last[role]])
    if asks := [stage.name for stage in plan if stage.artifact.work == "ask"]:
        found.setdefault("teacher", asks)
    return found | {stage.name: [stage.name] for stage in plan}


def annotation_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Returns the stages that ask the teacher about the selected examples, one for each part.

    The last one asks about the examples of all parts.
    """
    return [stage for stage in stages if stage.artifact in selection_parts.ANNOTATED]


def teacher_stages(stages: Sequence[Stage]) -> list[Stage]:
    """Returns all stages that ask the teacher, about the pool, the test split or the dev split."""
    return [stage for stage in stages if stage.artifact.work == "ask"]


def table(method: str | None = None) -> dict[str, Artifact]:
    """Returns the artifacts of one method, or of all methods, by stage name."""
    chosen = [METHODS[method]] if method in METHODS else list(METHODS.values())
    return {artifact.name: artifact for found in chosen for artifact in found.artifacts}


def measured(method: str | None = None) -> dict[str, MeasuredModel]:
    """Returns the models that one method measures, or all methods, in report order.

    A method's own notes on its models replace the default ones.
    """
    notes = METHODS[method].notes if method in METHODS else {}
    found = [artifact.measured for artifact in table(method).values() if artifact.measured]
    return {
        each.name: dataclasses.replace(each, note=notes.get(each.name, each.note)) for each in found
    }


def states_budgets(method: str) -> bool:
    """Returns whether the prompts of a method's student state a thinking budget."""
    return budgeted.BUDGETED.name in table(method)


def asks(method: str | None = None) -> bool:
    """Returns whether a method (by default, any method) learns from a teacher."""
    return ANNOTATIONS.name in table(method)
