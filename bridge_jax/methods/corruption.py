"""Corrupts a known share of the rationales, to measure what the filters catch.

This happens before the filters. The log-probabilities stay those of the original text, so the
`confidence` filter cannot detect the swap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridge_jax.config import RationalesConfig
from bridge_jax.data.answers import format_completion, is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError

_OF_REASONING = ("rationale", "mean_logprob", "min_step_logprob")


def corrupt(
    rows: Sequence[dict[str, Any]], pool: Mapping[str, Example], config: RationalesConfig, seed: int
) -> list[dict[str, Any]]:
    """Corrupts a share of the rationales that end in an answer.

    Which ones are corrupted, and how, depends on the seed alone: a row that is corrupted at a low
    rate is so at a higher one.

    Args:
      rows: the assistant's completions.
      pool: the examples by id.
      config: kind and rate.
      seed: of the draw.

    Returns:
      All rows, each with `corruption`: its kind, or None.

    Raises:
      UserError: there is nothing else to put in the place of a rationale or an answer.
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
    """Returns the row with the reasoning of another example, and its own answer."""
    others = [other for other in rows if other["rationale"] != row["rationale"]]
    if not others:
        raise UserError("rationales.corruption: the assistant writes the same for every example")
    other = others[rng.integers(len(others))]
    return row | {key: other[key] for key in _OF_REASONING}


def _wrong_answer(
    row: dict[str, Any], pool: Mapping[str, Example], rng: np.random.Generator
) -> dict[str, Any]:
    """Returns the row with its own reasoning, and an answer of the task that is wrong."""
    example = pool[row["id"]]
    answers = example.choices or sorted(
        {other.gold for other in pool.values() if other.kind == example.kind}
    )
    shuffled = (answers[i] for i in rng.permutation(len(answers)))
    wrong = next((answer for answer in shuffled if not is_correct(answer, example)), None)
    if wrong is None:
        raise UserError(f"rationales.corruption: example {example.id!r} has no other answer")
    return row | {"answer": wrong}
