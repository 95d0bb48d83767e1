"""Fits a learning curve to a pilot, to predict accuracy from budget and budget from accuracy.

The curve is accuracy(B) = a - b (B + 1)^-c over B teacher queries, with a <= 1, b >= 0 and
0.03 <= c <= 3. The distance to the asymptote a follows a power law, as learning curves often do
(Viering & Loog 2022, arXiv 2103.10948); B + 1 puts a budget of 0 on the curve. It is fitted by
least squares with variable projection (Golub & Pereyra 1973): for a given c the problem is linear,
so only c is searched, first on a grid and then between the neighbours of the best grid point. The
grid has a point just inside each bound: if the bound itself is better, it is the result.

Intervals cover the uncertainty of the measured points, by the bootstrap of `evaluation.intervals`.
They do not cover the chance that the true curve has another form. The check against a held-out
budget shows how far to trust the fit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import elementwise

FEWEST = 4  # budgets, to fit three parameters
CURVES = 400  # replicates that are kept with the advice
INTERVAL = (0.05, 0.95)
_LEAST, _MOST = 0.03, 3.0  # bounds of c
_RATES = np.sort([*np.geomspace(_LEAST, _MOST, 160), _LEAST * (1 + 1e-4), _MOST * (1 - 1e-4)])
_SURE = 0.95  # share of the replicates in which accuracy must rise with the budget


class Curve(NamedTuple):
    """Curves a - b (B + 1)^-c; each parameter is f64[...], one element per curve."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray

    def accuracy(self, budget: float) -> np.ndarray:
        """Returns f64[...], the accuracy at `budget`."""
        return self.a - self.b * (budget + 1.0) ** -self.c

    def budget(self, accuracy: float) -> np.ndarray:
        """Returns f64[...], the budget that reaches `accuracy`; inf where the curve never does."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = (self.b / (self.a - accuracy)) ** (1 / self.c) - 1
        reached = self.a - self.b >= accuracy
        return np.where(reached, 0.0, np.where(self.a > accuracy, needed, np.inf))


def fit(budgets: np.ndarray, accuracy: np.ndarray) -> Curve:
    """Fits one curve to each row of f64[..., n] accuracies at f64[n] budgets."""
    y = np.atleast_2d(accuracy)
    rows = np.arange(len(y))

    def solve(c: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _linear((budgets + 1.0) ** -c[:, None], y[row])

    errors = [solve(np.full(len(y), rate), rows)[2] for rate in _RATES]
    best = np.argmin(errors, axis=0)
    inside = np.clip(best, 1, len(_RATES) - 2)
    found = elementwise.find_minimum(
        lambda c, row: solve(c, row)[2],
        (_RATES[inside - 1], _RATES[inside], _RATES[inside + 1]),
        args=(rows,),
    )
    c = np.where(best == inside, found.x, _RATES[best])
    a, b, _ = solve(c, rows)
    return Curve(*(part.reshape(accuracy.shape[:-1]) for part in (a, b, c)))


def _linear(z: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a, b and the squared error of y = a - b z with a <= 1 and b >= 0, each f64[R].

    Args:
      z: f64[R, n].
      y: f64[R, n].
    """
    mean = y.mean(1)
    spread = z - z.mean(1, keepdims=True)
    slope = -(y * spread).sum(1) / (spread * spread).sum(1)
    free = mean + slope * z.mean(1), slope
    # If that breaks a bound, the best solution lies on one of the two edges.
    level = np.minimum(mean, 1), np.zeros_like(mean)
    capped = np.ones_like(mean), np.maximum(((1 - y) * z).sum(1) / (z * z).sum(1), 0)

    def error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((y - a[:, None] + b[:, None] * z) ** 2).sum(1)

    is_free, is_level = (free[0] <= 1) & (free[1] >= 0), error(*level) <= error(*capped)
    a, b = (
        np.where(is_free, inner, np.where(is_level, low, high))
        for inner, low, high in zip(free, level, capped)
    )
    return a, b, error(a, b)


