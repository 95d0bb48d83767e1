"""Stores the assistant's top-k predictions at every target token (white-box distillation).

The assistant reads the student's targets, its own kept rationales and the teacher's, under the
prompt with which it writes rationales, and its most probable tokens are stored. Where the student
learns a gold answer alone, none are.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal

from bridge_jax.config import RunConfig
from bridge_jax.config.fields import UNKEYED
from bridge_jax.errors import UserError
from bridge_jax.methods import names
from bridge_jax.methods.lessons import Lesson, Lessons
from bridge_jax.methods.rationales import RATIONALES
from bridge_jax.pipeline.artifacts import Artifact, array
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load, Packed
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.progress import track
from bridge_jax.text import prompts
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import first_difference
from bridge_jax.training.predictions import predict

LOGITS = Artifact(
    "tutoring/logits",
    "The assistant’s logits",
    "score",
    "assistant",
    (array("ids.npy"), array("logprobs.npy")),
)


@dataclasses.dataclass(frozen=True)
class Predicting:
    """Parameters.

    Attributes:
      lessons: which ones.
      mode: how the assistant was asked for its rationales.
      top_k: most probable tokens that are stored.
      batch_rows, row_tokens: the shape of a batch, which changes no prediction.
    """

    lessons: Lessons
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
    """Writes `ids.npy` and `logprobs.npy`, [N, K] each, of all lessons' targets in their order."""
    lessons = params.lessons
    asked = to_assistant.prompts(pool, pool.digest, params.mode)
    at = {example.id: i for i, example in enumerate(pool)}
    # The targets are the student's, whether or not the prompt shows the gold answer. In two passes
    # the sequence of the answer alone keeps its own prompt.
    found = [x for x in lessons.of_pool(pool, judged, annotated) if x.rationale]
    sequences = [
        sequence._replace(prompt=asked[at[lesson.example.id]]) if sequence.rationale else sequence
        for lesson, read in zip(found, lessons.read(found, to_student))
        for sequence in read
    ]
    if not sequences:
        raise UserError("logits.weight: no rationale was kept, so the assistant has none to read")
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
    found: Lessons, lessons: Sequence[Lesson], reading: Rendering, predicted: Folder
) -> list[prompts.Sequence]:
    """Returns the sequences of the pool's lessons with what was stored for them."""
    ids, logprobs = (predicted.array(f"{part}.npy") for part in ("ids", "logprobs"))
    sequences, start = [], 0
    for lesson, read in zip(lessons, found.read(lessons, reading)):
        for sequence in read:
            if lesson.rationale:
                part = slice(start, start + sequence.targets)
                sequence = sequence._replace(soft=prompts.SoftTargets(ids[part], logprobs[part]))
                start = part.stop
            sequences.append(sequence)
    return sequences


def check(
    config: RunConfig,
    pool: Examples,
    assistant: RoleModel,
    student: RoleModel,
    to_assistant: Rendering,
    to_student: Rendering,
) -> None:
    """Finds before anything is run that the student cannot learn the assistant's tokens.

    Raises:
      UserError: their vocabularies or chat templates differ, or K exceeds them.
    """
    checkpoints = f"{config.assistant.checkpoint} and {config.student.checkpoint}"
    way_out = "choose models of one family, or leave logits.weight at 0"
    size = _shared_ids(assistant, student)
    if config.logits.top_k > size:
        raise UserError(f"logits.top_k={config.logits.top_k} exceeds the {size} tokens")
    differs = first_difference(assistant.tokenizer, student.tokenizer, size)
    if differs is not None:
        raise UserError(
            f"logits.weight needs one vocabulary: token {differs} of {checkpoints} differs; "
            f"{way_out}"
        )
    asked = (reading.prompt(pool[0], "reason") for reading in (to_assistant, to_student))
    if len({tuple(ids) for ids in asked}) > 1:
        raise UserError(
            f"logits.weight needs one chat template: those of {checkpoints} differ; {way_out}"
        )


def _shared_ids(assistant: RoleModel, student: RoleModel) -> int:
    """Returns how many ids both models have: the larger of a family are often padded."""
    return min(assistant.config.vocab_size, student.config.vocab_size)


def stages(config: RunConfig, by: Artifact, mode: Mode, annotated: dict[str, str]) -> list[Stage]:
    """Returns the stage, if there is a weight on it.

    Args:
      config: of the run.
      by: the stage that left the assistant which wrote.
      mode: how it was asked.
      annotated: what is read of the teacher's annotations, if there are any.
    """
    if not config.logits.weight:
        return []
    shape = config.student_training
    params = Predicting(
        Lessons.of(config), mode, config.logits.top_k, shape.batch_rows, shape.row_tokens
    )
    reads = {
        "pool": names.POOL,
        "assistant": names.ASSISTANT,
        "student": names.STUDENT,
        "to_assistant": names.TO_ASSISTANT,
        "to_student": names.TO_STUDENT,
        "by": by.name,
        "judged": RATIONALES.name,
        **annotated,
    }
    rows = Packed(params.batch_rows, params.row_tokens)
    load = Load("pool", text=text_of(config), modes=(mode,), batch=rows)
    return [Stage(LOGITS, write, params, reads, load)]


def text_of(config: RunConfig) -> Literal["rationale", "both"]:
    """Returns what a model reads of each rationale, for the planner."""
    return "both" if config.form == "two_pass" else "rationale"
