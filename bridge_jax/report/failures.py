"""Signs in a finished run of the ways in which distillation under a budget goes wrong."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from bridge_jax import methods
from bridge_jax.methods.apprenticeship import Score
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.rationales import Judged
from bridge_jax.pipeline.artifacts import MeasuredModel
from bridge_jax.report.workdir import Run

# A domain with a smaller share may be missing by chance.
LARGE_DOMAIN = 0.1
LOWEST_COMPLIANCE = 0.9
SAME_ANSWER = 0.9
FEW_ANSWERS = 6  # different gold answers at most, for one of them to be a strategy
MANY_QUESTIONS = 20


COLLAPSE = "Semantic collapse"
BLINDNESS = "Instruction blindness"
ONE_ANSWER = "Answer collapse"
BELOW_CONSTANT = "Below the commonest answer"
WASTE = "Budget waste"


class Failure(NamedTuple):
    """A signature that a run shows: its name, and a sentence with the numbers."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name}: {self.what}"


def find(run: Run, report: dict[str, Any]) -> list[Failure]:
    """Returns the failure signatures that `report`, or the run behind it, shows.

    *Semantic collapse*: a domain with a tenth of the pool or more is in none of the selected
    questions, or in none of the rationales that the student learns from. *Instruction blindness*:
    answers cannot be parsed from a tenth of what the student writes. *Answer collapse*: the student
    says nearly always the same; *below the commonest answer*: it is right less often than one
    answer to all would be. *Budget waste*: what the teacher was paid for left the assistant no
    better.
    """
    found = []
    if run.selection:
        chosen = set(run.selection["ids"])
        left_out = _left_out(run.scores, [row for row in run.scores if row["id"] in chosen])
        if left_out:
            found.append(Failure(COLLAPSE, f"the selection leaves out {left_out}."))
    if run.rationales:
        left_out = _left_out(run.scores, [row for row in run.rationales if row["kept"]])
        if left_out:
            found.append(Failure(COLLAPSE, f"the kept rationales leave out {left_out}."))
    for student in _students(run):
        share = report["compliance"].get(student.name, 1.0)
        if share < LOWEST_COMPLIANCE:
            what = (
                f"an answer can be parsed from only {share:.0%} of what is written by "
                f"“{student.title}” (below {LOWEST_COMPLIANCE:.0%})."
            )
            found.append(Failure(BLINDNESS, what))
    found += _one_answer(run.predictions.get("student", []))
    before, after = (report["accuracy"].get(role) for role in ("assistant_base", "assistant"))
    if methods.asks(run.method) and before is not None and after is not None and after <= before:
        what = (
            f"the assistant answers {after:.1%} after it learned from the teacher, "
            f"{before:.1%} before."
        )
        found.append(Failure(WASTE, what))
    return found


def unequal_tests(run: Run, report: dict[str, Any]) -> list[str]:
    """Returns a caution where the models were asked different numbers of questions."""
    tested = {report["questions"][role] for role in run.predictions}
    if len(tested) < 2:
        return []
    return [
        f"The models were tested on different numbers of questions "
        f"({min(tested)} to {max(tested)}): their accuracies are not comparable."
    ]


def _students(run: Run) -> list[MeasuredModel]:
    """Returns the students that have learned the task, the run's own first."""
    found = [
        row.measured
        for row in run.table.values()
        if row.measured and row.role == "student" and not row.measured.is_before
    ]
    return sorted(found, key=lambda model: model.name != "student")


def _one_answer(rows: list[Prediction]) -> list[Failure]:
    """Returns the signs of a constant answer, where questions share a few answers."""
    gold = Counter(row["gold"] for row in rows)
    said = Counter(row["answer"] for row in rows if row["answer"] is not None)
    if not said or len(gold) > FEW_ANSWERS or len(rows) < MANY_QUESTIONS:
        return []
    found = []
    answer, count = said.most_common(1)[0]
    share, true_share = count / said.total(), gold[answer] / len(rows)
    if share >= SAME_ANSWER > true_share:
        what = (
            f"{answer!r} is {share:.0%} of the student's answers, and right for {true_share:.0%} "
            "of the questions."
        )
        found.append(Failure(ONE_ANSWER, what))
    common, count = gold.most_common(1)[0]
    accuracy = sum(row["correct"] for row in rows) / len(rows)
    if accuracy < count / len(rows):
        what = (
            f"{common!r} to every question would be right {count / len(rows):.0%} of the time, the "
            f"student is {accuracy:.0%}."
        )
        found.append(Failure(BELOW_CONSTANT, what))
    return found


def _left_out(pool: list[Score], kept: Sequence[Score | Judged]) -> str:
    sizes = Counter(row["domain"] for row in pool)
    present = {row["domain"] for row in kept}
    return ", ".join(
        f"{domain} ({size / len(pool):.0%} of the pool)"
        for domain, size in sorted(sizes.items())
        if domain and domain not in present and size >= LARGE_DOMAIN * len(pool)
    )
