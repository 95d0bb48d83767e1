"""Check digits: each item in a question has a value, and the values are summed modulo 10.

A label is one of ten digits, and depends on every item: it shows neither the values nor the
procedure, which a student can only infer from many labels. A rationale shows both. Kinds of items
have a long tail, so the budget determines how many of them the teacher's answers cover.
"""

import itertools
import random
import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from bridge_jax.data.practice.problem import Problem, different

# Kinds of items, each one token of SmolLM2; the first few are common (`problem.COMMON`).
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
# The values of items; a code uses the first few or all of them. No two of the first four are equal
# modulo 5 or add up to 10, so that a code with few values has no other regularity.
VALUES = (1, 4, 7, 8, 3, 6, 2, 9, 5)
MOST = 12  # items per question

_QUESTION = re.compile(r"Check digit from (\d): (a \w+(?:, a \w+)*)\?")
# A step in a rationale that names its items (short, medium, long): the kind, its value, and the
# digit after the step.
_STEP = re.compile(
    r"(\w+) \d\+(\d)=\d?(\d)\b"
    r"|A (\w+) is (\d): \d\+\d=\d+, so (\d)"
    r"|of a (\w+) is (\d)\. We have \d and add \d, which makes \d+; its last digit is (\d)"
)
# The ways in which a rationale first goes wrong, in the order of reports.
ERRORS = {
    "unknown": "A value that is in no answer of the teacher",
    "forgotten": "A value that is in an answer of the teacher",
    "new_sum": "An addition that is in no answer of the teacher",
    "sum": "An addition that is in an answer of the teacher",
    "answer": "The answer, after right steps",
    "form": "The form: the steps cannot be read",
}


class Code(NamedTuple):
    """The rules by which check digits are computed in one domain.

    Attributes:
      kinds: the kinds of items, the common ones first.
      values: kind -> its value.
    """

    kinds: Sequence[str]
    values: Mapping[str, int]


def code(seed: int, domain: str, families: int = 0, different_values: int = len(VALUES)) -> Code:
    """Returns the code of a domain, in which about equally many kinds have each value.

    Args:
      seed: the seed that determines which kind has which value.
      domain: a key of `KINDS`.
      families: the number of kinds; 0 is all.
      different_values: the number of values, 2 to 9. Questions need ten times as many sums.
    """
    kinds = KINDS[domain][: families or None]
    cycle = itertools.cycle(sorted(VALUES[:different_values]))
    values = list(itertools.islice(cycle, len(kinds)))
    random.Random(f"check digits-{seed}-{domain}").shuffle(values)
    return Code(kinds, dict(zip(kinds, values)))


def draw(rng: random.Random, steps: int, rules: Code) -> Problem:
    """Returns a question about `steps` different kinds of items, 1 to 12.

    The shortest rationale, `digits`, lists the previous digit, the value and the new digit of each
    item. `sums` writes them as sums; the others say the same in more and more words. An item takes
    3, 6, 9, 18 and 31 tokens of SmolLM2, from `digits` to `long`.
    """
    start = digit = rng.randrange(10)
    items = different(rng, rules.kinds, steps)
    digits, sums, short, medium, long = [], [], [], [], []
    for item in items:
        value, before = rules.values[item], digit
        total, digit = before + value, (before + value) % 10
        digits.append(f"{before}{value}{digit}")
        sums.append(f"{before}+{value}={digit}")
        short.append(f"{item} {before}+{value}={total}")
        medium.append(f"A {item} is {value}: {before}+{value}={total}, so {digit}.")
        long.append(
            f"The value of a {item} is {value}. We have {before} and add {value}, which makes "
            f"{total}; its last digit is {digit}."
        )
    named = ", ".join(f"a {item}" for item in items)
    return Problem(
        question=f"Check digit from {start}: {named}?",
        answer=str(digit),
        labels=(),
        rationales={
            "digits": "".join(digits),
            "sums": " ".join(sums),
            "short": f"{'; '.join(short)}, so {digit}.",
            "medium": " ".join(medium),
            "long": " ".join(long),
        },
    )


def facts(question: str, rules: Code) -> set[str]:
    """Returns the facts in an explained answer: each kind (`map`), and each sum (`9+3`).

    Args:
      question: the question; one of another domain or task has no facts.
      rules: the code of a domain.
    """
    found: set[str] = set()
    digit, kinds = _start(question), _items(question)
    for kind in kinds if set(kinds) <= set(rules.kinds) else ():
        value = rules.values[kind]
        found |= {kind, f"{digit}+{value}"}
        digit = (digit + value) % 10
    return found


def _start(question: str) -> int:
    found = _QUESTION.fullmatch(question)
    return int(found[1]) if found else 0


def _items(question: str) -> list[str]:
    found = _QUESTION.fullmatch(question)
    return [named.removeprefix("a ") for named in found[2].split(", ")] if found else []


def error(question: str, written: str, rules: Code, told: Collection[str]) -> str:
    """Returns where a rationale with a wrong answer first goes wrong: a key of `ERRORS`.

    A rationale that does not name the items of the question has an error of `form`.

    Args:
      question: a question from `draw`.
      written: the rationale and its answer.
      rules: the code of the question's domain.
      told: the facts in the teacher's answers (`facts`).
    """
    steps = [[part for part in found if part] for found in _STEP.findall(written)]
    if not steps or [step[0] for step in steps] != _items(question):
        return "form"
    digit = _start(question)
    for kind, value, after in steps:
        if int(value) != rules.values[kind]:
            return "forgotten" if kind in told else "unknown"
        added = f"{digit}+{value}"
        digit = (digit + int(value)) % 10
        if int(after) != digit:
            return "sum" if added in told else "new_sum"
    return "answer"
