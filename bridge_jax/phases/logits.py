"""White-box distillation: the assistant's predictions beside every token of its own lessons.

The assistant reads the student's targets, its own kept rationales and the teacher's, under the
prompt with which it writes rationales, and its most probable tokens are stored. Where the student
learns a gold answer alone, none are.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError
from bridge_jax.models import checkpoint
from bridge_jax.parallel import hosts
from bridge_jax.phases import apprenticeship, rationales
from bridge_jax.phases.context import Run
from bridge_jax.phases.lessons import Lesson, of_pool, read
from bridge_jax.phases.stages import Stage
from bridge_jax.progress import track
from bridge_jax.text import prompts
from bridge_jax.text.tokenizer import first_difference
from bridge_jax.training.soft_targets import predict

LOGITS = "tutoring/logits"


def write(run: Run, out: Path) -> None:
    """Writes `ids.npy` and `logprobs.npy`, [N, K] each, of all lessons' targets in their order."""
    config = run.config
    sequences = [s for lesson in of_pool(run) if lesson.rationale for s in _asked(run, lesson)]
    if not sequences:
        raise UserError("logits.weight: no rationale was kept, so the assistant has none to read")
    model = run.model("assistant", rationales.author(config))
    with track("logits", len(sequences), "sequences") as advance:
        found = predict(
            model.config,
            model.params,
            sequences,
            config.logits.top_k,
            _shared_ids(run),
            config.student_training.batch_rows,
            config.student_training.row_tokens,
            model.tokenizer.pad_id,
            run.mesh,
            advance,
        )
    if hosts.is_first():
        np.save(out / "ids.npy", found.ids)
        np.save(out / "logprobs.npy", found.logprobs)


def _asked(run: Run, lesson: Lesson) -> list[prompts.Sequence]:
    """Returns the sequences of a lesson under the prompt of the assistant's writing.

    The targets are the student's, whether or not the prompt shows the gold answer. In two passes
    the sequence of the answer alone keeps its own prompt.
    """
    prompt = run.prompt("assistant", lesson.example, run.config.writing_mode)
    return [s._replace(prompt=prompt) if s.rationale else s for s in read(run, lesson)]


def attach(run: Run, lessons: Sequence[Lesson]) -> list[prompts.Sequence]:
    """Returns the sequences of the pool's lessons with what was stored for them."""
    ids, logprobs = (np.load(run.workdir / LOGITS / f"{part}.npy") for part in ("ids", "logprobs"))
    sequences, start = [], 0
    for lesson in lessons:
        for sequence in read(run, lesson):
            if lesson.rationale:
                part = slice(start, start + sequence.targets)
                sequence = sequence._replace(soft=prompts.SoftTargets(ids[part], logprobs[part]))
                start = part.stop
            sequences.append(sequence)
    return sequences


def check(run: Run) -> None:
    """Finds before anything is run that the student cannot learn the assistant's tokens.

    Raises:
      UserError: their vocabularies or chat templates differ, or K exceeds them.
    """
    assistant, student = (run.tokenizer(role) for role in ("assistant", "student"))
    names = f"{run.config.assistant.checkpoint} and {run.config.student.checkpoint}"
    way_out = "choose models of one family, or leave logits.weight at 0"
    size = _shared_ids(run)
    if run.config.logits.top_k > size:
        raise UserError(f"logits.top_k={run.config.logits.top_k} exceeds the {size} tokens")
    differs = first_difference(assistant, student, size)
    if differs is not None:
        raise UserError(
            f"logits.weight needs one vocabulary: token {differs} of {names} differs; {way_out}"
        )
    example = run.splits.pool[0]
    if run.prompt("assistant", example, "reason") != run.prompt("student", example, "reason"):
        raise UserError(
            f"logits.weight needs one chat template: those of {names} differ; {way_out}"
        )


def _shared_ids(run: Run) -> int:
    """Returns how many ids both models have: the larger of a family are often padded."""
    roles = run.config.assistant, run.config.student
    return min(checkpoint.read_config(role).vocab_size for role in roles)


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stage, if there is a weight on it."""
    if not config.logits.weight:
        return []
    reads = ("logits.top_k", "form", "data.labelled", "student.checkpoint", "assistant.checkpoint")
    paid = (apprenticeship.ANNOTATIONS,) * config.asks_teacher
    after = (*paid, rationales.author(config), rationales.RATIONALES)
    return [Stage(LOGITS, write, (*reads, "max_prompt_tokens", "on_long_prompt"), after)]
