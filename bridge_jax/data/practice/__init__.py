"""Generates practice tasks with answers and rationales, without a download or a key.

They differ in how much a student can learn from labels alone: everything of triage, a table of
rules; much of fees, which are sums; little of check digits (samples, filings, invoices), which
combine rules and a procedure. All are invented: never use them for a patient, a court or an
account.
"""

import dataclasses
import functools
import random
from collections.abc import Callable

from bridge_jax.data.example import Example, Splits
from bridge_jax.data.practice import checkdigits, fees, triage
from bridge_jax.data.practice.problem import Problem
from bridge_jax.errors import UserError

MAX_STEPS = {
    "triage": len(triage.ANSWERS),
    "fees": fees.MOST,
    **dict.fromkeys(checkdigits.KINDS, checkdigits.MOST),
}
_DRAWS = 2000  # draws after which no unseen question is assumed to be left

_Draw = Callable[[random.Random, int], Problem]


def generate(
    seed: int,
    pool: int,
    dev: int,
    test: int,
    domains: tuple[str, ...],
    min_steps: int,
    max_steps: int,
    families: int = 0,
    different_values: int = len(checkdigits.VALUES),
) -> Splits:
    """Returns practice examples, uniform over domains and over steps of reasoning.

    The splits are drawn one after the other (test, dev, pool), each from its own random stream, so
    that test does not change with the sizes of dev and pool. No question is in two of them.

    Args:
      seed: same seed, same examples.
      pool: the number of examples in the pool.
      dev: the number in dev.
      test: the number in test.
      domains: keys of `MAX_STEPS`.
      min_steps: the minimum number of reasoning steps, at least 1.
      max_steps: the maximum number, up to the limit of each domain in `MAX_STEPS`.
      families: the number of kinds of items or services per domain, the first of each list; 0 is
        all. Triage always has all.
      different_values: the number of values of items in check digits (`checkdigits.code`).

    Raises:
      UserError: a domain is unknown, steps or `families` are out of range, or there are too few
        different questions.
    """
    unknown = [domain for domain in domains if domain not in MAX_STEPS]
    if unknown or not domains:
        raise UserError(f"data.domains={','.join(domains)}: choose from {', '.join(MAX_STEPS)}")
    most = min(MAX_STEPS[domain] for domain in domains)
    if not 1 <= min_steps <= max_steps <= most:
        raise UserError(
            f"data.min_steps={min_steps}, data.max_steps={max_steps}: 1 <= min <= max <= {most} "
            f"for data.domains={','.join(domains)}"
        )
    if 0 < families < max_steps and set(domains) != {"triage"}:
        raise UserError(
            f"data.max_steps={max_steps}, data.families={families}: no question names a kind of "
            "item twice; raise data.families, or set it to 0 for all kinds"
        )
    draws: dict[str, _Draw] = {
        "triage": triage.draw,
        "fees": functools.partial(fees.draw, rules=fees.tariff(seed, families)),
        **{
            name: functools.partial(
                checkdigits.draw, rules=checkdigits.code(seed, name, families, different_values)
            )
            for name in checkdigits.KINDS
        },
    }
    cells = [(name, steps) for name in domains for steps in range(min_steps, max_steps + 1)]
    seen: set[str] = set()
    splits: dict[str, tuple[Example, ...]] = {}
    for name, size in (("test", test), ("dev", dev), ("pool", pool)):
        splits[name] = _split(random.Random(f"practice-{seed}-{name}"), draws, cells, size, seen)
    return Splits(pool=splits["pool"], dev=splits["dev"], test=splits["test"])


def open_ended(splits: Splits, min_rouge: float) -> Splits:
    """Returns the same questions with a free text as the answer: the explanation in full.

    The teacher's rationale is the shorter explanation, for every variant.
    """

    def changed(example: Example) -> Example:
        short, full = example.rationales["short"], example.rationales["medium"]
        return dataclasses.replace(
            example,
            answer=full,
            kind="text",
            choices=(),
            rationales=dict.fromkeys(example.rationales, short),
            min_rouge=min_rouge,
        )

    pool, dev, test = (
        tuple(changed(example) for example in part)
        for part in (splits.pool, splits.dev, splits.test)
    )
    return Splits(pool, dev, test)


def _split(
    rng: random.Random,
    draws: dict[str, _Draw],
    cells: list[tuple[str, int]],
    size: int,
    seen: set[str],
) -> tuple[Example, ...]:
    examples: list[Example] = []
    while len(examples) < size:
        block = rng.sample(cells, len(cells))
        for domain, steps in block[: size - len(examples)]:
            problem = _unseen(rng, draws[domain], domain, steps, seen)
            examples.append(
                Example(
                    id=f"practice-{domain}-{len(seen):05d}",
                    question=problem.question,
                    answer=problem.answer,
                    kind="label" if problem.labels else "numeric",
                    choices=problem.labels,
                    domain=domain,
                    rationales=problem.rationales,
                )
            )
            seen.add(problem.question)
    return tuple(examples)


def _unseen(rng: random.Random, draw: _Draw, domain: str, steps: int, seen: set[str]) -> Problem:
    for _ in range(_DRAWS):
        problem = draw(rng, steps)
        if problem.question not in seen:
            return problem
    raise UserError(
        f"practice tasks: no unseen {domain} question with {steps} steps after {len(seen):,} "
        "examples; lower data.pool, data.dev or data.test"
    )
