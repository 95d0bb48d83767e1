"""Check digits: each item that is named has a value, and the last digits of a sum are carried on.

A label is one digit of ten, and depends on every item: it says neither the values nor the
procedure, which a student can only infer from many labels. A rationale tells both. Kinds of items
have a long tail, as real data have: some are in many questions, most in few, so a budget is how
many are told.
"""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge_jax.data.practice.chain import Problem

# Kinds of items, each one token of SmolLM2; the first `COMMON` are the common ones.
KINDS = {
    "samples": (
        "tube", "dish", "slide", "swab", "smear", "culture",
        "panel", "scan", "patch", "gel", "pellet", "powder", "crystal", "drop", "spot", "stain",
        "tablet", "capsule", "biopsy", "serum", "plug", "clip", "rack", "lens", "sponge", "cloth",
        "leaf", "seed", "root", "stem", "hair", "nail", "bone", "tooth", "feather", "scale",
        "shell", "flask", "clot", "lid", "bead", "thread",
    ),
    "filings": (
        "map", "copy", "letter", "photo", "will", "deed",
        "lease", "bond", "note", "list", "plan", "chart", "report", "record", "form", "card",
        "book", "tape", "video", "bill", "sketch", "page", "claim", "title", "license", "permit",
        "contract", "notice", "motion", "brief", "petition", "receipt", "draft", "memo", "check",
        "stamp", "seal", "badge", "diary", "ticket", "visa", "warrant",
    ),
    "invoices": (
        "pen", "desk", "chair", "lamp", "phone", "cable",
        "screen", "printer", "key", "lock", "door", "box", "bag", "clock", "shelf", "mirror",
        "brush", "hammer", "ladder", "pump", "pipe", "valve", "wheel", "motor", "battery",
        "camera", "radio", "knife", "fork", "plate", "kettle", "towel", "sheet", "pillow", "rug",
        "curtain", "bench", "stool", "drawer", "fence", "saw", "heater",
    ),
}  # fmt: skip
COMMON, RARE_SHARE = 6, 0.5
VALUES = (2, 3, 4, 5, 6)
MOST = 12  # items of a question


class Code(NamedTuple):
    """How check digits are computed in one domain.

    Attributes:
      kinds: of items, the common ones first.
      values: of each kind.
    """

    kinds: Sequence[str]
    values: Mapping[str, int]


def code(seed: int, domain: str, families: int = 0) -> Code:
    """Returns the code of a domain; about as many kinds have each value.

    Args:
      seed: the values are drawn from it.
      domain: of `KINDS`.
      families: how many kinds there are; 0 is all.
    """
    kinds = KINDS[domain][: families or None]
    values = [VALUES[i % len(VALUES)] for i in range(len(kinds))]
    random.Random(f"check digits-{seed}-{domain}").shuffle(values)
    return Code(kinds, dict(zip(kinds, values)))


def draw(rng: random.Random, of: Code, steps: int) -> Problem:
    """Returns a question about `steps` different kinds of items, 1 to 12."""
    start = digit = rng.randrange(10)
    items: list[str] = []
    while len(items) < steps:
        common, rare = of.kinds[:COMMON], of.kinds[COMMON:]
        item = rng.choice(rare if rare and rng.random() < RARE_SHARE else common)
        if item not in items:
            items.append(item)
    short, medium, long, digits = [], [], [], [start]
    for item in items:
        value, before = of.values[item], digit
        total, digit = before + value, (before + value) % 10
        short.append(f"{item} {value}, {digit}")
        medium.append(f"A {item} is {value}: {before}+{value}={total}, so {digit}.")
        long.append(
            f"The value of a {item} is {value}. We have {before} and add {value}, which makes "
            f"{total}; its last digit is {digit}."
        )
        digits.append(digit)
    named = ", ".join(f"a {item}" for item in items)
    return Problem(
        question=f"Check digit from {start}: {named}?",
        answer=str(digit),
        labels=(),
        rationales={
            "short": "; ".join(short) + ".",
            "medium": " ".join(medium),
            "long": " ".join(long),
        },
        values=tuple(digits),
    )
