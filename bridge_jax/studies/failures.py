"""Signs in a finished run of the ways in which distillation under a budget goes wrong."""

from collections import Counter
from typing import Any

from bridge_jax.studies.workdir import Row, Run

# A domain with a smaller share may be missing by chance.
LARGE_DOMAIN = 0.1
LOWEST_COMPLIANCE = 0.9
SAME_ANSWER = 0.9
FEW_ANSWERS = 6  # different gold answers at most, for one of them to be a strategy
MANY_QUESTIONS = 20


def find(run: Run, report: dict[str, Any]) -> list[str]:
    """Returns one sentence per failure signature that `report`, or the run behind it, shows.

    *Semantic collapse*: a domain with a tenth of the pool or more is in none of the selected
    questions, or in none of the rationales that the student learns from. *Instruction blindness*:
    answers cannot be parsed from a tenth of what the student writes. *Answer collapse*: the student
    says nearly always the same, or is right less often than one answer to all would be. *Budget
    waste*: what the
    teacher was paid for left the assistant no better.
    """
    warnings = []
    if run.selection:
        chosen = set(run.selection["ids"])
        left_out = _left_out(run.scores, [row for row in run.scores if row["id"] in chosen])
        if left_out:
            warnings.append(f"Semantic collapse: the selection leaves out {left_out}.")
    if run.rationales:
        left_out = _left_out(run.scores, [row for row in run.rationales if row["kept"]])
        if left_out:
            warnings.append(f"Semantic collapse: the kept rationales leave out {left_out}.")
    for role, whose in (("student", "student"), ("student_direct", "direct student")):
        share = report["compliance"].get(role, 1.0)
        if share < LOWEST_COMPLIANCE:
            warnings.append(
                f"Instruction blindness: an answer can be parsed from only {share:.0%} of what "
                f"the {whose} writes (below {LOWEST_COMPLIANCE:.0%})."
            )
    warnings += _one_answer(run.predictions.get("student", []))
    before, after = (report["accuracy"].get(role) for role in ("assistant_base", "assistant"))
    was_taught = report["method"] != "self"
    if was_taught and before is not None and after is not None and after <= before:
        warnings.append(
            f"Budget waste: the assistant answers {after:.1%} after it learned from the teacher, "
            f"{before:.1%} before."
        )
    tested = {report["questions"][role] for role in run.predictions}
    if len(tested) > 1:
        warnings.append(
            f"The models were tested on different numbers of questions "
            f"({min(tested)} to {max(tested)}): their accuracies are not comparable."
        )
    return warnings


def _one_answer(rows: list[Row]) -> list[str]:
    """Returns the warnings of answer collapse, where questions share a few answers."""
    gold = Counter(row["gold"] for row in rows)
    said = Counter(row["answer"] for row in rows if row["answer"] is not None)
    if not said or len(gold) > FEW_ANSWERS or len(rows) < MANY_QUESTIONS:
        return []
    warnings = []
    answer, count = said.most_common(1)[0]
    share, true_share = count / said.total(), gold[answer] / len(rows)
    if share >= SAME_ANSWER > true_share:
        warnings.append(
            f"Answer collapse: {answer!r} is {share:.0%} of the student's answers, and right for "
            f"{true_share:.0%} of the questions."
        )
    common, count = gold.most_common(1)[0]
    accuracy = sum(row["correct"] for row in rows) / len(rows)
    if accuracy < count / len(rows):
        warnings.append(
            f"Below the commonest answer: {common!r} to every question would be right "
            f"{count / len(rows):.0%} of the time, the student is {accuracy:.0%}."
        )
    return warnings


def _left_out(pool: list[Row], kept: list[Row]) -> str:
    sizes = Counter(row["domain"] for row in pool)
    present = {row["domain"] for row in kept}
    return ", ".join(
        f"{domain} ({size / len(pool):.0%} of the pool)"
        for domain, size in sorted(sizes.items())
        if domain and domain not in present and size >= LARGE_DOMAIN * len(pool)
    )
