"""Which of a teacher's replies are worth learning from, and why not the others.

A rationale is kept if its reply was whole, its answer is the gold one, its length is within the
limits, and, where several replies were paid for, enough of them agree (self-consistency, Wang et
al., 2203.11171).
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from bridge_jax.data.answers import answer_in_recorded_text, is_correct, parse_answer
from bridge_jax.data.example import Example
from bridge_jax.data.formats import WrittenFloat
from bridge_jax.teachers.protocol import Failure, Reply
from bridge_jax.teachers.structured import JsonNumber, read_json, without_thoughts

Outcome = Reply | Failure

_NO_ANSWER = {
    "length": "cut off at teacher.max_output_tokens",
    "refused": "refused",
    "empty": "an empty reply",
    "malformed": "no rationale and answer in the reply",
}


@dataclasses.dataclass(frozen=True)
class Rules:
    """What is asked of a rationale.

    Attributes:
      count_tokens: of a rationale.
      keep_wrong: keep those whose answer is not the gold one.
      min_tokens, max_tokens: of the rationale; a maximum of 0 is none.
      samples, min_agreement: of so many replies the share at least that gives the same answer.
    """

    count_tokens: Callable[[str], int]
    keep_wrong: bool = False
    min_tokens: int = 0
    max_tokens: int = 0
    samples: int = 1
    min_agreement: float = 0.0


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one reply says, and why it is not worth learning from (None: it is)."""

    rationale: str
    answer: str | None
    reason: str | None


def read(example: Example, outcome: Outcome, rules: Rules) -> Reading:
    """Returns what one reply says."""
    if isinstance(outcome, Failure):
        return Reading("", None, outcome.reason)
    if outcome.finish != "stop":
        return Reading("", None, _NO_ANSWER[outcome.finish])
    if found := read_json(outcome.text):
        rationale, answer = found[0], parse_answer(_value(found[1]), example)
    else:
        rationale, answer = answer_in_recorded_text(without_thoughts(outcome.text), example)
    return Reading(rationale, answer, _reason(example, rationale, answer, rules))


def _value(answer: str) -> str | float:
    """Returns a JSON number as a number, so that its point is read as the decimal mark."""
    is_number = isinstance(answer, JsonNumber) and math.isfinite(float(answer))
    return WrittenFloat(answer) if is_number else answer


def _reason(example: Example, rationale: str, answer: str | None, rules: Rules) -> str | None:
    if not rationale.strip():
        return "no rationale"
    if not rules.keep_wrong and answer is None:
        return "no answer that parses"
    if not rules.keep_wrong and not is_correct(answer, example):
        return f"the answer {answer!r} is not the gold one"
    tokens = rules.count_tokens(rationale)
    if tokens < rules.min_tokens:
        return f"{tokens} tokens, below teacher.min_rationale_tokens={rules.min_tokens}"
    if rules.max_tokens and tokens > rules.max_tokens:
        return f"{tokens} tokens, above teacher.max_rationale_tokens={rules.max_tokens}"
    return None


def is_good(example: Example, outcomes: Sequence[Outcome], rules: Rules) -> bool:
    """Whether one of the replies is worth learning from."""
    return any(read(example, outcome, rules).reason is None for outcome in outcomes)


def annotation(example: Example, outcomes: Sequence[Outcome], rules: Rules) -> dict[str, Any]:
    """Returns the row of `annotations.jsonl`: the first good rationale, or why there is none.

    Args:
      example: what was asked about.
      outcomes: `rules.samples` of them, then those of further attempts.
      rules: what is asked of a rationale.
    """
    readings = [read(example, outcome, rules) for outcome in outcomes]
    # Without a good one, the row shows the first that says anything.
    readings.sort(key=lambda r: (r.reason is not None, r.answer is None, not r.rationale))
    best = readings[0]
    reason = "; ".join(dict.fromkeys(r.reason for r in readings if r.reason))
    row = {
        "id": example.id,
        "question": example.question,
        "rationale": best.rationale,
        "answer": best.answer,
        "gold": example.answer,
        "correct": is_correct(best.answer, example),
        "kept": best.reason is None,
        "reason": None if best.reason is None else reason,
        "asked": len(outcomes),
    }
    if rules.samples > 1:
        said = [read(example, outcome, rules).answer for outcome in outcomes[: rules.samples]]
        row["agreement"] = said.count(best.answer) / rules.samples if best.answer else 0.0
        if row["kept"] and row["agreement"] < rules.min_agreement:
            row["kept"] = False
            row["reason"] = (
                f"{said.count(best.answer)} of {rules.samples} samples give this answer, below "
                f"teacher.min_agreement={rules.min_agreement}"
            )
    return row
