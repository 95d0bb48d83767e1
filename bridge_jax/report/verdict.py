"""States in one plain line whether a run was worth it, and lists the facts behind that.

The student is compared with the same student trained on *labels alone* or directly on the teacher's
answers, with the *constant answer* (the commonest gold answer of the pool to every question, if
answers are classes), with its assistant and with the teacher. Each comparison is on the questions
that both were asked, with the paired interval of `evaluation.intervals`.

The first of these cases that holds is the verdict. The order and the thresholds are our default.

1. `untested`: the student was not tested. The line is that of `formatting.headline`.
2. `nothing_learned`: the student is not above the constant answer (the interval reaches 0 or
   below), nor is the student on labels.
3. `unfair`: the student on labels was trained for fewer steps, and not because the dev split
   stopped it; or it was still learning when its training ended (`report.lengths`). What the
   rationales add is then unknown. The case does not hold if labels are enough all the same.
4. `direct_better`: the student is above the one on labels, but below the one trained directly on
   the teacher's answers.
5. `rationales_add`: the interval of student minus labels lies above 0.
6. `labels_enough`: it lies below `MARGIN`, so rationales add no more than that, if anything.
7. `teacher_poor`: the teacher is right for less than `POOR` of its questions (all of Wilson's
   interval lies below), or no more often than the constant answer.
8. `undecided`: the interval of student minus labels includes 0 and reaches `MARGIN`.
9. `labels_alone`: the method is `labels`; the student is above the constant answer if there is one.
10. `below_assistant`: there are no labels to compare with, and the student is `MARGIN` or more
    below its assistant, with an interval that excludes 0.
11. `without_labels`: there are no labels to compare with; the line names what it compares with.

Among the facts, failures come first: classes that are never answered, or never right.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from bridge_jax.evaluation import intervals, metrics
from bridge_jax.report import formatting, lengths
from bridge_jax.report.formatting import in_points, percent, points, quoted, rounded, signed
from bridge_jax.report.lengths import Lengths
from bridge_jax.report.workdir import Json, RunArtifacts

MARGIN = 0.05  # a difference that matters
POOR = 0.5  # share of right answers of a poor teacher
MUCH = 0.05  # smallest share of rows or prompts left out or cut that is among the facts
LEAST_OF_CLASS = 5  # fewest questions of a class without a right answer that is a failure
MOST_NAMED = 3  # failed classes among the facts

CONSTANT = "constant"
_NAMES = {
    "student_labels": "Trained on labels alone",
    "student_direct": "Trained directly on the teacher’s answers",
    "assistant": "Its assistant",
    "teacher": "The teacher",
}


class Against(NamedTuple):
    """The student minus another model, on the questions that both were asked.

    Attributes:
      other: the other model's share of right answers.
      difference, low, high: the difference with its 95% interval.
      questions: how many questions both were asked.
      needed: how many questions would tell the difference from chance, or `MARGIN` if the
        difference is smaller.
    """

    other: float
    difference: float
    low: float
    high: float
    questions: int
    needed: int

    @property
    def is_above(self) -> bool:
        """Returns whether the student is above the other one beyond chance."""
        return self.low > 0

    @property
    def is_below(self) -> bool:
        """Returns whether the student is below the other one beyond chance."""
        return self.high < 0

    @property
    def interval(self) -> str:
        """The interval of the distance in points, as "45 to 63"; with signs if it includes 0."""
        bounds = sorted([abs(self.low), abs(self.high)])
        show = points
        if not (self.is_above or self.is_below):
            bounds, show = [self.low, self.high], signed
        return " to ".join(map(show, bounds))


class _Evidence(NamedTuple):
    """The evidence for a case: the report so far, comparisons by the other's name, and lengths."""

    report: Json
    against: Mapping[str, Against]
    lengths: Lengths

    @property
    def share(self) -> str:
        return percent(self.report["accuracy"]["student"])

    @property
    def constant(self) -> str:
        return quoted(self.report["constant"]["answer"])


def compute(run: RunArtifacts, report: Json) -> Json:
    """Returns the verdict on a run.

    Args:
      run: its artifacts, with only the predictions that have a gold answer.
      report: the content of `report.json`, with everything but the verdict.

    Returns:
      `line`, a sentence; `code`, the case; `facts`, each with a `code`, a `text`, and the numbers
      of a comparison: `other`, `difference`, `low`, `high`, `questions`, `needed`.
    """
    answers: dict[str, Sequence[Any]] = dict(run.predictions)
    if "student" not in answers:
        return {"line": formatting.headline(report), "code": "untested", "facts": _data(report)}
    mine = answers["student"]
    if "constant" in report:
        answers[CONSTANT] = metrics.always_answering(report["constant"]["answer"], mine)
    against = {}
    for other in (*list(_NAMES)[:2], CONSTANT, *list(_NAMES)[2:]):
        if compared := _compared(mine, answers.get(other, [])):
            against[other] = compared
    found = _Evidence(report, against, lengths.compute(run))
    code, line = next((name, said) for name, case in _CASES.items() if (said := case(found)))
    facts = [*_failures(report), *map(_fact(found), against), *_teacher(found), *_data(report)]
    if code == "labels_enough":
        flags = " ".join(["--config.method=labels", *found.lengths.of_labels_alone])
        facts.append({"code": "advice", "text": f"The next run needs no teacher: {flags}."})
    if code == "unfair":
        flags = " ".join(f"--config.{each}" for each in found.lengths.to_be_fair)
        facts.append({"code": "advice", "text": f"To compare them fairly: {flags}."})
    if against:
        note = (
            "Intervals (95%) are over the test questions of this run; another seed may differ more."
        )
        facts.append({"code": "note", "text": note})
    return {"line": line, "code": code, "facts": facts}


