"""Stores the assistant's top-k predictions at every target token (white-box distillation).

The assistant reads the student's targets (the assistant's own kept rationales and the teacher's)
after the prompt with which it writes rationales, and its K most probable tokens at each target are
stored. Nothing is stored for a gold answer without a rationale.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.errors import UserError
from bridge_jax.methods import inputs
from bridge_jax.methods.filtering import RATIONALES, SFTTarget, SFTTargets
from bridge_jax.methods.inputs import Examples, Inputs
from bridge_jax.pipeline.artifacts import ROLES, Artifact, array
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Packed, Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.progress import track
from bridge_jax.text import prompts
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import first_difference
from bridge_jax.training.objectives.distillation import SoftTargets, predict

LOGITS = Artifact(
    "tutoring/logits",
    "The assistant’s logits",
    "score",
    "assistant",
    (array("ids.npy"), array("logprobs.npy")),
)


@dataclasses.dataclass(frozen=True)
class Predicting:
    """Parameters of the predictions.

    Attributes:
      targets: the student's targets, which the assistant reads.
      mode: the prompt mode in which the assistant wrote its rationales.
      top_k: number of most probable tokens that are stored at each target.
      batch_rows, row_tokens: the shape of a batch; it does not change the predictions.
    """

    targets: SFTTargets
    mode: Mode
    top_k: int
    batch_rows: Annotated[int, UNKEYED]
    row_tokens: Annotated[int, UNKEYED]


def write(
    params: Predicting,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    student: RoleModel,
    to_assistant: Rendering,
    to_student: Rendering,
    by: Folder,
    judged: Folder,
    annotated: Folder | None = None,
) -> None:
    """Writes `ids.npy` (int32) and `logprobs.npy` (float32), each [N, K] for N target tokens."""
    asked = to_assistant.prompts(pool, pool.digest, params.mode)
    at = {example.id: i for i, example in enumerate(pool)}
    # The targets are the student's, even if the assistant's prompt shows the gold answer. With two
    # passes, the sequence that has only an answer keeps its own prompt.
    of_pool = params.targets.of_pool(pool, judged, annotated)
    targets = [target for target in of_pool if target.rationale]
    sequences = [
        sequence._replace(prompt=asked[at[target.example.id]]) if sequence.rationale else sequence
        for target, of_one in zip(targets, params.targets.sequences(targets, to_student))
        for sequence in of_one
    ]
    if not sequences:
        raise UserError(
            "logits.weight is above 0, but no rationale was kept for the assistant to score"
        )
    model = assistant.load(by)
    with track("logits", len(sequences), "sequences") as advance:
        predicted = predict(
            model.config,
            model.params,
            sequences,
            params.top_k,
            _shared_ids(assistant, student),
            params.batch_rows,
            params.row_tokens,
            model.tokenizer.pad_id,
            model.mesh,
            advance,
        )
    out.write_array("ids.npy", predicted.ids)
    out.write_array("logprobs.npy", predicted.logprobs)


def attach(
    params: SFTTargets, targets: Sequence[SFTTarget], reading: Rendering, predicted: Folder
) -> list[prompts.TrainingSequence]:
    """Returns the sequences of `targets`; those with a rationale get their stored predictions."""
    ids, logprobs = predicted.array("ids.npy"), predicted.array("logprobs.npy")
    sequences, start = [], 0
    for target, of_one in zip(targets, params.sequences(targets, reading)):
        for sequence in of_one:
            if target.rationale:
                part = slice(start, start + sequence.targets)
                there = np.ones(sequence.targets, np.float32)
                soft = SoftTargets(ids[part], logprobs[part], there)
                sequence = sequence._replace(extra_targets=soft)
                start = part.stop
            sequences.append(sequence)
    return sequences


def check(config: RunConfig, given: Inputs) -> None:
    """Checks, before any stage runs, that the student can learn the assistant's predictions.

    Raises:
      UserError: their vocabularies or chat templates differ, or K exceeds the vocabulary.
    """
    check_shared(given, "logits.weight", "logits.top_k", config.logits.top_k)


def check_shared(given: Inputs, what: str, setting: str, top_k: int) -> None:
    """Checks that assistant and student share a vocabulary and a chat template.

    Args:
      given: the inputs of the run.
      what: the feature that needs this, for messages.
      setting: the name of the setting for K, for messages.
      top_k: K.

    Raises:
      UserError: their vocabularies or chat templates differ, or K exceeds the vocabulary.
    """
    assistant, student = given.model("assistant"), given.model("student")
    checkpoints = f"{assistant.selected.checkpoint} and {student.selected.checkpoint}"
    hint = f"choose models of the same family, or do without {what}"
    size = _shared_ids(assistant, student)
    if top_k > size:
        raise UserError(f"{setting}={top_k} exceeds the vocabulary of {size} tokens")
    differs = first_difference(assistant.tokenizer, student.tokenizer, size)
    if differs is not None:
        raise UserError(
            f"{what} requires the same vocabulary: token {differs} of {checkpoints} differs; {hint}"
        )
    asked = [given.rendering(role).prompt(given.pool[0], "reason") for role in ROLES]
    if asked[0] != asked[1]:
        raise UserError(
            f"{what} requires the same chat template: those of {checkpoints} differ; {hint}"
        )


def _shared_ids(assistant: RoleModel, student: RoleModel) -> int:
    """Returns how many ids both tables have: larger models of a family often have padded ones."""
    return min(assistant.config.vocab_size, student.config.vocab_size)


def stages(config: RunConfig, by: Artifact, mode: Mode, annotated: dict[str, str]) -> list[Stage]:
    """Returns the stage, or no stage if `logits.weight` is 0.

    Args:
      by: the stage that trained the assistant.
      mode: the prompt mode in which the assistant wrote its rationales.
      annotated: argument -> stage of the teacher's annotations, if there are any.
    """
    if not config.logits.weight:
        return []
    shape = config.student_training
    params = Predicting(
        SFTTargets.of(config), mode, config.logits.top_k, shape.batch_rows, shape.row_tokens
    )
    reads = {
        "pool": inputs.POOL,
        "assistant": inputs.ASSISTANT,
        "student": inputs.STUDENT,
        "to_assistant": inputs.TO_ASSISTANT,
        "to_student": inputs.TO_STUDENT,
        "by": by.name,
        "judged": RATIONALES.name,
    }
    batch = Packed(params.batch_rows, params.row_tokens)
    workload = Workload("pool", text=text_of(config), modes=(mode,), batch=batch)
    return [Stage(LOGITS, write, params, reads | annotated, workload, check=check)]


def text_of(config: RunConfig) -> Literal["rationale", "both"]:
    """Returns the `Workload.text` of stages whose model reads rationales."""
    return "both" if config.form == "two_pass" else "rationale"
