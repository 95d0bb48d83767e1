"""Chooses the threshold of the confidence filter on the dev split.

The assistant answers the dev questions, whose gold answers are known or were bought. The threshold
is the lowest at which enough of the kept answers are right, since a lower one keeps more for the
student to learn. On a small split the measured share is optimistic, because the threshold was
chosen by it.
"""

import dataclasses
import logging
from collections.abc import Sequence

from bridge_jax.config import RationalesConfig, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.errors import UserError
from bridge_jax.methods import filtering, held_out, inputs, rationales
from bridge_jax.methods.filtering import COMPLETED, THRESHOLD, why_rejected
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.methods.rationales import Writing
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode

_NONE = -3e38  # Below every mean log-probability.

_log = logging.getLogger(__name__)

DEV_COMPLETIONS = Artifact(
    "tutoring/dev_completions", "Answering the dev split", "generate", "assistant", (COMPLETED,)
)
ALL = (DEV_COMPLETIONS, THRESHOLD)  # In the order of reports.


@dataclasses.dataclass(frozen=True)
class ChoosingThreshold:
    """Parameters of the threshold.

    Attributes:
      how: the filter, whose `min_mean_logprob` is chosen.
      least_right: the least share of the kept answers that should be right.
    """

    how: RationalesConfig
    least_right: float


def choose(
    params: ChoosingThreshold,
    out: Folder,
    dev: Examples,
    completed: Folder,
    bought: Folder | None = None,
) -> None:
    """Chooses the threshold; writes it, the number of answers it keeps, and how many are right."""
    loose = dataclasses.replace(params.how, min_mean_logprob=_NONE)
    known = {example.id: example for example in held_out.with_answers(dev, bought)}
    written = [row for row in completed.rows("completions.jsonl") if row["id"] in known]
    answered = [
        (row["mean_logprob"], is_correct(row["answer"], known[row["id"]]))
        for row in written
        if why_rejected(row, known[row["id"]], loose) is None
    ]
    threshold, kept, right = lowest(answered, params.least_right)
    if threshold is None:
        threshold = params.how.min_mean_logprob
        _log.warning(
            "rationales.least_right: no answer of the assistant to %d dev questions passed the "
            "other rules of the filter; rationales.min_mean_logprob=%s is used as set",
            *(len(written), threshold),
        )
    elif right < params.least_right * kept:
        _log.warning(
            "rationales.least_right=%s: no threshold keeps that share of the assistant's answers "
            "to dev questions right; the best is %.3g, with %d right of %d",
            *(params.least_right, threshold, right, kept),
        )
    out.write_record(
        "threshold.json",
        {
            "min_mean_logprob": threshold,
            "least_right": params.least_right,
            "asked": len(written),
            "kept": kept,
            "right": right,
        },
    )


def lowest(
    answered: Sequence[tuple[float, bool]], least_right: float
) -> tuple[float | None, int, int]:
    """Returns the lowest threshold at which enough answers are right, or else the best one.

    Args:
      answered: the mean log-probability of each answer, in nats, and whether it is right.
      least_right: the least share of the kept answers that should be right.

    Returns:
      The threshold, the number of answers it keeps, and how many of these are right; None, 0, 0 if
      there are no answers. Among equally good thresholds it is the lowest.
    """
    order = sorted(answered, key=lambda pair: -pair[0])
    found: tuple[float | None, int, int] = None, 0, 0
    best, right = (False, 0.0), 0
    for kept, (logprob, is_right) in enumerate(order, 1):
        right += is_right
        if kept < len(order) and order[kept][0] == logprob:
            continue  # No threshold separates equal values.
        share = right / kept
        score = (True, 1.0) if share >= least_right else (False, share)
        if score >= best:
            best, found = score, (logprob, kept, right)
    return found


def stages(config: RunConfig, by: Artifact, mode: Mode) -> list[Stage]:
    """Returns the stages that choose the threshold, if the config asks for it.

    Args:
      by: the stage that trained the assistant.
      mode: the prompt mode in which it answers.
    """
    if not config.rationales.least_right:
        return []
    to_assistant = {**inputs.POOL_TO_ASSISTANT, "pool": inputs.DEV, "by": by.name}
    writing = Writing(config.generation, mode, config.seed)
    workload = Workload("dev", modes=(mode,))
    params = ChoosingThreshold(filtering.filter_of(config), config.rationales.least_right)
    reads = {"dev": inputs.DEV, "completed": DEV_COMPLETIONS.name}
    reads |= held_out.bought(config, "dev")
    return [
        Stage(DEV_COMPLETIONS, rationales.write, writing, to_assistant, workload),
        Stage(THRESHOLD, choose, params, reads, check=check),
    ]


def check(config: RunConfig, given: Inputs) -> None:
    """Raises a `UserError` if no dev question will have an answer, or too many are to be bought."""
    dev = given.dev
    bare, bought = sum(e.answer is None for e in dev), config.evaluation.teacher_dev
    if bought > bare:
        raise UserError(
            f"evaluation.teacher_dev={bought} exceeds the {bare:,} dev questions without an "
            "answer; lower it, or raise data.dev"
        )
    if len(dev) == bare and not bought:
        raise UserError(
            f"rationales.least_right={config.rationales.least_right} chooses a threshold on the "
            f"dev split, but none of its {len(dev):,} questions has an answer: give them answers, "
            "or ask the teacher some of them (evaluation.teacher_dev)"
        )