def _compared(mine: Sequence[Any], others: Sequence[Any]) -> Against | None:
    shared = {row["id"] for row in mine} & {row["id"] for row in others}
    if not shared:
        return None
    a, b = ([row for row in rows if row["id"] in shared] for rows in (mine, others))
    paired = intervals.paired_difference(a, b)
    told = paired["difference"] if abs(paired["difference"]) >= MARGIN else MARGIN
    needed = intervals.questions_needed(a, b, told)
    return Against(
        other=sum(bool(row["correct"]) for row in b) / len(b),
        **paired,
        questions=len(shared),
        needed=needed,
    )


def _nothing_learned(found: _Evidence) -> str:
    constant = found.against.get(CONSTANT)
    if not constant or constant.is_above:
        return ""
    labels = found.against.get("student_labels")
    if labels and _is_above_constant(found, labels):
        return ""
    beside = ""
    if labels:
        beside = f"; trained on labels alone{found.lengths.said} it answers {percent(labels.other)}"
    always = f"always answering {found.constant} is right for {percent(constant.other)}"
    if constant.difference <= 0:
        return f"Nothing was learned: the student answers {found.share}, {always}{beside}."
    return (
        f"Nothing was learned that can be distinguished from chance: the student answers "
        f"{found.share}, {always} ({constant.interval} points){beside}."
    )


def _is_above_constant(found: _Evidence, labels: Against) -> bool:
    """Returns whether the labels student is above the constant answer, by its own interval."""
    low, _ = found.report["accuracy_interval"]["student_labels"]
    return low > found.against[CONSTANT].other and labels.other > found.against[CONSTANT].other


def _unfair(found: _Evidence) -> str:
    labels, by = found.against.get("student_labels"), found.lengths
    if not labels or _is_enough(labels):
        return ""
    if not by.is_unfair and by.is_learning and by.theirs:
        return (
            f"It is too early to tell what the rationales add: the student answers {found.share}, "
            f"the one trained on labels alone{by.said} {percent(labels.other)}, and that one was "
            f"still learning. Train it for longer, such as {by.longer:,} steps."
        )
    if not by.is_unfair:
        return ""
    return (
        f"Rationales and labels were not compared fairly: the student answers {found.share} after "
        f"{by.ours:,} steps, the one trained on labels alone {percent(labels.other)} after "
        f"only {by.theirs:,}. Run again with {' and '.join(by.to_be_fair)}, and it is "
        "trained for as many."
    )


def _is_enough(labels: Against) -> bool:
    """Returns whether rationales add less than `MARGIN`, if anything."""
    return labels.high < MARGIN and not labels.is_above


def _direct_better(found: _Evidence) -> str:
    labels, direct = (found.against.get(f"student_{name}") for name in ("labels", "direct"))
    if not (labels and direct and labels.is_above and direct.is_below):
        return ""
    return (
        f"The teacher’s answers are worth it, the assistant is not: trained directly on the "
        f"answers the student answers {percent(direct.other)}, by way of the assistant "
        f"{found.share}, on labels alone {percent(labels.other)}."
    )


def _rationales_add(found: _Evidence) -> str:
    labels = found.against.get("student_labels")
    if not labels or not labels.is_above:
        return ""
    return (
        f"The rationales add {in_points(labels.difference)} ({labels.interval}): the student "
        f"answers {found.share}, trained on labels alone{found.lengths.said} "
        f"{percent(labels.other)}."
    )


def _labels_enough(found: _Evidence) -> str:
    labels = found.against.get("student_labels")
    if not labels or not _is_enough(labels):
        return ""
    better = "are better" if labels.is_below else "are enough"
    return (
        f"Labels alone {better} for this task, and cost no teacher: "
        f"trained on them{found.lengths.said} the student answers {percent(labels.other)}, with "
        f"rationales {found.share}."
    )


def _teacher_poor(found: _Evidence) -> str:
    if not _is_poor(found.report) or "teacher" not in found.report["accuracy"]:
        return ""
    return (
        f"The teacher itself is poor: it answers {_of_teacher(found.report)}, and the student "
        f"{found.share} of the test."
    )


def _is_poor(report: Json) -> bool:
    if "teacher" not in report["accuracy"]:
        return False
    share = report["accuracy"]["teacher"]
    constant = report.get("constant", {}).get("accuracy", 0.0)
    return report["accuracy_interval"]["teacher"][1] < POOR or 0 < share <= constant


