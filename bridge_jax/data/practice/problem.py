"""Defines what all practice tasks return, and draws kinds of items with a long tail."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COMMON = 6  # kinds, of which half of the items are; our choice, as the share of the others
RARE_SHARE = 0.5


class Problem(NamedTuple):
    """A question with its answer.

    Attributes:
      question, answer: as they are asked and wanted.
      labels: the closed set of answers, empty if the answer is a number.
      rationales: `short`, `medium` and `long`, and shorter ones of some tasks; each ends in the
        answer.
    """

    question: str
    answer: str
    labels: tuple[str, ...]
    rationales: Mapping[str, str]


def different(rng: random.Random, kinds: Sequence[str], count: int) -> list[str]:
    """Draws `count` different kinds: a few are common, most are rare, as in real data.

    Args:
      rng: the source of randomness.
      kinds: the first `COMMON` are the common ones; each draw is one of the others with
        probability `RARE_SHARE`.
      count: at most as many as there are kinds.
    """
    common, rare = kinds[:COMMON], kinds[COMMON:]
    found: list[str] = []
    while len(found) < count:
        kind = rng.choice(rare if rare and rng.random() < RARE_SHARE else common)
        if kind not in found:
            found.append(kind)
    return found


def capital(text: str) -> str:
    """Returns the text with its first letter a capital, the others as they are."""
    return text[:1].upper() + text[1:]
