"""Trains the assistant on the teacher's rationales, writes rationales for the pool, filters them.

Writing is slow and filtering is fast, so runs that differ in the filter alone share the rationales
as written.
"""

import bisect
import dataclasses
import itertools
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from bridge_jax.config import GenerationConfig, RationalesConfig, RunConfig
from bridge_jax.data.answers import (
    answer_of,
    is_correct,
    parse_answer,
    split_completion,
    verdict,
)
from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion, Request
from bridge_jax.methods import inputs
from bridge_jax.methods.annotations import ANNOTATIONS, kept_annotations
from bridge_jax.methods.apprenticeship import warmed
from bridge_jax.methods.corruption import corrupt
from bridge_jax.methods.fitting import Fit, dev_of, fit, fit_of
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import TRAINED, Artifact, record, rows
from bridge_jax.pipeline.models import Model, RoleModel, write_completions
from bridge_jax.pipeline.stages import Load, Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text.prompts import Mode
from bridge_jax.text.rendering import Rendering
from bridge_jax.text.tokenizer import Tokenizer

FILE = "rationales.jsonl"
# After the full stop of a sentence, and before a line break that follows none.
_STEP_END = re.compile(r"[.!?](?=\s)|(?<=[^.!?\s])(?=\n)")


class Written(TypedDict):
    """A rationale that the assistant wrote about an example; log-probabilities in nats."""

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


class Threshold(TypedDict):
    """The threshold of confidence that was chosen on the dev split, and what is expected of it.

    Attributes:
      min_mean_logprob: the threshold, in nats.
      least_right: the share of the kept answers that were to be right.
      asked: dev questions with a gold answer.
      kept, right: of the assistant's answers to them.
    """

    min_mean_logprob: float
    least_right: float
    asked: int
    kept: int
    right: int


class Judged(Written):
    """A rationale that the assistant wrote, and whether the student learns from it.

    Attributes:
      retry: the number of the retry that was taken, from 1; not there for the first completion.
      corruption: the kind of error that was put in, if one was.
      agreement: the share of the student's samples with this answer.
      gold, correct: for the report alone; None where the example has no gold answer.
      kept, reason: whether it is learned from, and why not.
    """

    retry: NotRequired[int]
    corruption: str | None
    agreement: NotRequired[float]
    gold: str | None
    correct: bool | None
    kept: bool
    reason: str | None


