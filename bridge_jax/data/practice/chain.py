"""Word problems as chains of links, each one sentence of arithmetic.

A domain is a table of chains. A problem is an excerpt of a chain: the value it starts from is told,
each link tells one more fact, and the last link asks. An excerpt of k links takes k steps, so the
number of steps is the difficulty. The program that makes a problem thereby knows its rationale.
"""

import dataclasses
import random
from collections.abc import Mapping, Sequence

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LABEL_OPS = ("limit", "weekday")

# A question with one of these points back at what was told, so it cannot come first.
POINTING = ("that", "then", "it", "each", "one", "still", "more", "reduced", "remain")


@dataclasses.dataclass(frozen=True)
class Link:
    """One step of reasoning, with its texts. `{n}` is the operand, `{v}` the value so far.

    Attributes:
      result: name, op, operands, unit. The name is the subject of a sentence; a unit may be empty.
        The op is `x`, `/`, `+`, `-`, `%` (n percent of v); `n-`, `n/` (n minus or over v); `prev+`,
        `prev-` (with the value before v); `week` (rest after whole weeks); or an op with a label as
        its result: `limit` (labels[0] if v is not passed by n, else labels[1]) and `weekday`. The
        operands are those that n is drawn from; for `limit`, n - v.
      facts: ways to tell n; empty if n is common knowledge.
      reason: why, as a clause without a verb after it.
      asks: ways to ask for the result.
      givens: ways to tell the result, for excerpts that start after this link.
      labels: for `limit`.
      top: the result at most; for `limit`, n.
    """

    result: tuple[str, str, Sequence[int], str]
    facts: tuple[str, ...]
    reason: str
    asks: tuple[str, ...]
    givens: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    top: int = 1000

    @property
    def name(self) -> str:
        """The result's name."""
        return self.result[0]

    @property
    def op(self) -> str:
        """The operation."""
        return self.result[1]

    @property
    def unit(self) -> str:
        """The result's unit."""
        return self.result[3]


@dataclasses.dataclass(frozen=True)
class Chain:
    """Stages that follow from one another.

    Attributes:
      name: of the chain, unique within its domain.
      start: name, unit, values of the quantity to start from.
      givens: ways to tell it.
      links: in order; only the last may have a label as its result.
    """

    name: str
    start: tuple[str, str, Sequence[int]]
    givens: tuple[str, ...]
    links: tuple[Link, ...]


