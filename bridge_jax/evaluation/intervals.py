"""Computes confidence intervals of proportions, paired differences, and means over seeds.

The means of a study get a bootstrap over seeds and questions (Davison & Hinkley 1997, section 3.8:
two levels). A replicate draws both with replacement. Seeds that are tested on the same questions
draw the same questions, and so do all models of a seed, so differences are paired. With three seeds
the part of the interval that is due to seeds comes out too narrow (by a factor of sqrt(2/3) if
nothing else varies), so the tables also show the t interval over seeds.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from bridge_jax.errors import UserError

Z_95 = 1.959963984540054  # The 97.5% quantile of the standard normal distribution.
Z_80 = 0.8416212335729143  # The 80% quantile.
REPLICATES = 4000


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """Returns Wilson's 95% score interval of a proportion.

    The centre is (p + z²/2n) / (1 + z²/n), the half-width
    z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n). It stays within [0, 1], and has a positive width at 0%
    and 100%, where the normal interval has width 0.

    Reference: Wilson (1927), Journal of the American Statistical Association 22, 209-212.

    >>> [round(bound, 4) for bound in wilson(8, 10)]
    [0.4902, 0.9433]
    """
    share = successes / trials
    shrink = 1 + Z_95**2 / trials
    centre = (share + Z_95**2 / (2 * trials)) / shrink
    spread = math.sqrt(share * (1 - share) / trials + Z_95**2 / (4 * trials**2))
    half = Z_95 * spread / shrink
    # At 0 and n successes a bound is exactly 0 or 1; floating point only comes close.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == trials else centre + half
    return low, high


def paired_difference(
    rows_a: Sequence[Mapping[str, Any]], rows_b: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """Returns the difference in accuracy of A and B on the same questions, with its interval.

    With b questions that only A answers correctly, c that only B does and n in all, the difference
    is (b - c) / n. Its 95% interval is the normal one after half a question is added to each of the
    four counts (both, only A, only B, neither):
    (b - c) / m ± z sqrt(b + c + 1 - (b - c)² / m) / m, with m = n + 2. Without that, the interval
    of two models that never disagree on ten questions would have width 0.

    Reference: Agresti & Min (2005), Statistics in Medicine 24, 729-740.

    Args:
      rows_a: prediction rows of A.
      rows_b: prediction rows of B, of the same ids in any order.

    Returns:
      `difference`, `low` and `high`, in [-1, 1].

    Raises:
      UserError: ids differ or repeat, or there are no rows.
    """
    a, b = _correct_by_id(rows_a), _correct_by_id(rows_b)
    if a.keys() != b.keys():
        odd = sorted(a.keys() ^ b.keys())
        raise UserError(
            f"the predictions are not paired: {len(odd)} questions have a prediction of only one "
            f"model (first: {odd[0]!r}); evaluate both models on the same questions"
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


def questions_needed(
    rows_a: Sequence[Mapping[str, Any]], rows_b: Sequence[Mapping[str, Any]], difference: float
) -> int:
    """Returns how many questions it takes to tell a difference between A and B from chance.

    If the two disagree on a share d of the questions, a true difference of D is detected at the 5%
    level with 80% probability by (1.96 sqrt(d) + 0.84 sqrt(d - D²))² / D² questions. The share d is
    taken from the rows, with half a question added to each of the four counts, and is at least |D|.

    Reference: Connor (1987), Biometrics 43, 207-211.

    Args:
      rows_a: prediction rows of A.
      rows_b: prediction rows of B, of the same ids.
      difference: D, in [-1, 1], not 0.
    """
    a, b = _correct_by_id(rows_a), _correct_by_id(rows_b)
    disagree = sum(a[key] != b[key] for key in a)
    share = max(abs(difference), (disagree + 1) / (len(a) + 2))
    root = Z_95 * math.sqrt(share) + Z_80 * math.sqrt(share - difference**2)
    return math.ceil(root**2 / difference**2)


def seeds_needed(values: Sequence[float]) -> int | None:
    """Returns how many seeds it takes to tell the mean of paired differences from 0.

    It is (1.96 + 0.84)² s² / mean², for 80% probability at the 5% level, and at least 2: a few
    seeds give only a rough estimate of their standard deviation s. Returns None for fewer than
    two seeds, or if the mean is 0.
    """
    mean = float(np.mean(values)) if len(values) else 0.0
    if len(values) < 2 or mean == 0:
        return None
    variance = float(np.var(values, ddof=1))
    return max(2, math.ceil((Z_95 + Z_80) ** 2 * variance / mean**2))


def _correct_by_id(rows: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    correct = {row["id"]: bool(row["correct"]) for row in rows}
    if len(correct) < len(rows):
        raise UserError(f"{len(rows) - len(correct)} of {len(rows)} predictions repeat an id")
    return correct


def mean_over_seeds(values: Sequence[float]) -> tuple[float, float | None, float | None]:
    """Returns the mean of one value per seed and the bounds of its 95% interval by Student's t.

    The interval is mean ± t(0.975, n - 1) s / sqrt(n), s with n - 1 in the denominator. It covers
    the variation over seeds, not that of a finite test set. One seed has no interval.

    Raises:
      UserError: there are no values.
    """
    if not values:
        raise UserError("no values to average: no seed has finished")
    mean, n = float(np.mean(values)), len(values)
    if n == 1:
        return mean, None, None
    half = float(special.stdtrit(n - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half


class Resampling:
    """Bootstrap draws shared by all estimates of a study, the same in every call and process.

    R below is `REPLICATES`.
    """

    def __init__(self):
        self._weights: dict[str, np.ndarray] = {}

    def accuracy(self, test: Sequence[str], right: Mapping[str, float]) -> np.ndarray:
        """Returns f64[R]: a model's accuracy in each replicate.

        Args:
          test: the test questions of the model's seed; equal test sets get equal draws.
          right: question -> the model's score, from 0 to 1; may cover only a part of `test`.
        """
        weights = self._drawn(tuple(test))
        asked = np.array([question in right for question in test], np.float32)
        scores = np.array([right.get(question, 0.0) for question in test], np.float32)
        drawn = (weights @ asked).astype(np.float64)
        # A replicate may draw none of the questions that were asked, if they are few.
        mean = scores.sum() / max(1, asked.sum())
        return np.where(drawn > 0, weights @ scores / np.maximum(drawn, 1), mean)

    def over_seeds(self, by_seed: Mapping[int, np.ndarray]) -> np.ndarray:
        """Returns f64[R]: each replicate's mean over seeds drawn with replacement.

        Args:
          by_seed: seed -> f64[R].
        """
        seeds = sorted(by_seed)
        stacked = np.stack([by_seed[seed] for seed in seeds])
        drawn = _generator(f"seeds {seeds}").integers(len(seeds), size=(REPLICATES, len(seeds)))
        return stacked[drawn, np.arange(REPLICATES)[:, None]].mean(1)

    def _drawn(self, test: tuple[str, ...]) -> np.ndarray:
        """Returns f32[R, Q]: how often each question is drawn; integers, so sums are exact."""
        key = hashlib.sha256("\0".join(test).encode()).hexdigest()
        if key not in self._weights:
            n = len(test)
            drawn = _generator(key).multinomial(n, np.full(n, 1 / n), size=REPLICATES)
            self._weights[key] = drawn.astype(np.float32)
        return self._weights[key]


def _generator(words: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))


def estimate(values: Mapping[int, float], replicates: np.ndarray) -> dict[str, Any]:
    """Returns a mean over seeds with its uncertainty, as JSON values.

    Args:
      values: seed -> value.
      replicates: f64[R], from `Resampling.over_seeds`.

    Returns:
      `mean`; `low` and `high`, the 95% percentile interval of the bootstrap; `t_low` and `t_high`,
      Student's over the seeds alone (None for one seed); `seeds`: the values.
    """
    low, high = np.quantile(replicates, [0.025, 0.975])
    mean, t_low, t_high = mean_over_seeds(list(values.values()))
    return {
        "mean": mean,
        "low": float(low),
        "high": float(high),
        "t_low": t_low,
        "t_high": t_high,
        "seeds": {str(seed): values[seed] for seed in sorted(values)},
    }
