"""Writes rationales for the pool with the assistant, then filters them.

Writing takes long and judging does not, so runs that differ in the filter alone share what was
written.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NotRequired, TypedDict

from bridge_jax.config import GenerationConfig, RationalesConfig, RunConfig
from bridge_jax.data.answers import answer_of, is_correct, parse_answer, split_completion
from bridge_jax.data.example import Example
from bridge_jax.generation.confidence import step_logprobs
from bridge_jax.generation.engine import Completion
from bridge_jax.methods import instruct, names
from bridge_jax.methods.completions import write_completions
from bridge_jax.methods.noise import corrupt
from bridge_jax.pipeline.artifacts import Artifact, rows
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering

FILE = "rationales.jsonl"


class Written(TypedDict):
    """A row of what the assistant wrote about an example; log-probabilities in nats."""

    id: str
    domain: str
    question: str
    completion: str
    rationale: str
    answer: str | None
    ended: bool
    mean_logprob: float
    min_step_logprob: float
    tokens: int
    shown_gold: bool


class Sampled(TypedDict):
    """One of the student's answers to a question of the pool."""

    id: str
    answer: str | None


class Judged(Written):
    """A row that the assistant wrote, and whether the student learns from it.

    Attributes:
      noise: the kind of error that was put in, if one was.
      agreement: the share of the student's samples with this answer.
      gold, correct: for the report alone.
      kept, reason: whether it is learned from, and why not.
    """

    noise: str | None
    agreement: NotRequired[float]
    gold: str
    correct: bool
    kept: bool
    reason: str | None


COMPLETIONS = Artifact(
    "tutoring/completions",
    "Writing rationales",
    "generate",
    "assistant",
    (rows("completions.jsonl", Written),),
)
SAMPLES = Artifact(
    "tutoring/samples",
    "The student’s samples",
    "generate",
    "student",
    (rows("samples.jsonl", Sampled),),
)
RATIONALES = Artifact(
    "tutoring/rationales", "Filtering rationales", "judge", None, (rows(FILE, Judged),)
)


@dataclasses.dataclass(frozen=True)
class Writing:
    """Parameters of what is written.

    Attributes:
      generation: how.
      mode: how the model is asked.
      seed: of sampling.
    """

    generation: GenerationConfig
    mode: Mode
    seed: int


@dataclasses.dataclass(frozen=True)
class Sampling:
    """Parameters of the student's samples: how they are written, and how many of each example."""

    generation: GenerationConfig
    mode: Mode
    seed: int
    samples: int


def write(
    params: Writing,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    by: Folder,
) -> None:
    """Writes a rationale for every example of the pool with the assistant of stage `by`."""
    asked = reading.prompts(pool, pool.digest, params.mode)
    model = assistant.load(by)

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
    write_completions(out, "completions.jsonl", "rationales", engine, pool, asked, to_row)


def sample(
    params: Sampling,
    out: Folder,
    pool: Examples,
    student: RoleModel,
    reading: Rendering,
    instructed: Folder | None = None,
) -> None:
    """Lets the student answer every question of the pool several times, before it is taught.

    Of "Teaching-Assistant-in-the-Loop" (2406.05322, ACL Findings 2024.17) come the two signals, the
    student's self-consistency over several outputs and the assistant's confidence, and a student
    that is warmed up before it is asked. Ours is what they decide: there the teacher's annotations
    are weighed, here the assistant's rationales are kept or not; agreement is with the answer of
    the rationale; and the thresholds.
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


@dataclasses.dataclass(frozen=True)
class Judging:
    """Parameters of the filter; `seed` is of the noise."""

    how: RationalesConfig
    seed: int


def judge(
    params: Judging,
    out: Folder,
    pool: Examples,
    completed: Folder,
    sampled: Folder | None = None,
) -> None:
    """Says of each rationale whether the student learns from it, and why not."""
    config, found = params.how, []
    written = completed.rows("completions.jsonl")
    said: dict[str, list[str | None]] = {row["id"]: [] for row in written}
    for row in sampled.rows("samples.jsonl") if sampled else ():
        said[row["id"]].append(row["answer"])
    for row in corrupt(written, pool.by_id, config, params.seed):
        example = pool.by_id[row["id"]]
        if samples := said[example.id]:
            same = samples.count(row["answer"]) if row["answer"] is not None else 0
            row["agreement"] = same / len(samples)
        reason = why_rejected(row, example, config)
        # For the report alone: whether it is right is counted, by whatever it was judged.
        truth = {"gold": example.answer, "correct": is_correct(row["answer"], example)}
        found.append(row | truth | {"kept": reason is None, "reason": reason})
    out.write_rows(FILE, found)


def why_rejected(row: Mapping[str, Any], example: Example, config: RationalesConfig) -> str | None:
    """Returns why a rationale is not learned from, or None; `gold` alone reads the gold answer.

    No filter keeps what cannot be learned from: a completion that was cut off, or that has no
    rationale or no answer.
    """
    if not row["rationale"].strip():
        return "no rationale"
    if not row["ended"]:
        return "cut off at generation.max_new_tokens"
    if row["answer"] is None:
        return "no answer that parses"
    if config.filter == "gold" and not is_correct(row["answer"], example):
        return "the answer is not the gold one"
    bounds = {}
    if config.filter in ("confidence", "consistency"):
        bounds["mean_logprob"] = config.min_mean_logprob
        bounds["min_step_logprob"] = config.min_step_logprob
    if config.filter == "consistency":
        bounds["agreement"] = config.min_agreement
    return next((f"{name} below {at}" for name, at in bounds.items() if row[name] < at), None)


def stages(config: RunConfig, by: Artifact, mode: Mode) -> list[Stage]:
    """Returns the stages that write and judge the rationales.

    Args:
      config: of the run.
      by: the stage that left the assistant which writes.
      mode: how it is asked.
    """
    to_assistant = {
        "pool": names.POOL,
        "assistant": names.ASSISTANT,
        "reading": names.TO_ASSISTANT,
        "by": by.name,
    }
    writing = Writing(config.generation, mode, config.seed)
    plan = [Stage(COMPLETIONS, write, writing, to_assistant, Load("pool", modes=(mode,)))]
    reads = {"pool": names.POOL, "completed": COMPLETIONS.name}
    how = config.rationales
    if how.filter == "consistency":
        generation = dataclasses.replace(config.generation, temperature=how.temperature)
        to_student = {
            "pool": names.POOL,
            "student": names.STUDENT,
            "reading": names.TO_STUDENT,
            **instruct.begun(config),
        }
        sampling = Sampling(generation, "reason", config.seed, how.samples)
        load = Load("pool", samples=how.samples)
        plan.append(Stage(SAMPLES, sample, sampling, to_student, load))
        reads["sampled"] = SAMPLES.name
    return [*plan, Stage(RATIONALES, judge, Judging(_judged_by(how), config.seed), reads)]


def _judged_by(how: RationalesConfig) -> RationalesConfig:
    """Returns the filter without what is decided before it: how rationales are asked for."""
    default = RationalesConfig()
    return dataclasses.replace(
        how, show_gold=default.show_gold, samples=default.samples, temperature=default.temperature
    )