@dataclasses.dataclass(frozen=True)
class Excerpt:
    """The links `first` to `first + steps` of a chain: one skeleton of a question."""

    chain: Chain
    first: int
    steps: int

    @property
    def last(self) -> Link:
        """The link that asks."""
        return self.chain.links[self.first + self.steps - 1]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A question with its answer, its rationales by length, and the values on the way.

    `labels` is the closed set of answers, empty if the answer is a number.
    """

    question: str
    answer: str
    labels: tuple[str, ...]
    rationales: Mapping[str, str]
    values: tuple[int, ...]


def excerpts(chains: Sequence[Chain], steps: int) -> list[Excerpt]:
    """Returns every excerpt of `steps` links that can be told."""
    found = []
    for chain in chains:
        for first in range(len(chain.links) - steps + 1):
            told = chain.givens if first == 0 else chain.links[first - 1].givens
            if told and not chain.links[first].op.startswith("prev"):
                found.append(Excerpt(chain, first, steps))
    return found


def draw(
    rng: random.Random, excerpt: Excerpt, words: Mapping[str, Sequence[str]]
) -> Problem | None:
    """Returns a problem, or None if the numbers drawn are not friendly.

    Args:
      rng: the source of numbers and wording.
      excerpt: the skeleton.
      words: names to fill in, by placeholder.
    """
    chain, first = excerpt.chain, excerpt.first
    filled = {key: rng.choice(list(values)) for key, values in words.items()}
    value = _draw_start(rng, chain, first)
    if value is None:
        return None
    if first == 0:
        name, unit, givens = chain.start[0], chain.start[1], chain.givens
    else:
        before = chain.links[first - 1]
        name, unit, givens = before.name, before.unit, before.givens
    told = [capital(rng.choice(givens).format(n=value, **filled))]
    values, short, medium, long = [value], [], [], []
    goal = f" and look for {excerpt.last.name}"
    long.append(f"We start from {name}, {_with_unit(value, unit)},{goal}.")
    result: int | str = value
    for link in chain.links[first : first + excerpt.steps]:
        taken = _take(rng, link, values)
        if taken is None:
            return None
        operand, equation, result = taken
        fill = {"n": operand, "v": values[-1], **filled}
        if link.facts:
            told.append(capital(rng.choice(link.facts).format(**fill)))
        short.append(f"{equation}, {result}." if link.op == "limit" else f"{equation}.")
        sentence = _sentence(link, equation, result)
        medium.append(capital(sentence) + ".")
        long.append(f"{capital(link.reason.format(**fill))}, so {sentence}.")
        if isinstance(result, int):
            values.append(result)
    ask = rng.choice(excerpt.last.asks).format(**filled)
    told_first = rng.random() < 0.75 or any(word in POINTING for word in ask.strip("?").split())
    labels = excerpt.last.labels or (WEEKDAYS if excerpt.last.op == "weekday" else ())
    texts = {"short": short, "medium": medium, "long": long}
    return Problem(
        question=" ".join([*told, ask] if told_first else [ask, *told]),
        answer=str(result),
        labels=labels,
        rationales={length: " ".join(parts).format(**filled) for length, parts in texts.items()},
        values=tuple(values),
    )


def _draw_start(rng: random.Random, chain: Chain, first: int) -> int | None:
    """Returns the first value; for a later excerpt, what the links before it lead to."""
    values = [rng.choice(chain.start[2])]
    for link in chain.links[:first]:
        taken = _take(rng, link, values)
        if taken is None:
            return None
        assert isinstance(taken[2], int)
        values.append(taken[2])
    return values[-1]


def _take(
    rng: random.Random, link: Link, values: Sequence[int]
) -> tuple[int | str, str, int | str] | None:
    """Returns (operand, equation, result) of a link, or None if it is not friendly."""
    value = values[-1]
    if link.op == "weekday":
        if not 1 < value < 7:
            return None
        day = rng.randrange(7)
        result = WEEKDAYS[(day + value) % 7]
        return WEEKDAYS[day], f"{value} days after {WEEKDAYS[day]} is {result}", result
    if link.op == "week":
        rest = value % 7
        return (7, f"{value} - {value - rest} = {rest}", rest) if rest > 1 and value > 7 else None
    operand = rng.choice(link.result[2])
    if link.op == "limit":
        operand += value
        sign = ">" if operand > value else "=" if operand == value else "<"
        passed = operand > value
        equation = f"{operand} {sign} {value}"
        return (operand, equation, link.labels[passed]) if 1 < operand <= link.top else None
    if link.op.startswith("prev") and len(values) < 2:
        return None
    left, sign, right = _operands(link.op, value, operand, values)
    if sign == "/" and left % right:
        return None
    result = {
        "x": left * right,
        "+": left + right,
        "-": left - right,
        "/": left // right,
        "%": left * right // 100,
    }[sign]
    if not 1 < result <= link.top or result in values or not _friendly(left, sign, right, result):
        return None
    equation = f"{left}% of {right}" if sign == "%" else f"{left} {sign} {right}"
    return operand, f"{equation} = {result}", result


def _operands(op: str, value: int, operand: int, values: Sequence[int]) -> tuple[int, str, int]:
    match op:
        case "n-" | "n/":
            return operand, op[1], value
        case "prev+" | "prev-":
            return values[-2], op[-1], value
        case "%":
            return operand, "%", value
    return value, op, operand


def _friendly(left: int, sign: str, right: int, result: int) -> bool:
    """Whether a child knows it by heart, or nearly."""
    if sign == "%":
        return left * right % 100 == 0 and right % 100 == 0
    if sign in "+-":
        return max(left, right) < 100 or left % 10 == 0 or right % 10 == 0
    factors = sorted((left, right) if sign == "x" else (right, result))
    table = factors[1] <= 12 or factors[1] % 10 == 0
    return factors[0] > 1 and (
        (factors[0] <= 12 and table)
        or (factors[0] <= 4 and factors[1] <= 25)
        or all(factor % 10 == 0 for factor in factors)
    )


def _sentence(link: Link, equation: str, result: int | str) -> str:
    if link.op == "limit":
        left, sign, right = equation.split()
        relation = {">": "is more than", "=": "equals", "<": "is less than"}[sign]
        return f"{left} {relation} {right} and {link.name} is {result}"
    if link.op == "weekday":
        return f"{link.name} is {result}, as {equation}"
    return f"{link.name} is {_with_unit(equation, link.unit)}"


def _with_unit(value: int | str, unit: str) -> str:
    return f"{value} {unit}".rstrip()


def capital(text: str) -> str:
    """Returns the text with its first letter a capital, the others as they are."""
    return text[:1].upper() + text[1:]
