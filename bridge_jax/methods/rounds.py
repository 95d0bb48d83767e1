"""Trains the assistant further on its own rationales, before it writes for the student.

Each round writes rationales for the pool, filters them, and continues training on those that are
kept, together with the teacher's (STaR, 2203.14465; ReST, 2308.08998). It costs no teacher queries.
A kept rationale may still be wrong: `filter=gold` compares only the answers.
"""

import dataclasses
import logging
from typing import NamedTuple

from bridge_jax.config import MOST_ROUNDS, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.methods import filtering, inputs, rationales
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.filtering import SFTTargets
from bridge_jax.methods.fitting import TrainSpec, dev_reads, fit, train_spec
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.rationales import RationaleStages
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering

_log = logging.getLogger(__name__)


class Round(NamedTuple):
    """Names the stages of a round."""

    rationales: RationaleStages
    assistant: Artifact


def _round(number: int) -> Round:
    def in_round(artifact: Artifact) -> Artifact:
        return dataclasses.replace(
            artifact,
            name=f"apprenticeship/{artifact.name.rpartition('/')[2]}_{number}",
            title=f"{artifact.title}, round {number}",
            is_last=False,
        )

    stages = RationaleStages(
        completions=in_round(rationales.COMPLETIONS),
        retries=in_round(rationales.RETRIES),
        rationales=in_round(filtering.RATIONALES),
    )
    return Round(stages, in_round(rationales.ASSISTANT))


ROUNDS = tuple(_round(number) for number in range(1, MOST_ROUNDS + 1))
# In the order of reports.
ALL = tuple(artifact for each in ROUNDS for artifact in (*each.rationales, each.assistant))


@dataclasses.dataclass(frozen=True)
class ContinuedTraining:
    """Parameters of a round's training.

    Attributes:
      how: the training settings.
      modes: the prompt modes in which it learns each rationale.
      targets: the rationales that it learns.
    """

    how: TrainSpec
    modes: tuple[Mode, ...]
    targets: SFTTargets


def continue_training(
    params: ContinuedTraining,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    before: Folder,
    annotated: Folder,
    judged: Folder,
    dev: Examples | None = None,
) -> None:
    """Continues training the assistant on the kept rationales, the teacher's and its own.

    Raises:
      UserError: none of the teacher's rationales was kept.
    """
    items = params.targets.of_pool(pool, judged, annotated)
    said = kept_annotations(annotated, pool, params.targets.labelled)
    if {target.example.id for target in items} <= {example.id for example, _, _ in said}:
        _log.warning(
            "%s: none of the assistant's own rationales was kept, so this round trains on the "
            "teacher's again",
            out.path,
        )
    sequences = []
    for mode in params.modes:
        if mode == "explain":  # The prompt shows the gold answer, so no other answer may follow.
            items = [t for t in items if is_correct(t.answer, t.example)]
        sequences += reading.sequences(items, mode)
    fit(out, "assistant", assistant.trainable(before), sequences, params.how, reading, dev)


def stages(config: RunConfig, modes: tuple[Mode, ...]) -> list[Stage]:
    """Returns the stages of all rounds; the assistant writes in the last of `modes`."""
    plan: list[Stage] = []
    by = rationales.ASSISTANT
    for writing, assistant in ROUNDS[: config.rationales.rounds]:
        plan += rationales.stages(config, by, modes[-1], writing)
        spec = train_spec(config, "round_training", "reason")
        targets = dataclasses.replace(SFTTargets.of(config), form="chain", answers_alone=False)
        params = ContinuedTraining(spec, modes, targets)
        reads = {
            "before": by.name,
            "annotated": ANNOTATIONS.name,
            "judged": writing.rationales.name,
        }
        workload = Workload("pool", modes=modes)
        reads = inputs.POOL_TO_ASSISTANT | reads | dev_reads(spec)
        plan.append(Stage(assistant, continue_training, params, reads, workload))
        by = assistant
    return plan


def last(config: RunConfig) -> Artifact:
    """Returns the stage that trains the final assistant, which writes for the student."""
    done = config.rationales.rounds
    return ROUNDS[done - 1].assistant if done else rationales.ASSISTANT
