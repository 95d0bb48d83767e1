"""Computes accuracy, compliance and length of predictions; lists the gaps between models.

A prediction row is `{"id", "completion", "answer", "correct", "tokens"}`: `answer` is what was
parsed from the completion, None when nothing could be; `tokens` counts generated tokens.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bridge_jax.errors import UserError
from bridge_jax.evaluation.intervals import wilson


class Gap(NamedTuple):
    """The accuracy of a measured model minus that of another.

    Attributes:
      name: in the report.
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


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Computes the metrics of one model on one set of questions.

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