def _of_teacher(report: Json) -> str:
    """Returns the teacher's accuracy, as "23% of the 30 questions that it was paid for"."""
    asked = formatting.count(report["questions"]["teacher"], "question")
    on_test = report["teacher_measured_on"] == "test"
    where = "the test" if on_test else f"the {asked} that it was paid for"
    return f"{percent(report['accuracy']['teacher'])} of {where}"


def _undecided(found: _Evidence) -> str:
    labels = found.against.get("student_labels")
    if not labels:
        return ""
    return (
        f"{labels.questions:,} questions are too few to tell whether the rationales add anything: "
        f"the student answers {found.share}, trained on labels alone{found.lengths.said} "
        f"{percent(labels.other)}."
    )


def _labels_alone(found: _Evidence) -> str:
    if found.report["method"] != "labels":
        return ""
    line = f"Trained on labels alone, which costs no teacher, the student answers {found.share}"
    if constant := found.against.get(CONSTANT):
        line += f"; always answering {found.constant} is right for {percent(constant.other)}"
    return f"{line}."


def _below_assistant(found: _Evidence) -> str:
    assistant = found.against.get("assistant")
    if not assistant or not assistant.is_below or assistant.difference > -MARGIN:
        return ""
    return (
        f"The student falls {in_points(-assistant.difference)} below its assistant "
        f"({assistant.interval}): it answers {found.share}, the assistant "
        f"{percent(assistant.other)}; nothing was trained on labels alone to compare with."
    )


def _without_labels(found: _Evidence) -> str:
    compared = {
        "student_direct": "trained directly on the teacher’s answers it answers",
        CONSTANT: "always answering {} is right for",
    }
    told = []
    for other, name in compared.items():
        if by := found.against.get(other):
            named = name.format(found.constant) if other == CONSTANT else name
            told.append(f"{named} {percent(by.other)}")
    before = found.report["accuracy"].get("student_base")
    if not told and before is not None:
        told.append(f"before training it answered {percent(before)}")
    beside = "; ".join(["nothing was trained on labels alone to compare with", *told])
    n = formatting.count(found.report["questions"]["student"], "test question")
    return f"The student answers {found.share} of {n}; {beside}."


_CASES: dict[str, Callable[[_Evidence], str]] = {
    case.__name__.removeprefix("_"): case
    for case in (
        _nothing_learned,
        _unfair,
        _direct_better,
        _rationales_add,
        _labels_enough,
        _teacher_poor,
        _undecided,
        _labels_alone,
        _below_assistant,
        _without_labels,
    )
}


def _fact(found: _Evidence) -> Callable[[str], Json]:
    def fact(other: str) -> Json:
        by = found.against[other]
        name = f"Always answering {found.constant}" if other == CONSTANT else _NAMES[other]
        if other == "student_labels":
            name += found.lengths.told
        away = f"{in_points(abs(by.difference))} {'below' if by.difference < 0 else 'above'}"
        text = f"{name}: {percent(by.other)}. The student is {away} ({by.interval})"
        if by.difference == 0:
            text = f"{name}: {percent(by.other)}, as the student ({by.interval} points)"
        if not (by.is_above or by.is_below):
            small = abs(by.difference) < MARGIN
            told = f"a difference of {points(MARGIN)}" if small else "it"
            needed = f"about {rounded(by.needed)} test questions would be needed to show {told}"
            text += f": {needed}" if by.difference == 0 else f", which may be chance: {needed}"
        return {"code": other, "text": f"{text}.", **by._asdict()}

    return fact


def _failures(report: Json) -> list[Json]:
    """Returns a fact for each of the most frequent classes that have no right answer."""
    lost = [
        row
        for row in report.get("classes", {}).get("classes", ())
        if not row["right"] and row["n"] >= LEAST_OF_CLASS
    ]
    found = []
    for row in lost[:MOST_NAMED]:
        name, (other, times) = quoted(row["name"]), row["confusion"]
        taken = f"mostly taken for {quoted(other)}" if other is not None else "mostly no answer"
        what = "Never right about" if row["given"] else "Never answers"
        text = f"{what} {name}: 0 of {row['n']:,}, {taken} ({times:,})."
        found.append({"code": "class", "class": row["name"], "text": text})
    more = len(lost) - MOST_NAMED
    if more > 0:
        text = f"{formatting.count(more, 'more class has', 'more classes have')} no right answer."
        found.append({"code": "classes", "text": text})
    return found


def _teacher(found: _Evidence) -> list[Json]:
    """Returns a fact on a teacher that was not asked the test questions."""
    report = found.report
    if "teacher" in found.against or "teacher" not in report["accuracy"]:
        return []
    text = f"The teacher answered {_of_teacher(report)} correctly"
    if _is_poor(report):
        text += ", which is poor: its prompt, the labels or the task may be at fault"
    return [{"code": "teacher", "text": f"{text}."}]


def _data(report: Json) -> list[Json]:
    notes = formatting.data_notes(report["data"]) if "data" in report else []
    return [{"code": "data", "text": text} for text, share in notes if share >= MUCH]
