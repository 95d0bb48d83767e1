"""Computes accuracy, compliance and length of predictions, also by class and by budget.

A prediction row is `{"id", "completion", "answer", "correct", "tokens"}`: `answer` is what was
parsed from the completion, None when nothing could be; `tokens` counts generated tokens.

A *class* is a gold answer of a task whose answers are a closed set: labels, or few different
answers. Rows without a gold answer (None or "") are left out of all counts by class.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.evaluation.intervals import wilson

MOST_CLASSES = 20  # In a confusion matrix, and among answers that are not declared as labels.
LEAST_QUESTIONS = 5  # Per distinct answer on average, for answers to count as classes.

PredictionRows = Sequence[Mapping[str, Any]]


class Gap(NamedTuple):
    """The accuracy of one measured model minus the accuracy of another.

    Attributes:
      name: its name in the report.
      first, second: the models, as `report.json` calls them.
      in_run: whether it is in the report of a run.
      in_study: whether it is in the results of a study.
    """

    name: str
    first: str
    second: str
    in_run: bool = True
    in_study: bool = True


# The gap from teacher to student, its two parts, and the gaps to the students without an assistant.
GAPS = (
    Gap("teacher_assistant", "teacher", "assistant"),
    Gap("assistant_student", "assistant", "student"),
    Gap("teacher_student", "teacher", "student", in_run=False),
    Gap("teacher_student_direct", "teacher", "student_direct", in_study=False),
    Gap("student_student_direct", "student", "student_direct", in_study=False),
    Gap("student_student_labels", "student", "student_labels", in_study=False),
)


def summarise(rows: PredictionRows) -> dict[str, Any]:
    """Computes the metrics of one model on one set of questions.

    Args:
      rows: prediction rows, at least one.

    Returns:
      `n`; `accuracy`, `accuracy_low`, `accuracy_high` (95%, Wilson); `compliance`, the share of
      completions that an answer was parsed from, with `compliance_low` and `compliance_high`;
      `mean_tokens`, generated tokens per question; and for free texts `score`, the mean ROUGE-L.

    Raises:
      UserError: there are no rows.
    """
    if not rows:
        raise UserError("no predictions to summarize: the evaluation has no questions")
    n = len(rows)
    result: dict[str, Any] = {"n": n, "mean_tokens": sum(row["tokens"] for row in rows) / n}
    counts = {
        "accuracy": sum(bool(row["correct"]) for row in rows),
        "compliance": sum(row["answer"] is not None for row in rows),
    }
    for name, count in counts.items():
        result[name] = count / n
        result[f"{name}_low"], result[f"{name}_high"] = wilson(count, n)
    if scores := [row["score"] for row in rows if "score" in row]:
        result["score"] = sum(scores) / len(scores)
    return result


def with_gold(rows: Iterable[Any]) -> list[Any]:
    """Returns the rows whose gold answer is known."""
    return [row for row in rows if row.get("gold") not in (None, "")]


def are_classes(rows: PredictionRows, kind: str = "") -> bool:
    """Returns whether the gold answers of test questions are classes.

    Labels are classes if there are two or more. Other answers are classes if there are 2 to
    `MOST_CLASSES` distinct ones, with `LEAST_QUESTIONS` questions or more per answer on average
    (our default). Free texts never are.

    Args:
      rows: prediction rows with a gold answer.
      kind: kind of the answers, as in `DataConfig`.
    """
    different = len({row["gold"] for row in rows})
    if kind == "text" or different < 2:
        return False
    few = different <= MOST_CLASSES and len(rows) >= LEAST_QUESTIONS * different
    return kind == "label" or few


def commonest(answers: Iterable[str | None]) -> tuple[str, int] | None:
    """Returns the commonest answer and its count, or None; ties are broken alphabetically."""
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        return None
    return min(counts.items(), key=lambda item: (-item[1], item[0]))


def always_answering(answer: str, rows: PredictionRows) -> list[dict[str, Any]]:
    """Returns the predictions of a model that gives one answer to all questions."""
    return [{"id": row["id"], "correct": row["gold"] == answer} for row in rows]


def count_by_class(rows: PredictionRows) -> dict[str, Any]:
    """Counts one model's answers by class.

    A right answer counts as its gold answer, however it is written.

    Args:
      rows: prediction rows with a gold answer.

    Returns:
      `classes`, a list with the most frequent class first. Each has its `name`; `n`, its number of
      questions; `right`, the number of right answers; `given`, how often it was the answer to any
      question; `precision`, None if it was never given; `recall`; `answered`, the share of its
      questions that have an answer; and `confusion`, the commonest wrong answer to them (None for
      no answer) and its count, or None. If there are at most `MOST_CLASSES`, also `matrix`: counts
      with a row for each class, and columns for each class, other answers and no answer.
    """
    gold = Counter(row["gold"] for row in rows)
    names = sorted(gold, key=lambda name: (-gold[name], name))
    pairs = Counter((row["gold"], _given(row)) for row in rows)
    given: Counter[str | None] = Counter()
    wrong: dict[str, Counter[str | None]] = {name: Counter() for name in names}
    for (name, answer), number in pairs.items():
        given[answer] += number
        if answer != name:
            wrong[name][answer] += number
    found: dict[str, Any] = {"classes": []}
    for name in names:
        right = pairs[name, name]
        confusion = min(wrong[name].items(), key=_by_count, default=None)
        found["classes"].append(
            {
                "name": name,
                "n": gold[name],
                "right": right,
                "given": given[name],
                "precision": right / given[name] if given[name] else None,
                "recall": right / gold[name],
                "answered": 1 - pairs[name, None] / gold[name],
                "confusion": list(confusion) if confusion else None,
            }
        )
    if len(names) <= MOST_CLASSES:
        found["matrix"] = [_row(name, names, pairs, gold[name]) for name in names]
    return found


def by_budget(rows: PredictionRows) -> dict[int, dict[str, float]]:
    """Computes the metrics at each budget.

    Args:
      rows: rows with `id`, `budget`, `repeat`, `thinking` and `tokens` (int), `answer` and
        `correct`. Rows with equal id, budget and repeat are samples of one reply: their commonest
        answer is scored (self-consistency, 2203.11171), the first one in a tie, and their tokens
        are added up. Accuracy is averaged over repeats (avg@k).

    Returns:
      budget -> `n`, the number of questions; `accuracy` with its 95% Wilson interval over the
      questions, `low` and `high`; `thinking`, mean thinking tokens of a reply; `over`, the share of
      replies above the budget; `deviation`, mean |thinking - budget| / budget; `tokens`, mean
      tokens decoded.
    """
    found = {}
    for level in sorted({row["budget"] for row in rows}):
        replies: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
        for row in rows:
            if row["budget"] == level:
                replies[row["id"], row["repeat"]].append(row)
        thinking = [sum(row["thinking"] for row in samples) for samples in replies.values()]
        tokens = [sum(row["tokens"] for row in samples) for samples in replies.values()]
        accuracy = sum(map(_is_commonest_right, replies.values())) / len(replies)
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


def spread_of_thinking(levels: Mapping[int, Mapping[str, float]]) -> float:
    """Returns the ratio of the largest to the smallest mean thinking length over budgets.

    A model that ignores budgets has 1. A mean below one token counts as one. `levels` is not empty.
    """
    means = [figures["thinking"] for figures in levels.values()]
    return max(means) / max(min(means), 1.0)


def anytime_index(levels: Mapping[int, Mapping[str, float]]) -> float:
    """Returns the mean accuracy over budgets: the area under the accuracy curve over its width.

    The axis is the logarithm of the budget, since levels double: on a linear axis, the largest two
    would dominate. "Budget-Aware Anytime Reasoning" (2601.11038) has an index of this kind; the
    axis is our choice. With one level, the index is its accuracy.
    """
    points = [(math.log2(level), levels[level]["accuracy"]) for level in sorted(levels)]
    if len(points) == 1:
        return points[0][1]
    area = sum((b - a) * (u + v) / 2 for (a, u), (b, v) in itertools.pairwise(points))
    return area / (points[-1][0] - points[0][0])


def _is_commonest_right(samples: PredictionRows) -> bool:
    """Returns whether the commonest answer of the samples is right."""
    counts = Counter(row["answer"] for row in samples if row["answer"] is not None)
    if not counts:
        return False
    commonest = counts.most_common(1)[0][0]
    return bool(next(row["correct"] for row in samples if row["answer"] == commonest))


def _by_count(item: tuple[str | None, int]) -> tuple[int, bool, str]:
    """Returns a sort key: most frequent first; among ties, alphabetical, with no answer last."""
    answer, number = item
    return -number, answer is None, answer or ""


def _given(row: Mapping[str, Any]) -> str | None:
    return row["gold"] if row["correct"] else row["answer"]


def _row(
    name: str, names: Sequence[str], pairs: Mapping[tuple[str, str | None], int], total: int
) -> list[int]:
    known = [pairs[name, other] for other in names]
    none = pairs[name, None]
    return [*known, total - sum(known) - none, none]
