"""How the report says things: names of models and stages, numbers, and its one-sentence result."""

from typing import Any

from bridge_jax.progress import duration

ROLE_NAMES = {
    "teacher": "Teacher",
    "assistant_base": "Assistant before",
    "assistant": "Assistant",
    "student_base": "Student before",
    "student_instruct": "Student, instructed",
    "student_direct": "Student, direct",
    "student": "Student",
}
ROLE_NOTES = {
    "teacher": "the model that is paid for",
    "assistant_base": "as downloaded",
    "assistant": "after the teacher's answers",
    "student_base": "as cut",
    "student_instruct": "after the instruction warm-up",
    "student_direct": "trained on the teacher's answers alone",
    "student": "after the assistant's rationales",
}
# Where a method has another way to the same role.
METHOD_NOTES = {
    "direct": {"student": "after the teacher's answers alone"},
    "self": {"assistant": "after its warm-up on labels"},
    "labels": {"student": "after the gold answers of the pool"},
}
STAGE_NAMES = {
    "apprenticeship/warmup": "Assistant’s warm-up",
    "apprenticeship/guesses": "Answering the pool",
    "apprenticeship/scores": "Scoring the pool",
    "apprenticeship/gradients": "Gradients of the pool",
    "apprenticeship/selection": "Selection",
    "apprenticeship/annotations": "Asking the teacher",
    "apprenticeship/assistant": "Training the assistant",
    "tutoring/instruct": "Student’s instruction warm-up",
    "tutoring/completions": "Writing rationales",
    "tutoring/samples": "The student’s samples",
    "tutoring/rationales": "Filtering rationales",
    "tutoring/logits": "The assistant’s logits",
    "tutoring/student": "Training the student",
    "baselines/direct": "Training the direct student",
}

CHOSEN = {
    "random": "drawn at random",
    "difficulty": "chosen for being hard",
    "diversity": "chosen for being unlike each other",
    "coverage": "chosen for being hard and unlike each other",
    "typicality": "chosen for being typical",
    "badge": "chosen for being unsure and unlike each other",
    "herding": "chosen to represent the pool",
}

TRAINED_IN = {"assistant": "apprenticeship/assistant", "student": "tutoring/student"}


def trained(parameters: dict[str, Any]) -> str:
    """Returns such as "assistant 4.9M parameters (20 MB) beside 134.5M (538 MB) frozen"."""
    parts = []
    for role, stage in TRAINED_IN.items():
        if sizes := parameters.get(stage):
            text = f"{role} {_size(sizes['trained'], ' parameters')}"
            frozen = sizes["frozen"]
            parts.append(f"{text} beside {_size(frozen)} frozen" if frozen["parameters"] else text)
    return ", ".join(parts)


def _size(size: dict[str, int], what: str = "") -> str:
    return f"{size['parameters'] / 1e6:,.1f}M{what} ({size['bytes'] / 1e6:,.0f} MB)"


def role_notes(method: str | None) -> dict[str, str]:
    """Returns what was done to the model of each role."""
    return ROLE_NOTES | METHOD_NOTES.get(method or "", {})


def stage_name(stage: str) -> str:
    """Returns the name of a stage folder; one that is not known keeps its path."""
    folder, _, role = stage.partition("/")
    if folder == "evaluation" and role in ROLE_NAMES:
        return f"Testing: {ROLE_NAMES[role].lower()}"
    return STAGE_NAMES.get(stage, stage)


def percent(share: float) -> str:
    """Returns a share in whole per cent, with a decimal where the whole would say all or none."""
    near_an_end = 0 < share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.1f}%" if near_an_end else f"{100 * share:.0f}%"


def interval(bounds: list[float]) -> str:
    """Returns two shares as "40–54%"."""
    return f"{100 * bounds[0]:.0f}–{100 * bounds[1]:.0f}%"


def points(difference: float) -> str:
    """Returns a difference of shares in percentage points, such as "23.5" or "−3"."""
    rounded = round(100 * difference, 1)
    return f"{'−' if rounded < 0 else ''}{abs(rounded):.1f}".removesuffix(".0")


def dollars(usd: float) -> str:
    """Returns US dollars: cents, or four decimals below ten cents."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def count(number: int, one: str, many: str = "") -> str:
    """Returns "1 question", "4,120 questions"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def headline(report: dict[str, Any]) -> str:
    """Returns the result of a run in one plain sentence."""
    accuracy = report["accuracy"]
    bought = report.get("annotations", {}).get("kept")
    answers = count(bought, "teacher answer") if bought is not None else "the teacher’s answers"

    def answered(role: str) -> str:
        n = report["questions"][role]
        return f"{percent(accuracy[role])} of {count(n, 'test question')} correctly"

    if "student" in accuracy and "student_direct" in accuracy:
        same = answers if bought is None else f"the same {answers}"
        return (
            f"The student answers {answered('student')}; trained directly on {same} "
            f"it answers {percent(accuracy['student_direct'])}."
        )
    for role in ("student", "student_direct"):
        if role not in accuracy:
            continue
        how = f"Trained directly on {answers}, the" if role == "student_direct" else "The"
        sentence = f"{how} student answers {answered(role)}"
        if "student_base" in accuracy:
            return f"{sentence}; before training it answered {percent(accuracy['student_base'])}."
        return f"{sentence}."
    if "assistant" in accuracy:
        return (
            f"The assistant, trained on {answers}, answers {answered('assistant')}; "
            "no student has been tested yet."
        )
    if bought is not None:
        kept = count(bought, "answer")
        return f"The teacher gave {kept} worth keeping; no model has been tested yet."
    return "No model has been tested yet."


