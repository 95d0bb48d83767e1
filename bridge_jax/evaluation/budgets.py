"""Measures how a model keeps budgets of thinking tokens, and what that costs in accuracy."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.evaluation.intervals import wilson

Row = Mapping[str, Any]


def by_level(rows: Sequence[Row], voted: bool = False) -> dict[int, dict[str, float]]:
    """Returns the figures of each budget.

    Args:
      rows: with `id`, `budget`, `thinking` and `tokens` (int), `answer` and `gold`, `correct`; a
        question may have several at each budget.
      voted: whether these are samples of which the commonest answer counts (self-consistency,
        2203.11171); the first of several that are as common. Else the mean of all counts (avg@k).

    Returns:
      budget -> `n` questions; `accuracy` with its 95% Wilson interval, `low` and `high` (over the
      questions); `thinking`, mean tokens of a reply; `over`, share of replies above the budget;
      `deviation`, mean |thinking - budget| / budget; `tokens`, mean tokens decoded for a question,
      of all its samples.
    """
    found = {}
    for level in sorted({row["budget"] for row in rows}):
        here = [row for row in rows if row["budget"] == level]
        questions: dict[str, list[Row]] = defaultdict(list)
        for row in here:
            questions[row["id"]].append(row)
        scores = [_vote(each) if voted else _mean(each) for each in questions.values()]
        accuracy = sum(scores) / len(scores)
        low, high = wilson(accuracy * len(scores), len(scores))
        found[level] = {
            "n": len(questions),
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "thinking": sum(row["thinking"] for row in here) / len(here),
            "over": sum(row["thinking"] > level for row in here) / len(here),
            "deviation": sum(abs(row["thinking"] - level) / level for row in here) / len(here),
            "tokens": sum(row["tokens"] for row in here) / len(questions),
        }
    return found


def spread(levels: Mapping[int, Mapping[str, float]]) -> float:
    """Returns the largest mean thinking over the smallest; a model that ignores budgets has 1."""
    means = [figures["thinking"] for figures in levels.values()]
    return max(means) / max(min(means), 1.0)


def anytime_index(levels: Mapping[int, Mapping[str, float]]) -> float:
    """Returns the mean accuracy over budgets: the area under it, by the width.

    Over the logarithm of the budget, since levels double: over the budget itself, the largest two
    would decide. "Budget-Aware Anytime Reasoning" (2601.11038) has an index of this kind; the axis
    is our choice. Of one level it is its accuracy.
    """
    points = [(math.log2(level), levels[level]["accuracy"]) for level in sorted(levels)]
    if len(points) == 1:
        return points[0][1]
    area = sum((b - a) * (u + v) / 2 for (a, u), (b, v) in itertools.pairwise(points))
    return area / (points[-1][0] - points[0][0])


def _mean(rows: Sequence[Row]) -> float:
    return sum(row["correct"] for row in rows) / len(rows)


def _vote(rows: Sequence[Row]) -> float:
    counts = Counter(row["answer"] for row in rows if row["answer"] is not None)
    if not counts:
        return 0.0
    commonest = counts.most_common(1)[0][0]
    return float(next(row["correct"] for row in rows if row["answer"] == commonest))
