"""Bootstrap over questions and seeds: how sure the means of a study are.

A replicate draws seeds with replacement, and questions with replacement (Davison & Hinkley 1997,
section 3.8: two levels). Seeds that are tested on the same questions draw the same ones; so do all
models of a seed, and differences are paired. With three seeds the part of the interval that is due
to seeds comes out too narrow (by a factor of sqrt(2/3) where nothing else varies, with few distinct
draws), so the t interval over seeds stands beside it in the tables.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bridge_jax.evaluation.metrics import mean_over_seeds

REPLICATES = 4000


class Resampling:
    """Draws that all numbers of a study share, the same in every call and process.

    Args:
      count: R, replicates.
    """

    def __init__(self, count: int = REPLICATES):
        self.count = count
        self._weights: dict[str, np.ndarray] = {}

    def accuracy(self, test: Sequence[str], right: Mapping[str, float]) -> np.ndarray:
        """Returns f64[R]: a model's accuracy in each replicate.

        Args:
          test: the questions of its seed, in words: where they are the same, so are the draws.
          right: how right it was, 0 to 1, by question; it may have been asked a part of `test`.
        """
        weights = self._drawn(tuple(test))
        asked = np.array([question in right for question in test], np.float32)
        scores = np.array([right.get(question, 0.0) for question in test], np.float32)
        drawn = (weights @ asked).astype(np.float64)
        # A replicate may draw none of a few questions.
        mean = scores.sum() / max(1, asked.sum())
        return np.where(drawn > 0, weights @ scores / np.maximum(drawn, 1), mean)

    def over_seeds(self, by_seed: Mapping[int, np.ndarray]) -> np.ndarray:
        """Returns f64[R]: the means over drawn seeds of f64[R] for each seed."""
        seeds = sorted(by_seed)
        stacked = np.stack([by_seed[seed] for seed in seeds])
        drawn = _generator(f"seeds {seeds}").integers(len(seeds), size=(self.count, len(seeds)))
        return stacked[drawn, np.arange(self.count)[:, None]].mean(1)

    def _drawn(self, test: tuple[str, ...]) -> np.ndarray:
        """Returns f32[R, Q]: how often each question is drawn; whole numbers, so sums are exact."""
        key = hashlib.sha256("\0".join(test).encode()).hexdigest()
        if key not in self._weights:
            n = len(test)
            drawn = _generator(key).multinomial(n, np.full(n, 1 / n), size=self.count)
            self._weights[key] = drawn.astype(np.float32)
        return self._weights[key]


def estimate(values: Mapping[int, float], replicates: np.ndarray) -> dict[str, Any]:
    """Returns a mean over seeds with its uncertainty, as JSON values.

    Args:
      values: by seed.
      replicates: f64[R], what `Resampling.over_seeds` gave.

    Returns:
      `mean`; `low` and `high`, the 95% percentile interval of the bootstrap; `t_low` and `t_high`,
      Student's over the seeds alone (None for one seed); `seeds`: the values.
    """
    low, high = np.quantile(replicates, [0.025, 0.975])
    over = mean_over_seeds(list(values.values()))
    return {
        "mean": over.mean,
        "low": float(low),
        "high": float(high),
        "t_low": over.low,
        "t_high": over.high,
        "seeds": {str(seed): values[seed] for seed in sorted(values)},
    }


def _generator(words: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(words.encode()).digest()))
