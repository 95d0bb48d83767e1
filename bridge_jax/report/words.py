"""Puts the numbers of a run into words: shares, dollars, headline, bill, times, summary."""

import functools
from collections.abc import Mapping

from rich.console import Console

from bridge_jax import methods, shown
from bridge_jax.evaluation.intervals import wilson
from bridge_jax.progress import duration
from bridge_jax.report.workdir import Json

CHOSEN = {
    "random": "drawn at random",
    "difficulty": "chosen for being hard",
    "diversity": "chosen for being unlike each other",
    "coverage": "chosen for being hard and unlike each other",
    "typicality": "chosen for being typical",
    "badge": "chosen for being unsure and unlike each other",
    "herding": "chosen to represent the pool",
}
_NO_ANSWER = {
    "length": "cut off at the limit",
    "refused": "refused",
    "empty": "empty",
    "malformed": "malformed",
}
_OVERHEADS = {
    "compile": "compiling",
    "data": "waiting for data",
    "dev": "measuring the dev split",
    "checkpoint": "saving",
}


def percent(share: float) -> str:
    """Returns a share in whole per cent, with a decimal if that would round to 0% or 100%."""
    near_an_end = 0 < share < 0.01 or 0.99 < share < 1
    return f"{100 * share:.1f}%" if near_an_end else f"{100 * share:.0f}%"


def interval(bounds: list[float]) -> str:
    """Returns two shares as "40–54%"."""
    return f"{100 * bounds[0]:.0f}–{100 * bounds[1]:.0f}%"


def points(difference: float) -> str:
    """Returns a difference of shares in percentage points, such as "23.5" or "−3"."""
    rounded = round(100 * difference, 1)
    return f"{'−' if rounded < 0 else ''}{abs(rounded):.1f}".removesuffix(".0")


def signed(difference: float, decimals: int = 1) -> str:
    """Returns a difference of shares in percentage points with its sign, such as "+4.1" or "0"."""
    text = f"{100 * difference:+.{decimals}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def dollars(usd: float) -> str:
    """Returns US dollars: cents, or four decimals below ten cents."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def count(number: int, one: str, many: str = "") -> str:
    """Returns "1 question", "4,120 questions"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def titles(method: str | None) -> dict[str, str]:
    """Returns the titles of a method's measured models, by name."""
    return {name: model.title for name, model in methods.measured(method).items()}


def headline(report: Json) -> str:
    """Returns the result of a run in one plain sentence."""
    accuracy = report["accuracy"]
    kept = report.get("annotations", {}).get("kept")
    answers = "the teacher’s answers" if kept is None else count(kept, "teacher answer")

    def answered(role: str) -> str:
        n = report["questions"][role]
        return f"{percent(accuracy[role])} of {count(n, 'test question')} correctly"

    same = answers if kept is None else f"the same {answers}"
    taught = {"student_direct": f"directly on {same}", "student_labels": "on the labels alone"}
    shares = {how: percent(accuracy[role]) for role, how in taught.items() if role in accuracy}
    if "student" in accuracy and shares:
        told = ", and ".join(f"trained {how}, it answers {share}" for how, share in shares.items())
        return f"The student answers {answered('student')}; {told}."
    if role := tested_student(accuracy):
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
    for name in reversed(accuracy):
        if name != "teacher" and not models[name].is_before:
            return f"{models[name].title} answers {answered(name)}."
    if kept is not None:
        worth = count(kept, "answer")
        return f"The teacher gave {worth} worth keeping; no model has been tested yet."
    return "No model has been tested yet."


def measured_against(report: Json) -> str:
    """Returns whose answers the test is compared with, if not all are gold ones; else ""."""
    if not (found := report.get("held_out")):
        return ""
    said = "Measured against the teacher’s answers, not against people’s"
    if found["with_gold"]:
        said += (
            f", in {found['answered']:,} of {found['answered'] + found['with_gold']:,} questions"
        )
    if found["left_out"]:
        asked = count(found["asked"], "test question")
        said += f"; of {asked} it left {found['left_out']:,} without an answer, not tested here"
    return f"{said}."


def threshold(report: Json) -> str:
    """Returns the threshold that was chosen on dev and what is expected of it; "" if none was."""
    if not (found := report.get("threshold")):
        return ""
    chosen = f"{found['min_mean_logprob']:.3g}".replace("-", "−")
    said = f"The assistant’s answers are kept from a mean log-probability of {chosen} nats"
    asked = count(found["asked"], "dev question")
    if not found["kept"]:
        return f"{said}, as configured: none of its answers to {asked} could be used to choose it."
    bounds = interval(list(wilson(found["right"], found["kept"])))
    return (
        f"{said}, chosen on {asked} so that {percent(found['least_right'])} of them are right: "
        f"there it keeps {found['kept']:,}, of which {found['right']:,} are right (95%: {bounds})."
    )


def tested_student(accuracy: Mapping[str, float]) -> str | None:
    """Returns the tested student's name: `student`, else `student_direct`, else None."""
    return next((role for role in ("student", "student_direct") if role in accuracy), None)