def comparison(report: dict[str, Any]) -> str:
    """Returns how sure the difference to the direct student is; empty when there is none."""
    bounds = report["gaps_interval"].get("student_student_direct")
    if bounds is None:
        return ""
    low, high = (points(bound) for bound in bounds)
    difference = points(report["gaps"]["student_student_direct"])
    verdict = "" if bounds[0] > 0 or bounds[1] < 0 else ", so the two cannot be told apart"
    return (
        f"The difference is {difference} percentage points on the same questions, "
        f"with 95% confidence between {low} and {high}{verdict}."
    )


def flow(report: dict[str, Any]) -> list[dict[str, str]]:
    """Returns the steps from pool to student: `name`, `figure` and `note`, those that were run."""
    steps = []

    def add(name: str, figure: int | str, note: str) -> None:
        shown = figure if isinstance(figure, str) else f"{figure:,}"
        steps.append({"name": name, "figure": shown, "note": note})

    pool, selection = report.get("pool"), report.get("selection")
    if pool:
        domains = len([name for name in pool["domains"] if name])
        among = f" in {count(domains, 'domain')}" if domains > 1 else ""
        labelled = "labelled " * pool.get("labelled", True)
        add("Pool", pool["size"], f"{labelled}questions{among}")
    if selection:
        share = f", {percent(selection['size'] / pool['size'])} of the pool" if pool else ""
        add("Selection", selection["size"], f"chosen by {selection['strategy']}{share}")
    if "annotations" in report:
        part = report["annotations"]
        add("Teacher", part["kept"], f"answers kept, {part['rejected']:,} rejected")
    if "rationales" in report:
        part = report["rationales"]
        shown = " of answers that it was shown" * part.get("shown_gold", False)
        add("Assistant", part["kept"], f"rationales{shown} kept, {part['rejected']:,} rejected")
    role = next((r for r in ("student", "student_direct") if r in report["accuracy"]), None)
    if role:
        n = count(report["questions"][role], "test question")
        add("Student", percent(report["accuracy"][role]), f"of {n} right")
    return steps


def spend_rows(spend: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the lines of the bill: `name`, `used`, `cap` and `share` of the cap (or None)."""

    def line(name: str, used: float, cap: float | None, show: Any) -> dict[str, Any]:
        return {
            "name": name,
            "used": show(used),
            "cap": show(cap) if cap is not None else "",
            "share": used / cap if cap else None,
        }

    return [
        line("Queries", spend["queries"], spend["budget_queries"], "{:,}".format),
        line("US dollars", spend["usd"], spend["budget_usd"], dollars),
        line("Input tokens", spend["input_tokens"], None, "{:,}".format),
        line("Output tokens", spend["output_tokens"], None, "{:,}".format),
    ]


def spend_notes(spend: dict[str, Any]) -> list[str]:
    """Returns a sentence for each thing about the bill that is not as one would wish."""
    notes = []
    if kinds := spend.get("no_answer"):
        said = {
            "length": "cut off at the limit",
            "refused": "refused",
            "empty": "empty",
            "malformed": "malformed",
        }
        parts = ", ".join(f"{kinds[kind]:,} {word}" for kind, word in said.items() if kind in kinds)
        replies = count(sum(kinds.values()), "paid reply is", "paid replies are")
        notes.append(f"{replies} no answer ({parts}): nothing was trained on them.")
    if unknown := spend.get("unknown"):
        calls = count(unknown["queries"], "query was", "queries were")
        notes.append(
            f"{calls} cut off before the answer and may have been billed, up to "
            f"{dollars(unknown['usd'])} more; the caps count them."
        )
    if others := spend.get("of_others"):
        answers = count(others["queries"], "answer was", "answers were")
        notes.append(
            f"{answers} paid by other runs that share the ledger ({dollars(others['usd'])}), "
            "free for this one."
        )
    return notes


def time(parts: dict[str, float]) -> str:
    """Returns where the time went, as in "8 min 11 s; 12% of it compiling (41 programs)"."""
    total = parts["total"]
    names = {"compile": "compiling", "data": "waiting for data", "checkpoint": "saving"}
    shares = [
        f"{percent(parts[key] / total)} {word}"
        + f" ({count(int(parts['compilations']), 'program')})" * (key == "compile")
        for key, word in names.items()
        if total and parts[key] / total >= 0.005
    ]
    restarts = count(int(parts["restarts"]), "restart") if parts["restarts"] else ""
    return "; ".join(filter(None, [duration(total), ", ".join(shares), restarts]))


def time_rows(
    seconds: dict[str, float], training: dict[str, dict[str, float]]
) -> list[dict[str, Any]]:
    """Returns the stages: `name`, `time` in words, `share` of the longest, and `speed`."""
    longest = max(seconds.values(), default=0) or 1
    return [
        {
            "name": stage_name(stage),
            "time": duration(value),
            "share": value / longest,
            "speed": speed(training.get(stage, {})),
        }
        for stage, value in seconds.items()
    ]


def speed(found: dict[str, float]) -> str:
    """Returns the speed of training, as in "1,230 tokens/s, 41% MFU"."""
    words = []
    if "tokens_per_second" in found:
        words.append(f"{found['tokens_per_second']:,.0f} tokens/s")
    if "mfu" in found:
        words.append(f"{percent(found['mfu'])} MFU")
    return ", ".join(words)
