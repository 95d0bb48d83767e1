"""Filters the assistant's rationales, and builds the student's targets from those that are kept.

To measure the filters, a known share of the rationales can be corrupted before filtering. The
log-probabilities stay those with which the assistant wrote the text, so the `confidence` filter
cannot detect the error.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, NotRequired, TypedDict

import numpy as np

from bridge_jax.config import RationalesConfig, RunConfig
from bridge_jax.data.answers import format_completion, is_correct, verdict
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.methods.annotations import kept_annotations
from bridge_jax.methods.inputs import Examples
from bridge_jax.pipeline.artifacts import Artifact, record, rows
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering

FILE = "rationales.jsonl"


class WrittenRationale(TypedDict):
    """A rationale that the assistant wrote for an example; log-probabilities are in nats."""

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


class Threshold(TypedDict):
    """The confidence threshold that was chosen on the dev split, and its results there.

    Attributes:
      min_mean_logprob: the threshold, in nats.
      least_right: the share of the kept answers that was required to be right.
      asked: the number of dev questions with a gold or bought answer.
      kept, right: how many of the assistant's answers to them are kept, and how many of the kept
        ones are right.
    """

    min_mean_logprob: float
    least_right: float
    asked: int
    kept: int
    right: int


class Judged(WrittenRationale):
    """A rationale that the assistant wrote, and whether the student learns from it.

    Attributes:
      retry: the number of the retry that was taken, from 1; absent for the first completion.
      corruption: the kind of error that was inserted; None if there is none.
      agreement: the share of the student's samples with this answer.
      gold, correct: only for the report; None where the example has no gold answer.
      kept, reason: whether the student learns from it, and if not, why.
    """

    retry: NotRequired[int]
    corruption: str | None
    agreement: NotRequired[float]
    gold: str | None
    correct: bool | None
    kept: bool
    reason: str | None


COMPLETED = rows("completions.jsonl", WrittenRationale)


RATIONALES = Artifact(
    "tutoring/rationales", "Filtering rationales", "judge", None, (rows(FILE, Judged),)
)


THRESHOLD = Artifact(  # written by `methods.thresholds`
    "tutoring/threshold",
    "Choosing a threshold",
    "judge",
    None,
    (record("threshold.json", Threshold),),
)


@dataclasses.dataclass(frozen=True)
class Judging:
    """Parameters of the filter; `seed` seeds the corruption."""

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
    """Picks a rationale for every example, and decides whether the student learns from it.

    The pick is the first completion that the filter keeps, retries included. If the filter keeps
    none, it is the first completion, with the reason.
    """
    config, found = with_threshold(params.how, threshold), []
    again = retried.rows("completions.jsonl") if retried else []
    retries: dict[str, list[dict[str, Any]]] = {}
    for row in with_agreement(again, sampled):
        retries.setdefault(row["id"], []).append(row)
    written = corrupt(completed.rows("completions.jsonl"), pool.by_id, config, params.seed)
    for row in with_agreement(written, sampled):
        example = pool.by_id[row["id"]]
        reason = why_rejected(row, example, config)
        if reason:
            for number, other in enumerate(retries.get(example.id, ()), start=1):
                if not why_rejected(other, example, config):
                    row, reason = other | {"retry": number, "corruption": None}, None
                    break
        # Only for the report, whichever filter decides.
        truth = {"gold": example.answer, "correct": verdict(row["answer"], example)}
        found.append(row | truth | {"kept": reason is None, "reason": reason})
    out.write_rows(FILE, found)


def with_threshold(config: RationalesConfig, threshold: Folder | None) -> RationalesConfig:
    """Returns the settings of the filter, with the chosen threshold if there is one."""
    if threshold is None:
        return config
    chosen = threshold.record("threshold.json")["min_mean_logprob"]
    return dataclasses.replace(config, min_mean_logprob=chosen)


def with_agreement(written: list[dict[str, Any]], sampled: Folder | None) -> list[dict[str, Any]]:
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
    """Returns why a rationale is rejected, or None if it is kept.

    Only the filter `gold` reads the gold answer. No filter keeps what cannot be learned from: a
    completion that was cut off, or that has no rationale or no answer.
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


# Settings that only other stages read; they are left out of the filter's key.
_OF_OTHERS = (
    "show_gold",
    "samples",
    "temperature",
    "retries",
    "retry_temperature",
    "rounds",
    "least_right",
)


def filter_of(config: RunConfig) -> RationalesConfig:
    """Returns the settings of the filter, with those that it does not read at their defaults."""
    default = RationalesConfig()
    others = {name: getattr(default, name) for name in _OF_OTHERS}
    return dataclasses.replace(config.rationales, **others)


_OF_REASONING = ("rationale", "mean_logprob", "min_step_logprob")


