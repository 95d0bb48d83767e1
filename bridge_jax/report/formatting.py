"""Puts the numbers of a run into words: shares, dollars, headline, bill, times, summary."""

import functools
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from bridge_jax import display, methods
from bridge_jax.evaluation.intervals import wilson
from bridge_jax.progress import duration
from bridge_jax.report.workdir import Json

_CHOSEN = {
    "random": "drawn at random",
    "difficulty": "chosen for being hard",
    "diversity": "chosen for being unlike each other",
    "coverage": "chosen for being hard and unlike each other",
    "typicality": "chosen for being typical",
    "badge": "chosen for being unsure and unlike each other",
    "herding": "chosen to represent the pool",
}
MOST_KINDS = 3  # of bad rows, in a sentence
MOST_ROWS = 8  # of a table of classes, in the terminal
_BY_DRAFTS = "; after the first part, for new content in the assistant’s drafts"
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


def chosen(selection: Json) -> str:
    """Returns how the questions for the teacher were chosen."""
    by_strategy = _CHOSEN[selection.get("strategy", "random")]
    return by_strategy + _BY_DRAFTS if "parts" in selection else by_strategy


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


def in_points(difference: float) -> str:
    """Returns a difference of shares with its unit, such as "23.5 points" or "1 point"."""
    number = points(difference)
    return f"{number} point" if number in ("1", "−1") else f"{number} points"


def signed(difference: float, decimals: int = 1) -> str:
    """Returns a difference of shares in percentage points with its sign, such as "+4.1" or "0"."""
    text = f"{100 * difference:+.{decimals}f}".replace("-", "−")
    return text if text.strip("+−0.") else "0"


def dollars(usd: float) -> str:
    """Returns US dollars: cents, or four decimals below ten cents."""
    return f"${usd:,.2f}" if usd >= 0.1 or usd == 0 else f"${usd:.4f}"


def count(number: int, one: str, many: str = "") -> str:
    """Returns a number with its noun, such as "1 question" or "4,120 questions"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def rounded(number: int) -> str:
    """Returns a number rounded to two significant digits, such as "1,600"."""
    places = max(0, len(str(number)) - 2)
    return f"{round(number, -places):,}"


def shortened(name: str, longest: int = 18) -> str:
    """Returns a name in one line of at most `longest` characters, cut in the middle."""
    name = display.line(name)
    if len(name) <= longest:
        return name
    # Long names often share their beginning and differ at the end.
    return f"{name[: longest // 2]}…{name[1 - longest // 2 :]}"


def quoted(name: str) -> str:
    """Returns an answer in quotation marks and at most 40 characters, for a sentence."""
    return f"“{shortened(name, 40)}”"


def titles(method: str | None) -> dict[str, str]:
    """Returns the titles of a method's measured models, by name."""
    return {name: model.title for name, model in methods.measured(method).items()}


def headline(report: Json) -> str:
    """Returns the result of a run whose student was not tested, in one plain sentence."""
    accuracy = report["accuracy"]
    kept = report.get("annotations", {}).get("kept")
    answers = "the teacher’s answers" if kept is None else count(kept, "teacher answer")

    def answered(role: str) -> str:
        n = report["questions"][role]
        return f"{percent(accuracy[role])} of {count(n, 'test question')} correctly"

    if "student_direct" in accuracy:
        sentence = (
            f"Trained directly on {answers}, the student answers {answered('student_direct')}"
        )
        if "student_base" in accuracy:
            return f"{sentence}; before training it answered {percent(accuracy['student_base'])}."
        return f"{sentence}."
    if "assistant" in accuracy:
        how = f", trained on {answers}," if methods.asks(report["method"]) else ""
        return (
            f"The assistant{how} answers {answered('assistant')}; no student has been tested yet."
        )
    models = methods.measured(report["method"])
    tested = [name for name in reversed(accuracy) if name != "teacher"]
    for name in tested:
        if not models[name].is_before:
            return f"{models[name].title} answers {answered(name)}."
    given = "" if kept is None else f"The teacher gave {count(kept, 'answer')} worth keeping; "
    if tested:
        model = models[tested[0]]
        whole = f"{given}{model.title} ({model.note}) answers {answered(tested[0])}"
        return f"{whole}; no trained model has been tested yet."
    return f"{given}no model has been tested yet." if given else "No model has been tested yet."


