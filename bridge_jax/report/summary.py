"""Computes the numbers of `report.json` from a run's results, and its warnings."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from bridge_jax import methods
from bridge_jax.config import TeacherConfig
from bridge_jax.config.io import from_json
from bridge_jax.data.practice import checkdigits
from bridge_jax.evaluation import confidence, intervals, metrics
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods import budget_tests
from bridge_jax.methods.annotations import Bill
from bridge_jax.methods.apprenticeship import Score
from bridge_jax.methods.data_facts import DataFacts
from bridge_jax.methods.evaluation import Prediction
from bridge_jax.methods.filtering import Judged
from bridge_jax.methods.teacher import is_paid, prices_of
from bridge_jax.pipeline import provenance
from bridge_jax.report import verdict
from bridge_jax.report.workdir import Json, RunArtifacts

# Parts of a bill that are left out if they are empty.
_SPEND_PARTS = ("no_answer", "unknown", "of_others")
# The bill of a method without a teacher.
_NOTHING = Bill(queries=0, input_tokens=0, output_tokens=0, usd=0.0, prices={})

# Thresholds of the failure signatures.
LARGE_DOMAIN = 0.1  # A domain with a smaller share of the pool may be missing by chance.
LOWEST_COMPLIANCE = 0.9
SAME_ANSWER = 0.9
FEW_ANSWERS = 6  # most different gold answers for which always giving one is a strategy
MANY_QUESTIONS = 20
LEAST_SPREAD = 1.3  # largest mean thinking of a budget, divided by the smallest


def summarise(run: RunArtifacts) -> Json:
    """Returns the content of `report.json`; a part that was not run is left out.

    The teacher's accuracy is that of its predictions on the test questions. If it was not asked
    these, it is the share of its annotations equal to gold, and `teacher_measured_on` says
    "annotations": those questions are from the pool, and some strategies choose hard ones.

    `gaps_interval` has only the gaps between two models that answered the same questions.

    Test questions without a gold answer count in no number.
    """
    scored = {role: metrics.with_gold(rows) for role, rows in run.predictions.items()}
    known = {role: rows for role, rows in scored.items() if rows}
    run = dataclasses.replace(run, predictions=known)
    results = _metrics(run)
    report: Json = {
        "name": run.config.get("name", run.path.resolve().name),
        "method": run.method,
        "seed": run.config.get("seed"),
    }
    for metric in ("accuracy", "compliance"):
        report[metric] = {role: found[metric] for role, found in results.items()}
        report[f"{metric}_interval"] = {
            role: [found[f"{metric}_low"], found[f"{metric}_high"]]
            for role, found in results.items()
        }
    report["questions"] = {role: found["n"] for role, found in results.items()}
    report["mean_tokens"] = _where_known(results, "mean_tokens")
    report["n_test"] = max((len(rows) for rows in run.predictions.values()), default=0)
    if run.held_out:
        report["held_out"] = _held_out(run)
    if scores := _where_known(results, "score"):
        report["score"] = scores  # mean ROUGE-L of free texts
    if "teacher" in results:
        report["teacher_measured_on"] = "test" if "teacher" in run.predictions else "annotations"
    if run.data:
        size = run.data["splits"]["pool"]["used"]
        report["pool"] = {"size": size, "domains": _domains(run.data)}
        if not run.config.get("data", {}).get("labelled", True):
            report["pool"]["labelled"] = False
    if spend := run.spend or (None if methods.asks(run.method) else _NOTHING):
        report["spend"] = _spend(run, spend)
    if run.selection:
        report["selection"] = {key: run.selection[key] for key in ("strategy", "size", "ids")}
        if (parts := run.config.get("selection", {}).get("parts", 1)) > 1:
            report["selection"]["parts"] = parts
    if run.annotations:
        report["annotations"] = _kept(run.annotations, "answered")
    if run.rationales:
        report["rationales"] = _kept(run.rationales, "written")
        if retried := sum("retry" in row for row in run.rationales):
            report["rationales"]["from_retries"] = retried
        report["rationales"]["shown_gold"] = any(row["shown_gold"] for row in run.rationales)
    if run.threshold:
        report["threshold"] = dict(run.threshold)
    if run.chains:
        report["chains"] = _chains(run)
    if run.replies:
        report["budgets"] = _budgets(run)
    if errors := _errors(run):
        report["errors"] = errors
    report["parameters"] = run.parameters
    report["gaps"], report["gaps_interval"] = _gaps(run, report["accuracy"])
    report["seconds"] = {stage: row["seconds"] for stage, row in run.manifests.items()}
    report["time"] = _time(run)
    report["training"] = _speed(run)
    made = [manifest["made_with"] for manifest in run.manifests.values()]
    report["made_with"] = provenance.merged([*made, run.made_with])
    if run.data:
        report["data"] = run.data
    _count_classes(run, report)
    if found := _confidence(run):
        report["confidence"] = found
    failures = _failures(run, report)
    report["failures"] = sorted({name for name, _ in failures})
    report["warnings"] = [f"{name}: {sentence}" for name, sentence in failures]
    tested = {report["questions"][role] for role in run.predictions}
    if len(tested) > 1:
        report["warnings"].append(
            "The models were tested on different numbers of questions "
            f"({min(tested)} to {max(tested)}): their accuracies are not comparable."
        )
    report["verdict"] = verdict.compute(run, report)
    return report


def _metrics(run: RunArtifacts) -> dict[str, Json]:
    found = {role: metrics.summarise(rows) for role, rows in run.predictions.items()}
    # Without a gold answer it is unknown whether the teacher is right.
    if "teacher" not in found and (asked := metrics.with_gold(run.annotations)):
        found["teacher"] = metrics.summarise([{**row, "tokens": 0} for row in asked])
        del found["teacher"]["mean_tokens"]  # Annotations do not record them.
    return {role: found[role] for role in methods.measured(run.method) if role in found}


def _held_out(run: RunArtifacts) -> Json:
    """Counts the test questions whose gold answer is the teacher's, and those it did not answer."""
    bought = {row["id"] for row in run.held_out if row["answer"] is not None}
    tested = {row["id"] for rows in run.predictions.values() for row in rows}
    return {
        "asked": len(run.held_out),
        "answered": len(bought),
        "left_out": len(run.held_out) - len(bought),
        "with_gold": len(tested - bought),
    }


