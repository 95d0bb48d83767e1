"""Trains the assistant on the teacher's rationales, and has it write rationales for the pool.

Generation is slow and filtering is fast, so they are separate stages: runs that differ only in the
filter share the first completions.
"""

import bisect
import dataclasses
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from bridge_jax.config import GenerationConfig, RationalesConfig, RunConfig
from bridge_jax.data.answers import (
    answer_of,
    parse_answer,
    split_completion,
)
from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion, Request
from bridge_jax.methods import inputs
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.apprenticeship import warmup_reads
from bridge_jax.methods.filtering import (
    COMPLETED,
    RATIONALES,
    THRESHOLD,
    Judging,
    filter_of,
    judge,
    why_rejected,
    with_agreement,
    with_threshold,
)
from bridge_jax.methods.fitting import TrainSpec, dev_reads, fit, train_spec
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, rows
from bridge_jax.pipeline.models import Model, RoleModel, write_completions
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import Tokenizer

# The end of a step: after the final mark of a sentence, or at a line break that follows none.
_STEP_END = re.compile(r"[.!?](?=\s)|(?<=[^.!?\s])(?=\n)")


class StudentSample(TypedDict):
    """One of the student's answers to a question of the pool."""

    id: str
    answer: str | None


ASSISTANT = Artifact(
    "apprenticeship/assistant",
    "Training the assistant",
    "train",
    "assistant",
    TRAINED,
    is_last=True,
)
COMPLETIONS = Artifact(
    "tutoring/completions",
    "Writing rationales",
    "generate",
    "assistant",
    (COMPLETED,),
    version=2,  # each row has its own random stream, and rows are in order
)
SAMPLES = Artifact(
    "tutoring/samples",
    "The student’s samples",
    "generate",
    "student",
    (rows("samples.jsonl", StudentSample),),
    version=2,  # each row has its own random stream, and rows are in order
)
RETRIES = Artifact(
    "tutoring/retries",
    "Asking the assistant again",
    "generate",
    "assistant",
    (COMPLETED,),
)
ALL = (SAMPLES, COMPLETIONS, RETRIES, RATIONALES)  # In the order of reports.


@dataclasses.dataclass(frozen=True)
class Learning:
    """Parameters of the assistant's training.

    Attributes:
      how: the training settings.
      modes: the prompt modes in which it learns each rationale.
      labelled: whether it learns the gold answers; otherwise the teacher's.
    """

    how: TrainSpec
    modes: tuple[Mode, ...]
    labelled: bool


def learn(
    params: Learning,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    annotated: Folder,
    warmed: Folder | None = None,
    dev: Examples | None = None,
) -> None:
    """Trains the assistant on the teacher's rationales, after the training `warmed` if given.

    An assistant that will explain gold answers learns each rationale twice: from the question
    alone, and from the question with its gold answer.
    """
    paid = kept_annotations(annotated, pool, params.labelled)
    in_modes = [reading.sequences(paid, mode) for mode in params.modes]
    sequences = [sequence for of_one in zip(*in_modes) for sequence in of_one]
    fit(out, "assistant", assistant.trainable(warmed), sequences, params.how, reading, dev)


def assistant_stage(
    config: RunConfig,
    modes: tuple[Mode, ...],
    into: Artifact = ASSISTANT,
    annotated: Artifact = ANNOTATIONS,
    count: int | None = None,
    continued: Artifact | None = None,
) -> Stage:
    """Returns the stage that trains the assistant on the teacher's rationales.

    Args:
      modes: the prompt modes in which it learns each rationale.
      into: the stage's row of the table.
      annotated: the stage that asks the teacher.
      count: number of examples the teacher was asked about; None is all that the budget pays for.
      continued: the training that this one continues, in place of the warm-up.
    """
    spec = train_spec(config, "assistant_training", "reason")
    warmed = {"warmed": continued.name} if continued else warmup_reads(config)
    reads = warmed | {"annotated": annotated.name} | dev_reads(spec)
    return Stage(
        into,
        learn,
        Learning(spec, modes, config.data.labelled),
        inputs.POOL_TO_ASSISTANT | reads,
        Workload("selected", selected_count(config) if count is None else count, modes=modes),
    )


@dataclasses.dataclass(frozen=True)
class Writing:
    """Parameters of the assistant's completions.

    Attributes:
      generation: the settings of generation.
      mode: the prompt mode.
      seed: the seed of sampling.
    """

    generation: GenerationConfig
    mode: Mode
    seed: int


@dataclasses.dataclass(frozen=True)
class Sampling(Writing):
    """Parameters of the student's samples: `samples` for each example."""

    samples: int


@dataclasses.dataclass(frozen=True)
class Retrying(Writing):
    """Parameters of the retries.

    Attributes:
      samples: number of retries for each rejected example.
      how: the filter that rejects the first completion.
    """

    samples: int
    how: RationalesConfig


def write(
    params: Writing,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    by: Folder,
) -> None:
    """Writes a rationale for every example of the pool, with the assistant that `by` trained."""
    asked = reading.prompts(pool, pool.digest, params.mode)
    write_rationales(params, out, "rationales", pool, asked, assistant.load(by))


def retry(
    params: Retrying,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    by: Folder,
    completed: Folder,
    sampled: Folder | None = None,
    threshold: Folder | None = None,
) -> None:
    """Samples more rationales for each example whose first one is rejected."""
    how = with_threshold(params.how, threshold)
    at = {example.id: i for i, example in enumerate(pool)}
    rejected = [
        at[row["id"]]
        for row in with_agreement(completed.rows("completions.jsonl"), sampled)
        if why_rejected(row, pool.by_id[row["id"]], how)
    ]
    asked = reading.prompts(pool, pool.digest, params.mode)
    # The random stream of a retry does not depend on which other examples were rejected.
    again = [(i, i * params.samples + number) for i in rejected for number in range(params.samples)]
    if not again:
        out.write_rows("completions.jsonl", [])
        return
    requests = [Request(asked[i], stream=stream) for i, stream in again]
    examples = [pool[i] for i, _ in again]
    write_rationales(params, out, "more rationales", examples, requests, assistant.load(by))