def measured_against(report: Json) -> str:
    """Returns a sentence if gold answers of the test are the teacher's; else ""."""
    if not (found := report.get("held_out")):
        return ""
    said = "Measured against the teacher’s answers, not against people’s"
    if found["with_gold"]:
        said += (
            f", in {found['answered']:,} of {found['answered'] + found['with_gold']:,} questions"
        )
    if found["left_out"]:
        asked = count(found["asked"], "test question")
        said += f"; of {asked} it left {found['left_out']:,} without an answer, untested here"
    return f"{said}."


def threshold(report: Json) -> str:
    """Returns the threshold that was chosen on dev and its results there; "" if none was."""
    if not (found := report.get("threshold")):
        return ""
    chosen = f"{found['min_mean_logprob']:.3g}".replace("-", "−")
    said = f"The assistant’s answers are kept at a mean log-probability of at least {chosen} nats"
    asked = count(found["asked"], "dev question")
    if not found["kept"]:
        return f"{said}, as configured: none of its answers to {asked} could be used to choose it."
    bounds = interval(list(wilson(found["right"], found["kept"])))
    return (
        f"{said}, chosen on {asked} so that {percent(found['least_right'])} of them are right: "
        f"there it keeps {found['kept']:,}, of which {found['right']:,} are right (95%: {bounds})."
    )


def trusted(report: Json) -> str:
    """Returns the results at a run's own confidence threshold, in words; "" if it has none."""
    found = report.get("confidence", {})
    if not (least := found.get("least_confidence")):
        return ""
    row = next(row for row in found["thresholds"] if row["least"] == least)
    told = []
    for name in ("test", "dev"):
        if not (by := row.get(name)):
            continue
        part = f"{percent(by['share'])} of the {by['n']:,} {name} questions"
        if by["trusted"]:
            part += f", of which {percent(by['accuracy'])} are right"
            part += f" ({interval([by['low'], by['high']])})"
        told.append(part)
    return f"Trusted at a confidence of at least {least:g}: {'; '.join(told)}."


def tested_student(accuracy: Mapping[str, float]) -> str | None:
    """Returns the tested student's name: `student`, else `student_direct`, else None."""
    return next((role for role in ("student", "student_direct") if role in accuracy), None)


def data_notes(data: Json) -> list[tuple[str, float]]:
    """Returns sentences on data that were left out or cut, each with the share that it concerns.

    Args:
      data: as `methods.data_facts` counts it.
    """
    notes = []
    for name, found in data["splits"].items():
        used, there = found["used"], found["there"]
        if used < there:
            text = (
                f"Of the {name}, {used:,} of {there:,} examples are used; data.{name}=0 uses all."
            )
            notes.append((text, 1 - used / there))
    if bad := sum(data["bad"].values()):
        kinds = [f"{number:,} × {display.line(kind)}" for kind, number in data["bad"].items()]
        more = f", and {len(kinds) - MOST_KINDS} more kinds" if len(kinds) > MOST_KINDS else ""
        reasons = ", ".join(kinds[:MOST_KINDS]) + more
        share = bad / max(bad, data["rows"])
        notes.append((f"{bad:,} of {data['rows']:,} rows are bad and left out: {reasons}.", share))
    for role, found in data["cut"].items():
        if found["cut"]:
            prompts = f"{found['cut']:,} of {found['of']:,} prompts of the {role}"
            text = f"{prompts} were too long and are cut."
            notes.append((text, found["cut"] / found["of"]))
    if lost := data["instructions_left_out"]:
        text = f"{count(lost, 'instruction is', 'instructions are')} left out, too long or bad."
        notes.append((text, 0.0))
    if replaced := data["replaced"]:
        text = f"{count(replaced, 'row has', 'rows have')} invalid characters, replaced by U+FFFD."
        notes.append((text, 0.0))
    return notes


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
        replies = count(sum(kinds.values()), "paid reply has", "paid replies have")
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
            f"paid; at the current ones the same tokens would cost {dollars(present)}."
        )
    if others := spend.get("of_others"):
        answers = count(others["queries"], "answer was", "answers were")
        notes.append(
            f"{answers} paid by other runs that share the ledger ({dollars(others['usd'])}), "
            "free for this one."
        )
    return notes


