"""Corrupts a known share of the rationales, to measure what the filters catch.

This happens before the filters. The log-probabilities are kept from the original text, so the
`confidence` filter cannot detect the swap.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridge_jax.config import RationalesConfig
from bridge_jax.data.answers import format_completion, is_correct
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError

Row = dict[str, Any]

_OF_REASONING = ("rationale", "mean_logprob", "min_step_logprob")


def corrupt(
    rows: Sequence[Row], pool: Mapping[str, Example], config: RationalesConfig, seed: int
) -> list[Row]:
    """Returns the rows with `noise` (its kind or None), `config.noise` of them corrupted.

    Only rationales that end in an answer count, and the share is of them. Which ones are corrupted,
    and how, depends on the seed alone: what is corrupted at a low rate is so at a higher one.

    Args:
      rows: of the assistant's completions.
      pool: the examples by id.
      config: kind and rate.
      seed: of the draw.

    Raises:
      UserError: there is nothing else to put in its place.
    """
    whole = [i for i, row in enumerate(rows) if row["rationale"].strip() and row["answer"]]
    order = np.random.default_rng(seed).permutation(whole).astype(int)
    out = [row | {"noise": None} for row in rows]
    change = {"wrong_reasoning": _wrong_reasoning, "wrong_answer": _wrong_answer}[config.noise_kind]
    for i in order[: round(config.noise * len(whole))].tolist():
        parts = change(rows[i], [rows[j] for j in whole], pool, np.random.default_rng([seed, i]))
        completion = "".join(format_completion(parts["rationale"], parts["answer"]))
        out[i] = parts | {"completion": completion, "noise": config.noise_kind}
    return out


def _wrong_reasoning(
    row: Row, rows: Sequence[Row], pool: Mapping[str, Example], rng: np.random.Generator
) -> Row:
    """Returns the row with the reasoning of another example: its own answer stays."""
    others = [other for other in rows if other["rationale"] != row["rationale"]]
    if not others:
        raise UserError("rationales.noise: the assistant writes the same for every example")
    other = others[rng.integers(len(others))]
    return row | {key: other[key] for key in _OF_REASONING}


def _wrong_answer(
    row: Row, rows: Sequence[Row], pool: Mapping[str, Example], rng: np.random.Generator
) -> Row:
    """Returns the row with another answer of the task than the gold one: the reasoning stays."""
    example = pool[row["id"]]
    answers = example.choices or sorted(
        {other.answer for other in pool.values() if other.kind == example.kind}
    )
    shuffled = (answers[i] for i in rng.permutation(len(answers)))
    wrong = next((answer for answer in shuffled if not is_correct(answer, example)), None)
    if wrong is None:
        raise UserError(f"rationales.noise: example {example.id!r} has no other answer")
    return row | {"answer": wrong}