def corrupt(
    rows: Sequence[dict[str, Any]], pool: Mapping[str, Example], config: RationalesConfig, seed: int
) -> list[dict[str, Any]]:
    """Corrupts a share of the rationales that end in an answer.

    Which ones are corrupted, and how, depends on the rows and the seed, not on the rate: a row that
    is corrupted at a low rate is corrupted in the same way at a higher one.

    Args:
      rows: the assistant's completions.
      pool: the examples by id.
      config: the kind and the rate of corruption.
      seed: seeds all random choices.

    Returns:
      All rows, each with `corruption`: its kind, or None.

    Raises:
      UserError: there is no other rationale or no wrong answer to insert.
    """
    whole = [i for i, row in enumerate(rows) if row["rationale"].strip() and row["answer"]]
    order = np.random.default_rng(seed).permutation(whole).astype(int)
    out = [row | {"corruption": None} for row in rows]
    kind = config.corruption_kind
    for i in order[: round(config.corruption * len(whole))].tolist():
        rng = np.random.default_rng([seed, i])
        if kind == "wrong_reasoning":
            parts = _wrong_reasoning(rows[i], [rows[j] for j in whole], rng)
        else:
            parts = _wrong_answer(rows[i], pool, rng)
        completion = "".join(format_completion(parts["rationale"], parts["answer"]))
        out[i] = parts | {"completion": completion, "corruption": kind}
    return out


def _wrong_reasoning(
    row: dict[str, Any], rows: Sequence[dict[str, Any]], rng: np.random.Generator
) -> dict[str, Any]:
    """Returns the row with the reasoning of another example and its own answer."""
    others = [other for other in rows if other["rationale"] != row["rationale"]]
    if not others:
        raise UserError("rationales.corruption: the assistant wrote the same for every example")
    other = others[rng.integers(len(others))]
    return row | {key: other[key] for key in _OF_REASONING}


def _wrong_answer(
    row: dict[str, Any], pool: Mapping[str, Example], rng: np.random.Generator
) -> dict[str, Any]:
    """Returns the row with its own reasoning and a wrong answer of the task."""
    example = pool[row["id"]]
    answers = example.choices or sorted(
        {other.gold for other in pool.values() if other.kind == example.kind}
    )
    shuffled = (answers[i] for i in rng.permutation(len(answers)))
    wrong = next((answer for answer in shuffled if not is_correct(answer, example)), None)
    if wrong is None:
        raise UserError(f"rationales.corruption: example {example.id!r} has no other answer")
    return row | {"answer": wrong}


class SFTTarget(NamedTuple):
    """The text that the student learns for an example: an answer, with or without a rationale."""

    example: Example
    rationale: str | None
    answer: str


@dataclasses.dataclass(frozen=True)
class SFTTargets:
    """Parameters of the student's targets.

    Attributes:
      form: rationale and answer in one sequence (`chain`), or in a sequence each (`two_pass`).
      labelled: whether a teacher's rationale is followed by the gold answer, not by the teacher's.
      by_gold: whether rationales were kept because their answers are gold. If so, the student
        learns the gold answers; if not, those that the assistant wrote.
      answers_alone: whether the student learns the gold answer alone where it has no rationale.
    """

    form: Literal["chain", "two_pass"]
    labelled: bool
    by_gold: bool = False
    answers_alone: bool = False

    @classmethod
    def of(cls, config: RunConfig) -> "SFTTargets":
        """Returns the parameters in a config."""
        by_gold = config.rationales.filter == "gold"
        alone = by_gold and config.rationales.rejected == "label"
        return cls(config.form, config.data.labelled, by_gold, alone)

    def of_pool(
        self, pool: Examples, judged: Folder | None, annotated: Folder | None
    ) -> list[SFTTarget]:
        """Returns the targets of the whole pool, in the order of the pool.

        An example has the teacher's rationale if one was kept, else the assistant's if that was
        kept, else the gold answer alone (`answers_alone`), else no target. If no assistant wrote
        (`judged` is None), all targets are the teacher's, in the order of the selection.
        """
        if judged is None:
            assert annotated, "there is neither a teacher nor an assistant"
            return self._of_teacher(pool, annotated)
        found = {e.id: SFTTarget(e, None, e.gold) for e in pool} if self.answers_alone else {}
        for row in judged.rows(FILE):
            if row["kept"]:
                example = pool.by_id[row["id"]]
                answer = example.gold if self.by_gold else row["answer"]
                found[example.id] = SFTTarget(example, row["rationale"], answer)
        if annotated:
            found |= {target.example.id: target for target in self._of_teacher(pool, annotated)}
        return [found[example.id] for example in pool if example.id in found]

    def _of_teacher(self, pool: Examples, annotated: Folder) -> list[SFTTarget]:
        return [SFTTarget(*kept) for kept in kept_annotations(annotated, pool, self.labelled)]

    def sequences(
        self, targets: Sequence[SFTTarget], reading: Rendering
    ) -> list[list[prompts.TrainingSequence]]:
        """Returns the sequences of each target: one, or in two passes answer and rationale.

        L = a * L_rationale + (1 - a) * L_answer weights the two passes like the parts of a chain.
        """
        whole = reading.sequences(targets)
        if self.form == "chain":
            return [[sequence] for sequence in whole]
        answers = reading.sequences([(example, None, answer) for example, _, answer in targets])
        return [
            [answer, sequence.without_answer] if target.rationale else [sequence]
            for target, sequence, answer in zip(targets, whole, answers)
        ]