def trained(report: Json) -> str:
    """Returns sizes, as in "assistant 4.9M parameters (20 MB) beside 134.5M (538 MB) frozen"."""
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
        parts[artifact.role] = found  # The last training of a model counts.
    return ", ".join(parts.values())


def made_with(found: Mapping[str, Sequence[str]]) -> str:
    """Returns text such as "Made with jax 0.9.1, numpy 2.3.0 on 8 TPU v5 lite (tpu)."; else ""."""
    if not found:
        return ""
    said = {name: " and ".join(values) for name, values in found.items()}
    devices, backend = said.pop("devices", ""), said.pop("backend", "")
    machine, data = said.pop("machine", ""), said.pop("data", "")
    if "revision" in said:
        said["revision"] = said.pop("revision")  # Moves it to the end.
    libraries = ", ".join(f"{name} {version}" for name, version in said.items())
    where = f" on {devices} ({backend})" if devices else ""
    sentences = [f"Made with {libraries}{where}.", f"Machine: {machine}." if machine else ""]
    # Enough digits to compare two; report.json has all.
    if data:
        hashes = " and ".join(value[:12] for value in found["data"])
        sentences.append(f"Data: SHA-256 {hashes}.")
    return " ".join(filter(None, sentences))


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
    """Prints the verdict, a line per model, classes, the bill, the time, warnings and the page."""
    say = functools.partial(display.say, console)
    say("")
    say((report["verdict"]["line"], "bold"))
    for fact in report["verdict"]["facts"]:
        say(f"- {fact['text']}", hang=2)
    say("")
    table, names = (
        display.table("model", "accuracy", "95%", "answers that parse"),
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
        say("")
    if "classes" in report:
        table = _table_of_classes(report["classes"]["classes"])
        console.print(table)
        say("")
    labelled = functools.partial(say, hang=9)
    if "spend" in report:
        queries, usd, tokens_in, tokens_out = (
            f"{row['used']} of {row['cap']}" if row["cap"] else row["used"]
            for row in spend_rows(report["spend"])
        )
        labelled(f"Spent    {queries} queries, {usd}; {tokens_in} tokens in, {tokens_out} out")
        for note in spend_notes(report["spend"]):
            labelled(f"         {note}")
    if chosen := threshold(report):
        labelled(f"Filter   {chosen}")
    if said := trusted(report):
        labelled(f"Trust    {said}")
    if sizes := trained(report):
        labelled(f"Trained  {sizes}")
    if report["seconds"]:
        labelled(f"Time     {time(report['time'])}")
    told = {fact["text"] for fact in report["verdict"]["facts"]}
    notes = data_notes(report["data"]) if "data" in report else []
    for i, note in enumerate(text for text, _ in notes if text not in told):
        labelled(f"{'' if i else 'Data':<9}{note}")
    for warning in report["warnings"]:
        labelled(("Warning", "bold"), f"  {warning}")
    say(f"Report   {report['page']}")


def confusion(row: Json) -> str:
    """Returns the commonest wrong answer to a class's questions, such as "billing (9)"."""
    if not row["confusion"]:
        return ""
    answer, number = row["confusion"]
    return f"{'no answer' if answer is None else shortened(answer, 20)} ({number:,})"


def _table_of_classes(rows: Sequence[Json]) -> Table:
    """Returns the classes as a table of 80 columns; of many, those with the most wrong answers."""
    table = display.table("class", "n", "precision", "recall", "answered", "confused with")
    for column, width in ((0, 20), (-1, 26)):
        table.columns[column].max_width, table.columns[column].justify = width, "left"
        table.columns[column].no_wrap, table.columns[column].overflow = True, "ellipsis"
    worst = sorted(rows, key=lambda row: row["right"] - row["n"])[:MOST_ROWS]
    chosen = rows if len(rows) <= MOST_ROWS else worst
    for row in chosen:
        precision = "" if row["precision"] is None else percent(row["precision"])
        table.add_row(
            display.cell(shortened(row["name"], 20)),
            f"{row['n']:,}",
            precision,
            percent(row["recall"]),
            percent(row["answered"]),
            display.cell(confusion(row)),
        )
    if len(rows) > len(chosen):
        table.add_row(f"and {len(rows) - len(chosen):,} more")
    return table
