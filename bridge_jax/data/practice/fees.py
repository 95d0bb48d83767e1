"""Fees: each kind of service has a price per piece, and one surcharge.

A label is the sum. It shows neither the price nor the surcharge, but many labels of one kind of
service do, since they lie on a line. So labels teach a good part of this task, and rationales teach
it sooner.
"""

import random
from collections.abc import Mapping
from typing import NamedTuple

from bridge_jax.data.practice.problem import Problem, capital, different

# Each is one token of SmolLM2; the first few are common (`problem.COMMON`).
KINDS = (
    "loan", "card", "transfer", "check", "deposit", "mortgage",
    "bond", "share", "fund", "lease", "policy", "claim",
    "trade", "swap", "parcel", "future", "locker", "report", "quote", "license", "permit", "stamp",
    "note", "draft", "ticket", "credit", "refund", "payment", "pension", "grant",
)  # fmt: skip
PRICES, SURCHARGES, PIECES = range(2, 7), range(1, 6), range(2, 10)
MOST = 4  # services per question


class Fee(NamedTuple):
    """Whole dollars: a price per piece, and a surcharge once."""

    price: int
    surcharge: int


def tariff(seed: int, families: int = 0) -> Mapping[str, Fee]:
    """Returns the fee of each kind of service; at most two kinds have the same fee.

    Args:
      seed: the seed of the fees.
      families: the number of kinds; 0 is all.
    """
    kinds = KINDS[: families or None]
    fees = [Fee(price, surcharge) for price in PRICES for surcharge in SURCHARGES]
    rng = random.Random(f"fees-{seed}")
    drawn = [fee for _ in range(0, len(kinds), len(fees)) for fee in rng.sample(fees, len(fees))]
    return dict(zip(kinds, drawn))


def draw(rng: random.Random, steps: int, rules: Mapping[str, Fee]) -> Problem:
    """Returns a question about `steps` different kinds of services, 1 to 4."""
    total = 0
    asked, short, medium, long = [], [], [], []
    for kind in different(rng, tuple(rules), steps):
        pieces, (price, surcharge) = rng.choice(PIECES), rules[kind]
        product, before = pieces * price, total
        total += product + surcharge
        asked.append(f"{pieces} x {kind}")
        steps_in_short = f"{kind} {price} and {surcharge}, {product + surcharge}"
        steps_in_medium = (
            f"A {kind} is {price} and {surcharge}: {pieces}*{price}={product}, "
            f"{product}+{surcharge}={product + surcharge}."
        )
        steps_in_long = (
            f"Each {kind} costs {price} dollars, and {pieces} of them cost {product}. There is a "
            f"surcharge of {surcharge}, which makes {product + surcharge}."
        )
        if short:
            sum_ = f"{before}+{product + surcharge}={total}"
            steps_in_short += f", {sum_}"
            steps_in_medium += f" {sum_}."
            steps_in_long += f" We had {before} before, which makes {total}."
        short.append(steps_in_short)
        medium.append(steps_in_medium)
        long.append(steps_in_long)
    return Problem(
        question=f"What is the fee of {', '.join(asked)}?",
        answer=str(total),
        labels=(),
        rationales={
            "short": capital("; ".join(short)) + ".",
            "medium": " ".join(medium),
            "long": " ".join(long),
        },
    )