def comparison(report: Json) -> str:
    """Returns the differences from the other students with their intervals, "" if none."""
    sentences = []
    for other, name in (
        ("student_direct", "direct student"),
        ("student_labels", "student trained on the labels"),
    ):
        gap = f"student_{other}"
        if bounds := report["gaps_interval"].get(gap):
            low, high = (points(bound) for bound in bounds)
            verdict = "" if bounds[0] > 0 or bounds[1] < 0 else ", so the two cannot be told apart"
            sentences.append(
                f"The difference from the {name} is {points(report['gaps'][gap])} percentage "
                f"points on the same questions, with 95% confidence between {low} and "
                f"{high}{verdict}."
            )
    return " ".join(sentences)


def spend_rows(spend: Json) -> list[Json]:
    """Returns the lines of the bill: `name`, `used`, `cap` and `share` of the cap (or None)."""
    rows = []
    for key in ("queries", "usd", "input_tokens", "output_tokens"):
        name = "US dollars" if key == "usd" else key.replace("_", " ").capitalize()
        show = dollars if key == "usd" else "{:,}".format
        used, cap = spend[key], spend.get(f"budget_{key}")
        cap_text = "" if cap is None else show(cap)
        share = used / cap if cap else None
        rows.append({"name": name, "used": show(used), "cap": cap_text, "share": share})
    return rows


def spend_notes(spend: Json) -> list[str]:
    """Returns sentences on the parts of the bill that need attention."""
    notes = []
    if kinds := spend.get("no_answer"):
        parts = [f"{kinds[kind]:,} {word}" for kind, word in _NO_ANSWER.items() if kind in kinds]
        replies = count(sum(kinds.values()), "paid reply is", "paid replies are")
        notes.append(f"{replies} no answer ({', '.join(parts)}): nothing was trained on them.")
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


def trained(report: Json) -> str:
    """Returns such as "assistant 4.9M parameters (20 MB) beside 134.5M (538 MB) frozen"."""
    parts = {}
    for stage, artifact in methods.table(report["method"]).items():
        if not artifact.is_last or not (sizes := report["parameters"].get(stage)):
            continue
        (ours, size), (others, rest) = (
            (sizes[part]["parameters"] / 1e6, sizes[part]["bytes"] / 1e6)
            for part in ("trained", "frozen")
        )
        frozen = f" beside {others:,.1f}M ({rest:,.0f} MB) frozen" if others else ""
        found = f"{artifact.role} {ours:,.1f}M parameters ({size:,.0f} MB){frozen}"
        parts[artifact.role] = found  # of the last training of its model
    return ", ".join(parts.values())


def made_with(found: Mapping[str, list[str]]) -> str:
    """Returns such as "Made with jax 0.9.1, numpy 2.3.0 on 8 TPU v5 lite (tpu)."; "" of nothing."""
    if not found:
        return ""
    versions = {name: " and ".join(values) for name, values in found.items()}
    devices, backend = versions.pop("devices"), versions.pop("backend")
    libraries = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Made with {libraries} on {devices} ({backend})."


def time(parts: dict[str, float]) -> str:
    """Returns the time and its overheads, as in "8 min 11 s; 12% compiling (41 programs)"."""
    total, shares = parts["total"], []
    for key, word in _OVERHEADS.items():
        if total and parts[key] / total >= 0.005:
            programs = count(int(parts["compilations"]), "program")
            note = f" ({programs})" if key == "compile" else ""
            shares.append(f"{percent(parts[key] / total)} {word}{note}")
    restarts = count(int(parts["restarts"]), "restart") if parts["restarts"] else ""
    return "; ".join(filter(None, [duration(total), ", ".join(shares), restarts]))


def speed(found: dict[str, float]) -> str:
    """Returns the speed of training, as in "1,230 tokens/s, 41% MFU"."""
    tokens = f"{found['tokens_per_second']:,.0f} tokens/s" if "tokens_per_second" in found else ""
    mfu = f"{percent(found['mfu'])} MFU" if "mfu" in found else ""
    return ", ".join(filter(None, [tokens, mfu]))


def print_summary(report: Json, console: Console) -> None:
    """Prints the result, a line per model, the bill, the time, the warnings and the page's path."""
    say = functools.partial(shown.say, console)
    say("")
    say(headline(report))
    table, names = (
        shown.table("model", "accuracy", "95%", "answers that parse"),
        titles(report["method"]),
    )
    for role, value in report["accuracy"].items():
        bounds, parse = report["accuracy_interval"][role], report["compliance"][role]
        style = "bold" if role == "student" else None
        table.add_row(names[role], percent(value), interval(bounds), percent(parse), style=style)
    if report["accuracy"]:
        console.print(table)
        if against := measured_against(report):
            say(against)
    if "spend" in report:
        queries, usd, tokens_in, tokens_out = (
            f"{row['used']} of {row['cap']}" if row["cap"] else row["used"]
            for row in spend_rows(report["spend"])
        )
        say(f"Spent    {queries} queries, {usd}; {tokens_in} tokens in, {tokens_out} out")
        for note in spend_notes(report["spend"]):
            say(f"         {note}")
    if chosen := threshold(report):
        say(f"Filter   {chosen}")
    if sizes := trained(report):
        say(f"Trained  {sizes}")
    if report["seconds"]:
        say(f"Time     {time(report['time'])}")
    for warning in report["warnings"]:
        say(("Warning", "bold"), f"  {warning}")
    say(f"Report   {report['page']}")
