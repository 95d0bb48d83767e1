"""Defines the problem that all practice tasks return, and draws kinds of items with a long tail."""

import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

COMMON = 6  # common kinds, which make up half of the items; this and the share below are our choice
RARE_SHARE = 0.5


class Problem(NamedTuple):
    """A question with its answer.

    Attributes:
      question, answer: the texts to ask and to expect.
      labels: the closed set of answers, empty if the answer is a number.
      rationales: variant -> text; the variants are `short`, `medium` and `long`, and shorter ones
        for some tasks. Each text ends in the answer.
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
    """Returns the text with its first letter capitalized and the others unchanged."""
    return text[:1].upper() + text[1:]