ASSISTANT = Artifact(
    "apprenticeship/assistant",
    "Training the assistant",
    "train",
    "assistant",
    TRAINED,
    is_last=True,
)
COMPLETED = rows("completions.jsonl", Written)
COMPLETIONS = Artifact(
    "tutoring/completions",
    "Writing rationales",
    "generate",
    "assistant",
    (COMPLETED,),
    version=2,  # each row has random numbers of its own, and rows are in order
)
SAMPLES = Artifact(
    "tutoring/samples",
    "The student’s samples",
    "generate",
    "student",
    (rows("samples.jsonl", Sampled),),
    version=2,  # each row has random numbers of its own, and rows are in order
)
RATIONALES = Artifact(
    "tutoring/rationales", "Filtering rationales", "judge", None, (rows(FILE, Judged),)
)
THRESHOLD = Artifact(  # `methods.thresholds`
    "tutoring/threshold",
    "Choosing a threshold",
    "judge",
    None,
    (record("threshold.json", Threshold),),
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
      how: it is trained.
      modes: in which it learns each rationale.
      labelled: whether its answers are the gold ones, or else the teacher's.
    """

    how: Fit
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
    """Trains the assistant, warmed up if it was, on the teacher's rationales.

    An assistant that will explain gold answers learns each rationale twice: from the question
    alone, and from the question with its gold answer.
    """
    paid = kept_annotations(annotated, pool, params.labelled)
    in_modes = [reading.sequences(paid, mode) for mode in params.modes]
    sequences = [sequence for of_one in zip(*in_modes) for sequence in of_one]
    fit(out, "assistant", assistant.trainable(warmed), sequences, params.how, reading, dev)


def assistant(config: RunConfig, modes: tuple[Mode, ...]) -> Stage:
    """Returns the assistant's training on the teacher's rationales, in each mode."""
    how = fit_of(config, "assistant_training", "reason")
    reads = warmed(config) | {"annotated": ANNOTATIONS.name} | dev_of(how)
    return Stage(
        ASSISTANT,
        learn,
        Learning(how, modes, config.data.labelled),
        inputs.POOL_TO_ASSISTANT | reads,
        Load("selected", selected_count(config), modes=modes),
    )


@dataclasses.dataclass(frozen=True)
class Writing:
    """Parameters of the assistant's completions.

    Attributes:
      generation: how they are generated.
      mode: how the model is asked.
      seed: of sampling.
    """

    generation: GenerationConfig
    mode: Mode
    seed: int


@dataclasses.dataclass(frozen=True)
class Sampling(Writing):
    """Parameters of the student's samples, `samples` of each example."""

    samples: int


@dataclasses.dataclass(frozen=True)
class Retrying:
    """Parameters of the retries.

    Attributes:
      generation, mode, seed: as of `Writing`.
      samples: of each example.
      how: the filter that rejects the first completion.
    """

    generation: GenerationConfig
    mode: Mode
    seed: int
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
    """Writes a rationale for every example of the pool with the assistant of stage `by`."""
    asked = reading.prompts(pool, pool.digest, params.mode)
    _write(params, out, "rationales", pool, asked, assistant.load(by))


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
    how, at = (
        _with_threshold(params.how, threshold),
        {example.id: i for i, example in enumerate(pool)},
    )
    rejected = [
        at[row["id"]]
        for row in _with_agreement(completed.rows("completions.jsonl"), sampled)
        if why_rejected(row, pool.by_id[row["id"]], how)
    ]
    asked = reading.prompts(pool, pool.digest, params.mode)
    # The random numbers of a retry depend on no other example's verdict.
    again = [(i, i * params.samples + number) for i in rejected for number in range(params.samples)]
    if not again:
        out.write_rows("completions.jsonl", [])
        return
    requests = [Request(asked[i], stream=stream) for i, stream in again]
    examples = [pool[i] for i, _ in again]
    writing = Writing(params.generation, params.mode, params.seed)
    _write(writing, out, "more rationales", examples, requests, assistant.load(by))


def _write(
    params: Writing,
    out: Folder,
    name: str,
    examples: Sequence[Example],
    asked: Sequence[list[int] | Request],
    model: Model,
) -> None:
    """Writes a rationale for each example, which may occur more than once."""

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
    """Returns the mean log-probability of each step, in nats a token.

    A step is a sentence or a line. The answer line is the last one, and the end token, if it was
    written, is part of it. A token that reaches over the end of a step is part of that step.
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
    """Lets the student answer every question of the pool several times, before it is taught.

    "Teaching-Assistant-in-the-Loop" (2406.05322, ACL Findings 2024.17) has the two signals, the
    student's self-consistency over several outputs and the assistant's confidence, and warms the
    student up before it is asked. There they weigh the teacher's annotations. That they decide here
    which of the assistant's rationales are kept is our choice; so are agreement with the answer of
    the rationale, and the thresholds.
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
    """Parameters of the filter; `seed` is of the corruption."""

    how: RationalesConfig
    seed: int


def judge(
    params: Judging,
    out: Folder,
    pool: Examples,
    completed: Folder,
    sampled: Folder | None = None,
    retried: Folder | None = None,
    threshold: Folder | None = None,
) -> None:
    """Judges the rationale of every example.

    It is the first completion that the filter keeps, retries included; if none is kept, the first
    one, with the reason.
    """
    config, found = _with_threshold(params.how, threshold), []
    again = retried.rows("completions.jsonl") if retried else []
    retries: dict[str, list[dict[str, Any]]] = {}
    for row in _with_agreement(again, sampled):
        retries.setdefault(row["id"], []).append(row)
    written = corrupt(completed.rows("completions.jsonl"), pool.by_id, config, params.seed)
    for row in _with_agreement(written, sampled):
        example = pool.by_id[row["id"]]
        reason = why_rejected(row, example, config)
        if reason:
            for number, other in enumerate(retries.get(example.id, ()), start=1):
                if not why_rejected(other, example, config):
                    row, reason = other | {"retry": number, "corruption": None}, None
                    break
        # For the report alone, whichever filter decides.
        truth = {"gold": example.answer, "correct": verdict(row["answer"], example)}
        found.append(row | truth | {"kept": reason is None, "reason": reason})
    out.write_rows(FILE, found)


def _with_threshold(config: RationalesConfig, threshold: Folder | None) -> RationalesConfig:
    """Returns the filter with the threshold that was chosen, if one was."""
    if threshold is None:
        return config
    chosen = threshold.record("threshold.json")["min_mean_logprob"]
    return dataclasses.replace(config, min_mean_logprob=chosen)


def _with_agreement(written: list[dict[str, Any]], sampled: Folder | None) -> list[dict[str, Any]]:
    """Adds to each completion the share of the student's samples that agree with its answer."""
    said: dict[str, list[str | None]] = {}
    for row in sampled.rows("samples.jsonl") if sampled else ():
        said.setdefault(row["id"], []).append(row["answer"])
    for row in written:
        if answers := said.get(row["id"]):
            same = answers.count(row["answer"]) if row["answer"] is not None else 0
            row["agreement"] = same / len(answers)
    return written


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


class RationaleStages(NamedTuple):
    """Names the stages that write rationales, retry rejected ones, and filter them."""

    completions: Artifact = COMPLETIONS
    retries: Artifact = RETRIES
    rationales: Artifact = RATIONALES


_FOR_STUDENT = RationaleStages()
# Settings that only other stages read; they are left out of the filter's key.
_OF_OTHERS = (
    *("show_gold", "samples", "temperature", "retries", "retry_temperature", "rounds"),
    "least_right",
)


def filter_of(config: RunConfig) -> RationalesConfig:
    """Returns the settings of the filter; those that it does not read have their defaults."""
    default = RationalesConfig()
    others = {name: getattr(default, name) for name in _OF_OTHERS}
    return dataclasses.replace(config.rationales, **others)


def stages(
    config: RunConfig,
    by: Artifact,
    mode: Mode,
    into: RationaleStages = _FOR_STUDENT,
) -> list[Stage]:
    """Returns the stages that write rationales, retry rejected ones, and filter them.

    Args:
      config: of the run.
      by: the stage that trained the assistant.
      mode: the prompt with which it is asked.
      into: the names of these stages: a round's, or those for the student.
    """
    how, filtering = config.rationales, filter_of(config)
    writing = Writing(config.generation, mode, config.seed)
    to_assistant = inputs.POOL_TO_ASSISTANT | {"by": by.name}
    plan = [Stage(into.completions, write, writing, to_assistant, Load("pool", modes=(mode,)))]
    reads = {"pool": inputs.POOL, "completed": into.completions.name}
    if how.filter == "consistency":
        reads["sampled"] = SAMPLES.name
    if how.least_right and into == _FOR_STUDENT:  # Rounds have none: `checks`.
        reads["threshold"] = THRESHOLD.name
    if how.retries:
        generation = dataclasses.replace(config.generation, temperature=how.retry_temperature)
        # Random numbers of their own: a sampled first completion is not written again.
        seed = zlib.crc32(f"{into.retries.name} {config.seed}".encode())
        rejects = dataclasses.replace(filtering, corruption=0.0, corruption_kind="wrong_answer")
        params = Retrying(generation, mode, seed, how.retries, rejects)
        load = Load("pool", modes=(mode,), samples=how.retries)
        plan.append(Stage(into.retries, retry, params, to_assistant | reads, load))
        reads["retried"] = into.retries.name
    return [*plan, Stage(into.rationales, judge, Judging(filtering, config.seed), reads)]


def samples(config: RunConfig, instructed: Mapping[str, str]) -> list[Stage]:
    """Returns the stage of the student's samples, if the filter reads them.

    Args:
      config: of the run.
      instructed: argument -> stage of the student's instruction warm-up, if there is one.
    """
    how = config.rationales
    if how.filter != "consistency":
        return []
    generation = dataclasses.replace(config.generation, temperature=how.temperature)
    to_student = {**inputs.POOL_TO_STUDENT, **instructed}
    params = Sampling(generation, "reason", config.seed, how.samples)
    return [Stage(SAMPLES, sample, params, to_student, Load("pool", samples=how.samples))]
