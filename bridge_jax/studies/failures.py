"""Signs in a finished run of the ways in which distillation under a budget goes wrong."""

from collections import Counter
from typing import Any

from bridge_jax.studies.workdir import Row, Run

# A domain with a smaller share may be missing by chance.
LARGE_DOMAIN = 0.1
LOWEST_COMPLIANCE = 0.9


def find(run: Run, report: dict[str, Any]) -> list[str]:
    """Returns one sentence per failure signature that `report`, or the run behind it, shows.

    *Semantic collapse*: a domain with a tenth of the pool or more is in none of the selected
    questions, or in none of the rationales that the student learns from. *Instruction blindness*:
    answers cannot be parsed from a tenth of what the student writes. *Budget waste*: what the
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
    before, after = (report["accuracy"].get(role) for role in ("assistant_base", "assistant"))
    if before is not None and after is not None and after <= before:
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


def _left_out(pool: list[Row], kept: list[Row]) -> str:
    sizes = Counter(row["domain"] for row in pool)
    present = {row["domain"] for row in kept}
    return ", ".join(
        f"{domain} ({size / len(pool):.0%} of the pool)"
        for domain, size in sorted(sizes.items())
        if domain and domain not in present and size >= LARGE_DOMAIN * len(pool)
    )