def _count_classes(run: RunArtifacts, report: Json) -> None:
    """Adds the student's `classes` and the `constant` answer, where answers are classes.

    The constant answer is the commonest gold answer of the pool, or of the test if the run has not
    counted those of the pool.
    """
    rows = run.predictions.get("student", [])
    if not metrics.are_classes(rows, run.config.get("data", {}).get("kind", "")):
        return
    report["classes"] = metrics.count_by_class(rows)
    known = run.data and run.data["commonest"]
    answer = known[0] if known else report["classes"]["classes"][0]["name"]
    right = sum(row["gold"] == answer for row in rows) / len(rows)
    where = "pool" if known else "test"
    report["constant"] = {"answer": answer, "accuracy": right, "commonest_of": where}


def _confidence(run: RunArtifacts) -> Json:
    """Counts the student's right answers above several confidence thresholds; {} if unknown.

    The thresholds are taken from the answers to the dev split, on which the user chooses one, or
    from those to the test if the dev split was not answered.
    """
    answered = {"dev": metrics.with_gold(run.dev_answers), "test": run.predictions.get("student")}
    known = {name: rows for name, rows in answered.items()
             if rows and all("confidence" in row for row in rows)}  # fmt: skip
    if "test" not in known:
        return {}
    least = run.config.get("evaluation", {}).get("least_confidence", 0.0)
    chosen = {least, *confidence.thresholds(next(iter(known.values())))}
    return {
        "least_confidence": least,
        "thresholds": [
            {
                "least": each,
                **{name: confidence.trusted(rows, each) for name, rows in known.items()},
            }
            for each in sorted(chosen)
        ],
    }


def _where_known(results: dict[str, Json], metric: str) -> dict[str, float]:
    return {role: found[metric] for role, found in results.items() if metric in found}


def _errors(run: RunArtifacts) -> dict[str, dict[str, int]]:
    """Counts, for each model, where its wrong rationales about check digits first go wrong.

    The program that generates these questions computes each step. Left out are models that are
    asked for the answer alone, which write no steps, and untrained models, which mostly do not.
    """
    data, seed = run.config.get("data", {}), run.config.get("seed", 0)
    if data.get("source") != "practice" or data.get("kind") == "text":
        return {}
    rules = {
        domain: checkdigits.code(seed, domain, data["families"], data["different_values"])
        for domain in data["domains"]
        if domain in checkdigits.KINDS
    }
    told: set[str] = set()  # No kind is in two domains.
    for row in run.annotations:
        if row["kept"]:
            told.update(*(checkdigits.facts(row["question"], code) for code in rules.values()))
    reasons = run.method != "labels" and run.config.get("form") != "two_pass"
    found = {}
    for role in ("assistant", "student_direct", "student") if reasons else ("assistant",):
        wrong = Counter(
            checkdigits.error(row["question"], row["completion"], rules[row["domain"]], told)
            for row in run.predictions.get(role, ())
            if row["domain"] in rules and not row["correct"]
        )
        if wrong:
            found[role] = {name: wrong[name] for name in checkdigits.ERRORS}
    return found


