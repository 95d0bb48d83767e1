"""From a pilot to a budget: which accuracy a budget buys, and which budget an accuracy takes.

The curve is accuracy(B) = a - b (B + 1)^-c over B teacher queries, with a <= 1, b >= 0 and
0.03 <= c <= 3: a power law of the distance to an asymptote, as learning curves follow (Viering &
Loog 2022, arXiv 2103.10948), B + 1 so that no query at all is a point of it. Its least squares are
found by variable projection (Golub & Pereyra 1973): for a given c the rest is linear, so c alone is
searched, on a grid and then between the neighbours of the best.

The uncertainty is that of the measured points, by the bootstrap of `resampling`. That the curve is
of this form is not in it: the check against a held-out budget says how far to trust it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FEWEST = 4  # budgets, for a curve of three parameters
CURVES = 400  # replicates that are kept with the advice
INTERVAL = (0.05, 0.95)
_RATES = np.geomspace(0.03, 3, 160)
_THIRDS = 30  # times that a third of the bracket is given up: c to a relative 1e-6
_SURE = 0.95  # share of the replicates that rise with the budget, for it to be called a rise


class Pilot(NamedTuple):
    """What was measured of one variant.

    Attributes:
      budgets: f64[n], teacher queries, rising.
      accuracy: f64[n], means over seeds.
      replicates: f64[R, n], the same in each replicate of the bootstrap.
    """

    budgets: np.ndarray
    accuracy: np.ndarray
    replicates: np.ndarray


class Curve(NamedTuple):
    """Curves a - b (B + 1)^-c; each parameter is f64[...], a curve an element."""

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
    """Returns the least squares of f64[..., n] accuracies at f64[n] budgets, a curve a row."""
    y = np.atleast_2d(accuracy)

    def solve(c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _linear((budgets + 1.0) ** -c[:, None], y)

    errors = np.stack([solve(np.full(len(y), rate))[2] for rate in _RATES])
    best = errors.argmin(0)
    low, high = _RATES[np.maximum(best - 1, 0)], _RATES[np.minimum(best + 1, len(_RATES) - 1)]
    for _ in range(_THIRDS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        is_left = solve(left)[2] <= solve(right)[2]
        low, high = np.where(is_left, low, left), np.where(is_left, right, high)
    c = (low + high) / 2
    a, b, _ = solve(c)
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
    # Where that breaks a bound, the best lies on one of the two edges.
    level = np.minimum(mean, 1), np.zeros_like(mean)
    capped = np.ones_like(mean), np.maximum(((1 - y) * z).sum(1) / (z * z).sum(1), 0)

    def error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((y - a[:, None] + b[:, None] * z) ** 2).sum(1)

    allowed = (free[0] <= 1) & (free[1] >= 0)
    level_wins = error(*level) <= error(*capped)
    a, b = (
        np.where(allowed, f, np.where(level_wins, low, high))
        for f, low, high in zip(free, level, capped)
    )
    return a, b, error(a, b)


def advise(pilot: Pilot) -> dict[str, Any]:
    """Returns what a pilot says, as JSON values that `accuracy_for` and `budget_for` answer from.

    Returns:
      `status`: `few` (fewer than four budgets), `flat` (it cannot be told whether more queries
      help) or `fitted`; `budgets` and `accuracy` as measured; and where it is fitted `curves`
      (`a`, `b`, `c`: the fit first, then replicates) and `held_out`: the largest budget foretold
      from the others (`queries`, `predicted`, `low`, `high`, `measured`, `inside`), None with too
      few of them.
    """
    said: dict[str, Any] = {
        "budgets": pilot.budgets.tolist(),
        "accuracy": pilot.accuracy.tolist(),
    }
    if len(pilot.budgets) < FEWEST:
        return {"status": "few", **said}
    logs = np.log1p(pilot.budgets) - np.log1p(pilot.budgets).mean()
    if (pilot.replicates @ logs > 0).mean() < _SURE:
        return {"status": "flat", **said}
    curve = _curves(pilot)
    curves = {name: np.round(part, 6).tolist() for name, part in curve._asdict().items()}
    return {"status": "fitted", **said, "curves": curves, "held_out": _hold_out(pilot)}


def accuracy_for(advice: dict[str, Any], queries: float) -> dict[str, Any]:
    """Returns the accuracy that a budget buys: `status`, `accuracy`, `low`, `high` (90%).

    `status` is `few` or `flat` as in `advise`; `within` what was measured, or `beyond`.
    """
    if advice["status"] != "fitted":
        return {"status": advice["status"]}
    values = _restore(advice).accuracy(queries)
    low, high = _interval(values[1:])
    beyond = queries > advice["budgets"][-1]
    return {
        "status": "beyond" if beyond else "within",
        "accuracy": float(values[0]),
        "low": low,
        "high": high,
    }


def budget_for(advice: dict[str, Any], accuracy: float) -> dict[str, Any]:
    """Returns the budget that an accuracy takes: `status`, `queries`, `low`, `high` (90%).

    `status` is `few` or `flat` as in `advise`; `never` where the curve stays below; `beyond` what
    was measured, or `within`. A bound that does not exist is None.
    """
    if advice["status"] != "fitted":
        return {"status": advice["status"]}
    values = _restore(advice).budget(accuracy)
    low, high = (bound if np.isfinite(bound) else None for bound in _interval(values[1:]))
    queries = float(values[0])
    status = "never" if np.isinf(queries) else "within"
    if status == "within" and queries > advice["budgets"][-1]:
        status = "beyond"
    known = None if status == "never" else queries
    return {"status": status, "queries": known, "low": low, "high": high}


def band(advice: dict[str, Any], budgets: Sequence[float]) -> np.ndarray:
    """Returns f64[n, 3]: the curve at n budgets, and its 90% interval."""
    curves = _restore(advice)
    values = np.stack([curves.accuracy(budget) for budget in budgets])
    return np.column_stack([values[:, 0], np.quantile(values[:, 1:], INTERVAL, axis=1).T])


def _curves(pilot: Pilot) -> Curve:
    """Returns the fit and, behind it, that of every kept replicate."""
    return fit(pilot.budgets, np.vstack([pilot.accuracy, pilot.replicates[:CURVES]]))


def _hold_out(pilot: Pilot) -> dict[str, Any] | None:
    if len(pilot.budgets) <= FEWEST:
        return None
    budget, measured = float(pilot.budgets[-1]), float(pilot.accuracy[-1])
    known = Pilot(pilot.budgets[:-1], pilot.accuracy[:-1], pilot.replicates[:, :-1])
    values = _curves(known).accuracy(budget)
    # What is measured there scatters too: its noise is added, from other replicates.
    held = pilot.replicates[-CURVES:, -1]
    noise = held - held.mean()
    low, high = _interval(values[1:][: len(noise)] + noise[::-1][: len(values) - 1])
    return {
        "queries": budget,
        "predicted": float(values[0]),
        "low": low,
        "high": high,
        "measured": measured,
        "inside": low <= measured <= high,
    }


def _restore(advice: dict[str, Any]) -> Curve:
    return Curve(*(np.array(advice["curves"][name]) for name in Curve._fields))


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, INTERVAL, method="inverted_cdf")
    return float(low), float(high)
