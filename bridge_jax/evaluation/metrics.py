"""Accuracy, compliance and length of a model's predictions, with their uncertainty.

A prediction row is `{"id", "completion", "answer", "correct", "tokens"}`: `answer` is what was
parsed from the completion, None when nothing could be; `tokens` counts generated tokens.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from bridge_jax.errors import UserError

Z_95 = 1.959963984540054  # the 97.5% quantile of the standard normal distribution


class SeedMean(NamedTuple):
    """A mean over seeds and its 95% interval; one seed has no interval."""

    mean: float
    low: float | None
    high: float | None


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Returns Wilson's 95% score interval of a proportion.

    The centre is (p + z²/2n) / (1 + z²/n), the half-width
    z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n): it stays within [0, 1] and keeps a width at 0% and
    100%, where the normal interval has none.

    Reference: Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    share = successes / trials
    shrink = 1 + Z_95**2 / trials
    centre = (share + Z_95**2 / (2 * trials)) / shrink
    spread = math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2))
    half = Z_95 * spread / shrink
    # At 0 and n successes the bound is exactly 0 or 1; the floats only come near.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the metrics of one model on one set of questions.

    Args:
      rows: prediction rows, at least one.

    Returns:
      `n`; `accuracy`, `accuracy_low`, `accuracy_high` (95%, Wilson); `compliance`, the share of
      completions that an answer was parsed from, with `compliance_low` and `compliance_high`;
      `mean_tokens`, generated tokens per question; and `score`, the mean ROUGE-L, of free texts.

    Raises:
      UserError: there are no rows.
    """
    if not rows:
        raise UserError("no predictions to summarise: the evaluation has no questions")
    n = len(rows)
    correct = sum(bool(row["correct"]) for row in rows)
    parsed = sum(row["answer"] is not None for row in rows)
    accuracy_low, accuracy_high = wilson(correct, n)
    compliance_low, compliance_high = wilson(parsed, n)
    scores = [row["score"] for row in rows if "score" in row]
    return {
        **({"score": sum(scores) / len(scores)} if scores else {}),
        "n": n,
        "accuracy": correct / n,
        "accuracy_low": accuracy_low,
        "accuracy_high": accuracy_high,
        "compliance": parsed / n,
        "compliance_low": compliance_low,
        "compliance_high": compliance_high,
        "mean_tokens": sum(row["tokens"] for row in rows) / n,
    }


def paired_difference(
    rows_a: Sequence[Mapping[str, Any]], rows_b: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns how much more accurate A is than B on the same questions.

    With b questions that only A answers, c that only B answers and n in all, the difference is
    (b - c) / n. Its 95% interval is the normal one after half a question is added to each of
    the four cells (both, only A, only B, neither):
    (b - c) / m ± z sqrt(b + c + 1 - (b - c)² / m) / m, with m = n + 2. Without that, two models
    that never disagree on ten questions would be told apart with certainty.

    Reference: Agresti & Min (2005), Statistics in Medicine 24, 729-740.

    Args:
      rows_a: prediction rows of A.
      rows_b: prediction rows of B, of the same ids in any order.

    Returns:
      `difference`, `low` and `high`, in [-1, 1].

    Raises:
      UserError: the ids differ, repeat, or there are none.
    """
    a, b = _correct_by_id(rows_a), _correct_by_id(rows_b)
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise UserError(
            f"the predictions are not paired: {len(odd)} questions have only one of the two "
            f"(first: {odd[0]!r}); evaluate both models on the same questions"
        )
    if not a:
        raise UserError("no predictions to compare: the evaluation has no questions")
    only_a = sum(a[key] and not b[key] for key in a)
    only_b = sum(b[key] and not a[key] for key in a)
    padded = len(a) + 2
    centre = (only_a - only_b) / padded
    variance = only_a + only_b + 1 - (only_a - only_b) ** 2 / padded
    half = Z_95 * math.sqrt(variance) / padded
    return {
        "difference": (only_a - only_b) / len(a),
        "low": max(-1.0, centre - half),
        "high": min(1.0, centre + half),
    }


def mean_over_seeds(values: Sequence[float]) -> SeedMean:
    """Returns the mean of one value per seed and its 95% interval by Student's t.

    The interval is mean ± t(0.975, n - 1) s / sqrt(n), s with n - 1 in the denominator. It is about
    seeds: the uncertainty of a finite test set is not in it.

    Raises:
      UserError: there are no values.
    """
    if not values:
        raise UserError("no values to average: no seed has finished")
    mean = float(np.mean(values))
    n = len(values)
    if n == 1:
        return SeedMean(mean, None, None)
    half = float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return SeedMean(mean, mean - half, mean + half)


def _correct_by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    correct = {row["id"]: bool(row["correct"]) for row in rows}
    if len(correct) < len(rows):
        raise UserError(f"{len(rows) - len(correct)} of {len(rows)} predictions repeat an id")
    return correct