def _kept(rows: Sequence[Any], whole: str) -> Json:
    kept = sum(bool(row["kept"]) for row in rows)
    return {whole: len(rows), "kept": kept, "rejected": len(rows) - kept}


def _chains(run: RunArtifacts) -> dict[str, Json]:
    """Counts the reasoning at each budget: written, kept, rejected, and requests for it."""
    found = {}
    for level in sorted({row["budget"] for row in run.chains}):
        here = [row for row in run.chains if row["budget"] == level]
        kept = [row["tokens"] for row in here if row["kept"]]
        found[str(level)] = _kept(here, "written") | {
            "asked": sum(row["asked"] for row in here),
            "mean_tokens": sum(kept) / len(kept) if kept else None,
        }
    return found


def _budgets(run: RunArtifacts) -> dict[str, Json]:
    """Returns the figures of each control at each budget (`metrics.by_budget`)."""
    found = {}
    for control, rows in run.replies.items():
        levels = metrics.by_budget(rows)
        found[control] = {
            "title": budget_tests.TITLES[control],
            "levels": {str(level): figures for level, figures in levels.items()},
            "spread": metrics.spread_of_thinking(levels),
            "anytime_index": metrics.anytime_index(levels),
        }
    return found


def _spend(run: RunArtifacts, paid: Bill) -> Json:
    """Returns the bill and the caps; also the bill at present prices, if they have changed."""
    budget, spend = run.config.get("budget", {}), dict(paid)
    found = {
        **{key: spend[key] for key in ("queries", "input_tokens", "output_tokens", "usd")},
        "budget_queries": budget.get("queries"),
        "budget_usd": budget.get("usd"),
        **{part: spend[part] for part in _SPEND_PARTS if part in spend},
    }
    if "teacher" in run.config:
        teacher = from_json(TeacherConfig, run.config["teacher"])
        if any(getattr(teacher, name) != usd for name, usd in paid["prices"].items()):
            batch = teacher.batch and is_paid(teacher)
            cost = prices_of(teacher).cost(paid["input_tokens"], paid["output_tokens"], batch)
            found["at_present_prices"] = in_usd(cost)
    return found


def _time(run: RunArtifacts) -> dict[str, float]:
    """Returns the total seconds and those of overheads; goodput is the share without overheads.

    Overheads before a restart are not recorded, so their seconds are only in the total.
    """
    stages = list(run.manifests.values())
    total = sum(stage["seconds"] for stage in stages)
    parts = {
        part: sum(stage["spans"].get(part, 0.0) for stage in stages)
        for part in ("compile", "data", "dev", "checkpoint")
    }
    return {
        "total": total,
        **parts,
        "goodput": 1 - sum(parts.values()) / total if total else 1.0,
        "compilations": sum(stage["compilations"] for stage in stages),
        "restarts": sum(stage["restarts"] for stage in stages),
    }


def _speed(run: RunArtifacts) -> dict[str, dict[str, float]]:
    """Returns medians over the steps of each training stage: seconds, tokens per second, MFU."""
    found: dict[str, dict[str, float]] = {}
    for stage, steps in run.curves.items():
        for name in ("step_seconds", "tokens_per_second", "mfu"):
            values: list[Any] = [step.get(name) for step in steps]
            if known := [value for value in values if value is not None]:
                found.setdefault(stage, {})[name] = statistics.median(known)
    return found


def _gaps(
    run: RunArtifacts, accuracy: dict[str, float]
) -> tuple[dict[str, float], dict[str, list[float]]]:
    gaps, bounds = {}, {}
    for name, a, b, in_run, _ in metrics.GAPS:
        if not in_run or a not in accuracy or b not in accuracy:
            continue
        gaps[name] = accuracy[a] - accuracy[b]
        rows = [run.predictions.get(role, []) for role in (a, b)]
        ids = [{row["id"] for row in each} for each in rows]
        if ids[0] and ids[0] == ids[1]:
            paired = intervals.paired_difference(*rows)
            bounds[name] = [paired["low"], paired["high"]]
    return gaps, bounds