def write_rationales(
    params: Writing,
    out: Folder,
    name: str,
    examples: Sequence[Example],
    asked: Sequence[list[int] | Request],
    model: Model,
) -> None:
    """Writes a rationale for each entry of `examples`, where an example may occur repeatedly."""

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        rationale, written = split_completion(text)
        logprobs = completion.logprobs
        return {
            "id": example.id,
            "domain": example.domain,
            "question": example.question,
            "completion": text,
            "rationale": rationale,
            "answer": parse_answer(written, example),
            "ended": completion.ended,
            "mean_logprob": sum(logprobs) / max(1, len(logprobs)),
            "min_step_logprob": min(step_logprobs(completion, model.tokenizer), default=0.0),
            "tokens": len(completion.ids),
            "shown_gold": params.mode == "explain",
        }

    engine = model.engine(params.generation, params.seed)
    write_completions(out, "completions.jsonl", name, engine, examples, asked, to_row)


def step_logprobs(completion: Completion, tokenizer: Tokenizer) -> list[float]:
    """Returns the mean log-probability of each step, in nats per token.

    A step is a sentence or a line. The answer line is the last step, and includes the end token if
    one was written. A token that extends past the end of a step belongs to that step.
    """
    ids, logprobs = completion.ids, completion.logprobs

    def characters(count: int) -> int:
        return len(tokenizer.decode(ids[:count]))

    ends = [match.end() for match in _STEP_END.finditer(tokenizer.decode(ids))]
    cuts = [bisect.bisect_left(range(len(ids)), end, key=characters) for end in ends]
    steps = [logprobs[a:b] for a, b in itertools.pairwise([0, *cuts, len(logprobs)])]
    return [sum(step) / len(step) for step in steps if step]


def sample(
    params: Sampling,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    instructed: Folder | None = None,
) -> None:
    """Samples the student's answers to every question of the pool, before it is taught.

    Two signals come from "Teaching-Assistant-in-the-Loop" (2406.05322, ACL Findings 2024.17): the
    student's self-consistency over several outputs, and the assistant's confidence. The paper also
    warms the student up before sampling, but it uses the signals to weight the teacher's
    annotations. Using them to decide which of the assistant's rationales are kept is our choice; so
    are agreement with the answer of the rationale, and the thresholds.
    """
    examples = [example for example in pool for _ in range(params.samples)]
    once = reading.prompts(pool, pool.digest, params.mode)
    asked = [ids for ids in once for _ in range(params.samples)]
    model = student.load(instructed)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        return {"id": example.id, "answer": answer_of(text, example)}

    engine = model.engine(params.generation, params.seed)
    name = "the student's samples"
    write_completions(out, "samples.jsonl", name, engine, examples, asked, to_row)


class RationaleStages(NamedTuple):
    """Names the stages that write rationales, retry rejected ones, and filter them."""

    completions: Artifact = COMPLETIONS
    retries: Artifact = RETRIES
    rationales: Artifact = RATIONALES


_FOR_STUDENT = RationaleStages()


def stages(
    config: RunConfig,
    by: Artifact,
    mode: Mode,
    into: RationaleStages = _FOR_STUDENT,
) -> list[Stage]:
    """Returns the stages that write rationales, retry rejected ones, and filter them.

    Args:
      by: the stage that trained the assistant.
      mode: the prompt mode in which it writes.
      into: the rows of these stages in the table: those of a round, or those for the student.
    """
    how, filtering = config.rationales, filter_of(config)
    writing = Writing(config.generation, mode, config.seed)
    to_assistant = inputs.POOL_TO_ASSISTANT | {"by": by.name}
    plan = [Stage(into.completions, write, writing, to_assistant, Workload("pool", modes=(mode,)))]
    reads = {"pool": inputs.POOL, "completed": into.completions.name}
    if how.filter == "consistency":
        reads["sampled"] = SAMPLES.name
    if how.least_right and into == _FOR_STUDENT:  # `checks` rejects it with rounds.
        reads["threshold"] = THRESHOLD.name
    if how.retries:
        generation = dataclasses.replace(config.generation, temperature=how.retry_temperature)
        # A seed of their own, so that retries do not repeat a sampled first completion.
        seed = zlib.crc32(f"{into.retries.name} {config.seed}".encode())
        rejects = dataclasses.replace(filtering, corruption=0.0, corruption_kind="wrong_answer")
        params = Retrying(generation, mode, seed, how.retries, rejects)
        workload = Workload("pool", modes=(mode,), samples=how.retries)
        plan.append(Stage(into.retries, retry, params, to_assistant | reads, workload))
        reads["retried"] = into.retries.name
    return [*plan, Stage(into.rationales, judge, Judging(filtering, config.seed), reads)]


def sample_stages(config: RunConfig, instructed: Mapping[str, str]) -> list[Stage]:
    """Returns the stage of the student's samples, if the filter reads them.

    Args:
      instructed: argument -> stage of the student's instruction warm-up, if there is one.
    """
    how = config.rationales
    if how.filter != "consistency":
        return []
    generation = dataclasses.replace(config.generation, temperature=how.temperature)
    to_student = {**inputs.POOL_TO_STUDENT, **instructed}
    params = Sampling(generation, "reason", config.seed, how.samples)
    return [Stage(SAMPLES, sample, params, to_student, Workload("pool", samples=how.samples))]
