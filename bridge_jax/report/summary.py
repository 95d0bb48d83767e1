"""Computes the numbers of `report.json` from a run's results."""

import statistics
from collections import Counter
from typing import Any

from bridge_jax import methods
from bridge_jax.config import TeacherConfig
from bridge_jax.config.io import from_json
from bridge_jax.evaluation import metrics
from bridge_jax.evaluation.gaps import GAPS
from bridge_jax.ledger.prices import in_usd
from bridge_jax.methods.annotations import Bill
from bridge_jax.methods.teacher import is_paid, prices_of
from bridge_jax.report import failures
from bridge_jax.report.workdir import Run

# What `Ledger.bill` has only where there is any.
_SPEND_PARTS = ("no_answer", "unknown", "of_others")
# The bill of a method without a teacher.
_NOTHING = Bill(queries=0, input_tokens=0, output_tokens=0, usd=0.0, prices={})


def summarise(run: Run) -> dict[str, Any]:
    """Returns what `report.json` holds; a part that was not run is left out.

    The teacher's accuracy is that of its predictions on the test questions. Where it was not asked
    these, it is the share of its annotations equal to gold, and `teacher_measured_on` says
    "annotations": those questions are of the pool, and were chosen for being hard.

    `gaps_interval` has only the gaps between two models that answered the same questions.
    """
    roles = _roles(run)
    report: dict[str, Any] = {
        "name": run.config.get("name", run.path.resolve().name),
        "method": run.method,
        "seed": run.config.get("seed"),
        "accuracy": {role: result["accuracy"] for role, result in roles.items()},
        "accuracy_interval": _intervals(roles, "accuracy"),
        "compliance": {role: result["compliance"] for role, result in roles.items()},
        "compliance_interval": _intervals(roles, "compliance"),
        "questions": {role: result["n"] for role, result in roles.items()},
        "mean_tokens": {
            role: result["mean_tokens"] for role, result in roles.items() if "mean_tokens" in result
        },
        "n_test": max((len(rows) for rows in run.predictions.values()), default=0),
    }
    if scores := {role: result["score"] for role, result in roles.items() if "score" in result}:
        report["score"] = scores  # mean ROUGE-L of free texts
    if "teacher" in roles:
        report["teacher_measured_on"] = "test" if "teacher" in run.predictions else "annotations"
    if run.scores:
        domains = Counter(row["domain"] for row in run.scores)
        report["pool"] = {"size": len(run.scores), "domains": dict(sorted(domains.items()))}
        if not run.config.get("data", {}).get("labelled", True):
            report["pool"]["labelled"] = False
    if spend := run.spend or (None if methods.asks(run.method) else _NOTHING):
        report["spend"] = _spend(run, spend)
    if run.selection:
        report["selection"] = {key: run.selection[key] for key in ("strategy", "size", "ids")}
    if run.annotations:
        kept = sum(bool(row["kept"]) for row in run.annotations)
        answered = len(run.annotations)
        report["annotations"] = {"answered": answered, "kept": kept, "rejected": answered - kept}
    if run.rationales:
        kept = sum(bool(row["kept"]) for row in run.rationales)
        written = len(run.rationales)
        report["rationales"] = {"written": written, "kept": kept, "rejected": written - kept}
        report["rationales"]["shown_gold"] = any(row["shown_gold"] for row in run.rationales)
    report["parameters"] = run.parameters
    report["gaps"], report["gaps_interval"] = _gaps(run, report["accuracy"])
    report["seconds"] = {stage: row["seconds"] for stage, row in run.manifests.items()}
    report["time"] = _time(run)
    report["training"] = _speed(run)
    report["made_with"] = _made_with(run)
    found = failures.find(run, report)
    report["failures"] = sorted({failure.name for failure in found})
    report["warnings"] = [*map(str, found), *failures.unequal_tests(run, report)]
    return report


def _roles(run: Run) -> dict[str, dict[str, Any]]:
    roles = {role: metrics.summarise(rows) for role, rows in run.predictions.items()}
    if "teacher" not in roles and run.annotations:
        roles["teacher"] = metrics.summarise(
            [
                {"answer": row["answer"], "correct": row["correct"], "tokens": 0}
                for row in run.annotations
            ]
        )
        del roles["teacher"]["mean_tokens"]  # annotations do not say
    return {role: roles[role] for role in methods.measured(run.method) if role in roles}


def _spend(run: Run, paid: Bill) -> dict[str, Any]:
    """Returns the bill beside the caps; also what it would be if the prices have changed since."""
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


def _intervals(roles: dict[str, dict[str, Any]], metric: str) -> dict[str, list[float]]:
    return {
        role: [result[f"{metric}_low"], result[f"{metric}_high"]] for role, result in roles.items()
    }


def _time(run: Run) -> dict[str, float]:
    """Returns seconds in all and of what is not the work itself; goodput is the share of the work.

    Before a restart nobody kept count: those seconds are in the total alone.
    """
    stages = list(run.manifests.values())
    total = sum(stage["seconds"] for stage in stages)
    parts = {
        part: sum(stage["spans"].get(part, 0.0) for stage in stages)
        for part in ("compile", "data", "checkpoint")
    }
    return {
        "total": total,
        **parts,
        "goodput": 1 - sum(parts.values()) / total if total else 1.0,
        "compilations": sum(stage["compilations"] for stage in stages),
        "restarts": sum(stage["restarts"] for stage in stages),
    }


def _speed(run: Run) -> dict[str, dict[str, float]]:
    """Returns the median step of each training stage: seconds, tokens a second, MFU on a chip."""
    found = {}
    for stage, steps in run.curves.items():
        found[stage] = {
            "step_seconds": statistics.median(step["step_seconds"] for step in steps),
            "tokens_per_second": statistics.median(step["tokens_per_second"] for step in steps),
        }
        if known := [step["mfu"] for step in steps if "mfu" in step]:
            found[stage]["mfu"] = statistics.median(known)
    return found


def _made_with(run: Run) -> dict[str, list[str]]:
    """Returns what made the stages: library, backend or devices -> which, in their order."""
    found: dict[str, list[str]] = {}
    for manifest in run.manifests.values():
        for what, which in manifest["made_with"].items():
            values = found.setdefault(what, [])
            if which not in values:
                values.append(which)
    return found


def _gaps(run: Run, accuracy: dict[str, float]) -> tuple[dict[str, float], dict[str, list[float]]]:
    gaps, intervals = {}, {}
    for name, a, b, in_run, _ in GAPS:
        if not in_run or a not in accuracy or b not in accuracy:
            continue
        gaps[name] = accuracy[a] - accuracy[b]
        rows = [run.predictions.get(role, []) for role in (a, b)]
        ids = [{row["id"] for row in each} for each in rows]
        if ids[0] and ids[0] == ids[1]:
            paired = metrics.paired_difference(*rows)
            intervals[name] = [paired["low"], paired["high"]]
    return gaps, intervals