def _failures(run: RunArtifacts, report: Json) -> list[tuple[str, str]]:
    """Returns the failure signatures of a run: each a name and a sentence with the numbers.

    *Semantic collapse*: a domain with a tenth of the pool or more is in none of the selected
    questions, or in none of the rationales that the student learns from. *Instruction blindness*:
    no answer can be parsed from more than a tenth of a trained student's outputs. *Answer
    collapse*: the student nearly always gives the same answer, which is right less often. *Below
    the commonest answer*: it is right less often than one answer to all questions would be. *Budget
    waste*: the assistant is no better after learning from the teacher's answers. *Thinking budget
    ignored*: the student thinks for about as long whatever its budget. *All budgets below the
    natural length*: without a budget it writes more tokens than the largest budget.
    """
    found = []
    chosen = set(run.selection["ids"]) if run.selection else set()
    rows = run.scores or run.rationales  # Without an assistant, domains of questions are unknown.
    selected = [row for row in rows if row["id"] in chosen]
    if selected and (lost := _left_out(run.data, selected)):
        found.append(("Semantic collapse", f"the selection leaves out {lost}."))
    kept = [row for row in run.rationales if row["kept"]]
    if run.rationales and (lost := _left_out(run.data, kept)):
        found.append(("Semantic collapse", f"the kept rationales leave out {lost}."))
    tests = [row for row in run.table.values() if row.role == "student"]
    students = [row.measured for row in tests if row.measured]
    for student in sorted(students, key=lambda model: model.name != "student"):
        share = report["compliance"].get(student.name, 1.0)
        if share < LOWEST_COMPLIANCE and not student.is_before:
            sentence = (
                f"an answer can be parsed from only {share:.0%} of the replies of "
                f"“{student.title}” (below {LOWEST_COMPLIANCE:.0%})."
            )
            found.append(("Instruction blindness", sentence))
    found += _constant_answer(run.predictions.get("student", []))
    found += _budget_failures(report)
    before, after = (report["accuracy"].get(role) for role in ("assistant_base", "assistant"))
    if methods.asks(run.method) and before is not None and after is not None and after <= before:
        sentence = (
            f"the assistant answers {after:.1%} correctly after learning from the teacher, "
            f"{before:.1%} before."
        )
        found.append(("Budget waste", sentence))
    return found


def _budget_failures(report: Json) -> list[tuple[str, str]]:
    found = []
    stated = report.get("budgets", {}).get("stated")
    if stated and len(stated["levels"]) > 1 and stated["spread"] < LEAST_SPREAD:
        sentence = (
            f"the student’s mean thinking at one budget is at most {stated['spread']:.2f} times "
            f"that at another (below {LEAST_SPREAD})."
        )
        found.append(("Thinking budget ignored", sentence))
    natural = report["mean_tokens"].get("student")
    largest = max(map(int, stated["levels"])) if stated else 0
    if stated and natural is not None and natural > largest:
        sentence = (
            f"without a budget the student writes {natural:.0f} tokens, and the largest budget is "
            f"{largest}: the effect of a larger one was not measured."
        )
        found.append(("All budgets below the natural length", sentence))
    return found


def _constant_answer(rows: list[Prediction]) -> list[tuple[str, str]]:
    """Returns the failure signatures of constant answers, if there are only a few gold answers."""
    gold = Counter(row["gold"] for row in rows)
    answers = Counter(row["answer"] for row in rows if row["answer"] is not None)
    if not answers or len(gold) > FEW_ANSWERS or len(rows) < MANY_QUESTIONS:
        return []
    found = []
    answer, count = answers.most_common(1)[0]
    share, true_share = count / answers.total(), gold[answer] / len(rows)
    if share >= SAME_ANSWER > true_share:
        sentence = (
            f"{answer!r} is {share:.0%} of the student's answers, and right for {true_share:.0%} "
            "of the questions."
        )
        found.append(("Answer collapse", sentence))
    common, count = gold.most_common(1)[0]
    accuracy = sum(row["correct"] for row in rows) / len(rows)
    if accuracy < count / len(rows):
        sentence = (
            f"{common!r} to every question would be right {count / len(rows):.0%} of the time, the "
            f"student is right {accuracy:.0%}."
        )
        found.append(("Below the commonest answer", sentence))
    return found


def _domains(data: DataFacts) -> dict[str, int]:
    """Returns the domains of the pool; none for a run of an earlier version."""
    return data.get("domains", {})


def _left_out(data: DataFacts | None, kept: Sequence[Score | Judged]) -> str:
    """Returns the domains with a tenth of the pool or more that are in no row of `kept`."""
    sizes = _domains(data) if data else {}
    total, present = sum(sizes.values()), {row["domain"] for row in kept}
    return ", ".join(
        f"{domain} ({size / total:.0%} of the pool)"
        for domain, size in sizes.items()
        if domain and domain not in present and size >= LARGE_DOMAIN * total
    )
