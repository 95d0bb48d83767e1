"""Trains the assistant again on its own rationales, before it writes those the student learns.

A round writes rationales for the pool, filters them, and goes on training the assistant on those
that are kept, beside the teacher's (STaR, 2203.14465; ReST, 2308.08998). What an assistant learned
from few paid answers grows in this way, at no price: a guess that a gold answer confirms is a fact
that the teacher was not asked for.
"""

import dataclasses
from typing import NamedTuple

from bridge_jax.config import RunConfig
from bridge_jax.methods import inputs, rationales
from bridge_jax.methods.annotations import ANNOTATIONS
from bridge_jax.methods.fitting import dev_of, fit, fit_of
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.rationales import Learning, Writings
from bridge_jax.methods.sft_targets import SFTTargets
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Load, Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering

MOST = 3


class Round(NamedTuple):
    """The stages of a round."""

    writings: Writings
    assistant: Artifact


def _round(number: int) -> Round:
    def of(artifact: Artifact) -> Artifact:
        name = artifact.name.rpartition("/")[2]
        return dataclasses.replace(
            artifact,
            name=f"apprenticeship/{name}_{number}",
            title=f"{artifact.title}, round {number}",
            is_last=False,
        )

    return Round(Writings(*map(of, Writings())), of(rationales.ASSISTANT))


ROUNDS = tuple(_round(number) for number in range(1, MOST + 1))
# In the order of reports.
ALL = tuple(artifact for each in ROUNDS for artifact in (*each.writings, each.assistant))


@dataclasses.dataclass(frozen=True)
class LearningAgain(Learning):
    """Parameters of a round's training; `targets` are what is learned."""

    targets: SFTTargets


def learn_again(
    params: LearningAgain,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    before: Folder,
    annotated: Folder,
    judged: Folder,
    dev: Examples | None = None,
) -> None:
    """Goes on training an assistant, on the teacher's rationales and on its own that are kept."""
    targets = params.targets.of_pool(pool, judged, annotated)
    items = [target for target in targets if target.rationale]
    in_modes = [reading.sequences(items, mode) for mode in params.modes]
    sequences = [sequence for of_one in zip(*in_modes) for sequence in of_one]
    fit(out, "assistant", assistant.trainable(before), sequences, params.how, reading, dev)


def stages(config: RunConfig, modes: tuple[Mode, ...]) -> list[Stage]:
    """Returns the stages of all rounds; the assistant is asked in the last of its modes."""
    plan: list[Stage] = []
    by = rationales.ASSISTANT
    for writings, assistant in ROUNDS[: config.rationales.rounds]:
        plan += rationales.stages(config, by, modes[-1], writings)
        how = fit_of(config, "round_training", "reason")
        targets = dataclasses.replace(SFTTargets.of(config), form="chain")
        params = LearningAgain(how, modes, config.data.labelled, targets)
        reads = {
            "before": by.name,
            "annotated": ANNOTATIONS.name,
            "judged": writings.rationales.name,
        }
        load = Load("pool", modes=modes)
        reads = inputs.POOL_TO_ASSISTANT | reads | dev_of(how)
        plan.append(Stage(assistant, learn_again, params, reads, load))
        by = assistant
    return plan


def last(config: RunConfig) -> Artifact:
    """Returns the stage that leaves the assistant which writes for the student."""
    done = config.rationales.rounds
    return ROUNDS[done - 1].assistant if done else rationales.ASSISTANT
