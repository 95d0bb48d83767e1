"""How a study says things: differences with their verdict, the bill, the advice."""

from collections.abc import Sequence
from typing import Any

from bridge_jax.report import numbers
from bridge_jax.report.workdir import Row
from bridge_jax.study import advisor


def x(point: Row) -> str:
    """Returns where a point lies on the axis; empty where it does not depend on it."""
    return "" if point["x"] is None else f"{point['x']:g}"


def with_interval(value: Row | None) -> str:
    """Returns such as "48% (42–53)"; empty for None."""
    if value is None:
        return ""
    bounds = f"{100 * value['low']:.0f}–{100 * value['high']:.0f}"
    return f"{numbers.percent(value['mean'])} ({bounds})"


def difference(point: Row) -> str:
    """Returns the difference to the reference in points, such as "+4.1 (−0.2 to +8.0)"."""
    value = point["difference"]
    if value is None:
        return ""
    return f"{_signed(value['mean'])} ({_signed(value['low'])} to {_signed(value['high'])})"


def verdict(value: Row) -> str:
    """Returns what an interval of a difference says."""
    ahead = sum(seed > 0 for seed in value["seeds"].values())
    said = "ahead" if value["low"] > 0 else "behind" if value["high"] < 0 else "no clear difference"
    return f"{said}; better for {ahead} of {numbers.count(len(value['seeds']), 'seed')}"


def findings(result: Row) -> list[str]:
    """Returns a sentence for each variant against the reference, at the largest x that it has."""
    last: dict[str, Row] = {}
    axis = result["axis"]
    for point in result["points"]:
        before = last.get(point["variant"])
        if point["difference"] and (before is None or (point["x"] or 0) >= (before["x"] or 0)):
            last[point["variant"]] = point
    return [
        f"{name}: {difference(point)} points against {result['reference']}, "
        f"{verdict(point['difference'])}"
        f"{f' ({axis}: {x(point)})' * (point['x'] is not None)}."
        for name, point in last.items()
    ]


def bill(result: Row) -> str:
    """Returns what was really paid, and what the runs would have paid alone."""
    paid = result["bill"]
    alone = sum(point["cost"]["usd"] * len(point["seeds"]) for point in result["points"])
    words = (
        f"{numbers.dollars(paid['usd'])} for {numbers.count(paid['queries'], 'query', 'queries')} "
        f"in all; each run alone would have paid, together, {numbers.dollars(alone)}"
    )
    if rest := paid["unsettled"]["queries"]:
        calls = numbers.count(rest, "query", "queries")
        words += (
            f"; besides up to {numbers.dollars(paid['unsettled']['usd'])} for {calls} unsettled"
        )
    return words


def progress(result: Row) -> str:
    """Returns how many runs are done, and which are not."""
    cells = result["cells"]
    if not cells["missing"]:
        return f"all {cells['total']} are done"
    shown = ", ".join(cells["missing"][:4])
    more = f" and {len(cells['missing']) - 4} more" * (len(cells["missing"]) > 4)
    return f"{cells['done']} of {cells['total']} are done; not yet: {shown}{more}"


def failures(result: Row) -> list[str]:
    """Returns a sentence for each failure signature: in how many runs, and at which points."""
    where: dict[str, list[tuple[Row, int]]] = {}
    for point in result["points"]:
        for name, seeds in point["failures"].items():
            where.setdefault(name, []).append((point, len(seeds)))
    runs = result["cells"]["done"]
    return [
        f"{name} in {sum(n for _, n in places)} of {numbers.count(runs, 'run')}: "
        f"{_places(places, result)}."
        for name, places in where.items()
    ]


def advice(result: Row) -> list[str]:
    """Returns what the advisor says of each variant: its check, or why it says nothing."""
    return [f"{name}: {_advice(advice)}" for name, advice in result["advice"].items()]


def answers(result: Row, accuracy: float | None, queries: float | None) -> list[str]:
    """Returns the advisor's answers to a target accuracy and to a target budget, by variant."""
    said = []
    for name, advice in result["advice"].items():
        if accuracy is not None:
            said.append(f"{name}: {_budget(advice, accuracy)}")
        if queries is not None:
            said.append(f"{name}: {_accuracy(advice, queries)}")
    return said


def _advice(advice: Row) -> str:
    if advice["status"] != "fitted":
        return _no_curve(advice)
    held = advice["held_out"]
    if held is None:
        return f"too few budgets ({len(advice['budgets'])}) to check the curve on one held out."
    inside = "inside" if held["inside"] else "outside"
    return (
        f"from the smaller budgets, {numbers.percent(held['predicted'])} was foretold for "
        f"{held['queries']:g} queries (90% {_shares(held)}); measured was "
        f"{numbers.percent(held['measured'])}, {inside} the interval."
    )


def _no_curve(advice: Row) -> str:
    n = len(advice["budgets"])
    if advice["status"] == "few":
        return f"{numbers.count(n, 'budget')} measured, a curve needs {advisor.FEWEST}."
    return (
        f"between {advice['budgets'][0]:g} and {advice['budgets'][-1]:g} queries no gain with the "
        "budget can be told from chance: measure more seeds or larger budgets."
    )


def _budget(advice: Row, accuracy: float) -> str:
    found = advisor.budget_for(advice, accuracy)
    target, most = numbers.percent(accuracy), f"{advice['budgets'][-1]:g}"
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    low = "no bound" if found["low"] is None else f"{found['low']:,.0f}"
    high = "no bound" if found["high"] is None else f"{found['high']:,.0f}"
    bounds = f"(90%: {low} to {high})"
    if found["status"] == "never":
        chance = "" if found["low"] is None else f"; at the best {low} queries might do"
        return f"{target} is not reachable: the curve levels off below it{chance}."
    needed = f"{target} takes about {found['queries']:,.0f} queries {bounds}"
    if found["status"] == "beyond":
        return (
            f"{target} is not reached within what was measured (up to {most} queries); if the "
            f"curve goes on as it does, {needed}."
        )
    return f"{needed}."


def _accuracy(advice: Row, queries: float) -> str:
    found = advisor.accuracy_for(advice, queries)
    if found["status"] in ("few", "flat"):
        return _no_curve(advice)
    beyond = ", beyond what was measured" if found["status"] == "beyond" else ""
    said = f"{numbers.percent(found['accuracy'])} (90%: {_shares(found)})"
    return f"{queries:g} queries buy about {said}{beyond}."


def _shares(found: dict[str, Any]) -> str:
    return numbers.interval([found["low"], found["high"]])


def _places(places: Sequence[tuple[Row, int]], result: Row) -> str:
    """Returns such as "random (9), coverage at 0.1, 1 (4)"; no x where it is at all of them."""
    said = []
    for name in dict.fromkeys(point["variant"] for point, _ in places):
        mine = [(point, count) for point, count in places if point["variant"] == name]
        everywhere = len(mine) == sum(point["variant"] == name for point in result["points"])
        at = "" if everywhere else " at " + ", ".join(x(point) for point, _ in mine)
        said.append(f"{name}{at} ({sum(count for _, count in mine)})")
    return ", ".join(said)


def _signed(share: float) -> str:
    rounded = round(100 * share, 1)
    return "0" if rounded == 0 else f"{'+' if rounded > 0 else '−'}{abs(rounded):.1f}"
