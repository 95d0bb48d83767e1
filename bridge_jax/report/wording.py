"""Words the report: bills, times, the headline."""

from collections.abc import Mapping
from typing import Any

from bridge_jax import methods
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.progress import duration
from bridge_jax.report.numbers import count, dollars, percent, points

CHOSEN = {
    "random": "drawn at random",
    "difficulty": "chosen for being hard",
    "diversity": "chosen for being unlike each other",
    "coverage": "chosen for being hard and unlike each other",
    "typicality": "chosen for being typical",
    "badge": "chosen for being unsure and unlike each other",
    "herding": "chosen to represent the pool",
}


def trained(report: dict[str, Any]) -> str:
    """Returns such as "assistant 4.9M parameters (20 MB) beside 134.5M (538 MB) frozen"."""
    parts = []
    for stage, artifact in methods.table(report["method"]).items():
        if artifact.is_last and (sizes := report["parameters"].get(stage)):
            text = f"{artifact.role} {_size(sizes['trained'], ' parameters')}"
            frozen = sizes["frozen"]
            parts.append(f"{text} beside {_size(frozen)} frozen" if frozen["parameters"] else text)
    return ", ".join(parts)


def _size(size: dict[str, int], what: str = "") -> str:
    return f"{size['parameters'] / 1e6:,.1f}M{what} ({size['bytes'] / 1e6:,.0f} MB)"


def titles(method: str | None) -> dict[str, str]:
    """Returns the measured models of a method in words, by name."""
    return {name: model.title for name, model in methods.measured(method).items()}


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
        how = f", trained on {answers}," if methods.asks(report["method"]) else ""
        return (
            f"The assistant{how} answers {answered('assistant')}; no student has been tested yet."
        )
    models = methods.measured(report["method"])
    others = [name for name in accuracy if name != "teacher" and not models[name].is_before]
    if others:
        return f"{models[others[-1]].title} answers {answered(others[-1])}."
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
    if (present := spend.get("at_present_prices")) is not None:
        notes.append(
            f"The prices have changed since the teacher was asked: {dollars(spend['usd'])} was "
            f"paid; at the present ones the same tokens would cost {dollars(present)}."
        )
    if others := spend.get("of_others"):
        answers = count(others["queries"], "answer was", "answers were")
        notes.append(
            f"{answers} paid by other runs that share the ledger ({dollars(others['usd'])}), "
            "free for this one."
        )
    return notes


def made_with(found: Mapping[str, list[str]]) -> str:
    """Returns such as "Made with jax 0.9.1, numpy 2.3.0 on 8 TPU v5 lite (tpu)."; "" of nothing."""
    if not found:
        return ""
    said = {name: " and ".join(values) for name, values in found.items()}
    devices, backend = said.pop("devices"), said.pop("backend")
    libraries = ", ".join(f"{name} {version}" for name, version in said.items())
    return f"Made with {libraries} on {devices} ({backend})."


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


def time_rows(report: dict[str, Any], table: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """Returns the stages: `name`, `time` in words, `share` of the longest, and `speed`."""
    seconds, training = report["seconds"], report["training"]
    longest = max(seconds.values(), default=0) or 1
    return [
        {
            "name": table[stage].title,
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
