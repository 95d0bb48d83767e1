"""Measures how a model keeps budgets of thinking tokens, and what that costs in accuracy."""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from bridge_jax.evaluation.intervals import wilson

Row = Mapping[str, Any]


def by_level(rows: Sequence[Row]) -> dict[int, dict[str, float]]:
    """Returns the figures of each budget.

    Args:
      rows: with `id`, `budget`, `repeat`, `thinking` and `tokens` (int), `answer` and `correct`.
        Rows with equal id, budget and repeat are samples of one reply: their commonest answer is
        scored (self-consistency, 2203.11171), the first of those that are as common, and their
        tokens are added. Accuracy is averaged over repeats (avg@k).

    Returns:
      budget -> `n` questions; `accuracy` with its 95% Wilson interval over the questions, `low` and
      `high`; `thinking`, mean tokens; `over`, the share above the budget; `deviation`, mean
      |thinking - budget| / budget; `tokens`, mean tokens decoded.
    """
    found = {}
    for level in sorted({row["budget"] for row in rows}):
        replies: dict[tuple[str, int], list[Row]] = defaultdict(list)
        for row in rows:
            if row["budget"] == level:
                replies[row["id"], row["repeat"]].append(row)
        thinking = [sum(row["thinking"] for row in samples) for samples in replies.values()]
        tokens = [sum(row["tokens"] for row in samples) for samples in replies.values()]
        accuracy = sum(map(_is_right, replies.values())) / len(replies)
        questions = len({name for name, _ in replies})
        low, high = wilson(accuracy * questions, questions)
        found[level] = {
            "n": questions,
            "accuracy": accuracy,
            "low": low,
            "high": high,
            "thinking": sum(thinking) / len(replies),
            "over": sum(count > level for count in thinking) / len(replies),
            "deviation": sum(abs(count - level) / level for count in thinking) / len(replies),
            "tokens": sum(tokens) / len(replies),
        }
    return found


def spread(levels: Mapping[int, Mapping[str, float]]) -> float:
    """Returns the largest mean thinking over the smallest; a model that ignores budgets has 1.

    A mean below one token counts as one. There is at least one level.
    """
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


def _is_right(samples: Sequence[Row]) -> bool:
    """Returns whether the commonest answer of the samples is right."""
    counts = Counter(row["answer"] for row in samples if row["answer"] is not None)
    if not counts:
        return False
    commonest = counts.most_common(1)[0][0]
    return bool(next(row["correct"] for row in samples if row["answer"] == commonest))