def advise(budgets: np.ndarray, accuracy: np.ndarray, replicates: np.ndarray) -> dict[str, Any]:
    """Fits the curves of a pilot and returns JSON values for `accuracy_for` and `budget_for`.

    Args:
      budgets: f64[n], teacher queries, ascending.
      accuracy: f64[n], means over seeds.
      replicates: f64[R, n], these means in each replicate of the bootstrap.

    Returns:
      `status`: `few` (fewer than four budgets), `flat` (accuracy does not clearly rise with the
      budget) or `fitted`; `budgets` and `accuracy` as measured. If fitted, also `curves` (`a`, `b`,
      `c`: the fit first, then replicates) and `held_out`, the prediction for the largest budget
      from the others (`queries`, `predicted`, `low`, `high`, `measured`, `inside`; None if there
      are too few budgets).
    """
    measured = {"budgets": budgets.tolist(), "accuracy": accuracy.tolist()}
    if len(budgets) < FEWEST:
        return {"status": "few", **measured}
    logs = np.log1p(budgets) - np.log1p(budgets).mean()
    if (replicates @ logs > 0).mean() < _SURE:
        return {"status": "flat", **measured}
    fitted = fit(budgets, np.vstack([accuracy, replicates[:CURVES]]))
    curves = {name: np.round(part, 6).tolist() for name, part in fitted._asdict().items()}
    held_out = _hold_out(budgets, accuracy, replicates) if len(budgets) > FEWEST else None
    return {"status": "fitted", **measured, "curves": curves, "held_out": held_out}


def _hold_out(budgets: np.ndarray, accuracy: np.ndarray, replicates: np.ndarray) -> dict[str, Any]:
    known = np.vstack([accuracy, replicates[:CURVES]])[:, :-1]
    values = fit(budgets[:-1], known).accuracy(float(budgets[-1]))
    # The measured point is noisy too: the deviations of other replicates are added.
    held = replicates[-CURVES:, -1]
    low, high = _interval(values[1:] + (held - held.mean())[::-1])
    return {
        "queries": float(budgets[-1]),
        "predicted": float(values[0]),
        "low": low,
        "high": high,
        "measured": float(accuracy[-1]),
        "inside": low <= float(accuracy[-1]) <= high,
    }


def accuracy_for(advice: dict[str, Any], queries: float) -> dict[str, Any]:
    """Predicts the accuracy at a budget: `status`, `accuracy`, `low`, `high` (90%).

    `status` is `few` or `flat` as in `advise`, or `within` or `beyond` the measured budgets.
    """
    if advice["status"] != "fitted":
        return {"status": advice["status"]}
    values = _curves(advice).accuracy(queries)
    low, high = _interval(values[1:])
    status = "beyond" if queries > advice["budgets"][-1] else "within"
    return {"status": status, "accuracy": float(values[0]), "low": low, "high": high}


def budget_for(advice: dict[str, Any], accuracy: float) -> dict[str, Any]:
    """Predicts the budget that reaches an accuracy: `status`, `queries`, `low`, `high` (90%).

    `status` is `few` or `flat` as in `advise`, `never` if the curve stays below the accuracy, or
    `within` or `beyond` the measured budgets. A bound that does not exist is None.
    """
    if advice["status"] != "fitted":
        return {"status": advice["status"]}
    values = _curves(advice).budget(accuracy)
    queries, low, high = (
        value if np.isfinite(value) else None
        for value in (float(values[0]), *_interval(values[1:]))
    )
    status = "within"
    if queries is None:
        status = "never"
    elif queries > advice["budgets"][-1]:
        status = "beyond"
    return {"status": status, "queries": queries, "low": low, "high": high}


def band(advice: dict[str, Any], budgets: Sequence[float]) -> np.ndarray:
    """Returns f64[n, 3]: the curve at n budgets, and its 90% interval."""
    curves = _curves(advice)
    values = np.stack([curves.accuracy(budget) for budget in budgets])
    return np.column_stack([values[:, 0], np.quantile(values[:, 1:], INTERVAL, axis=1).T])


def _curves(advice: dict[str, Any]) -> Curve:
    return Curve(*(np.array(advice["curves"][name]) for name in Curve._fields))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, INTERVAL, method="inverted_cdf")
    return float(low), float(high)
