"""Practice tasks, made by a program that knows the rationale: no download and no key.

Dosing, deadlines and fees are arithmetic in words. Triage is rules to be known, which labels tell
as well as rationales do. Check digits (samples, filings, invoices) are rules and a procedure, which
rationales tell and labels do not say. All are invented: never use them for a patient, a contract or
an account.
"""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from bridge_jax.data.example import Example, Splits
from bridge_jax.data.practice import checkdigits, deadlines, dosing, fees, triage
from bridge_jax.data.practice.chain import LABEL_OPS, Chain, Excerpt, Problem, draw, excerpts
from bridge_jax.errors import UserError

CHAINS = {"dosing": dosing.CHAINS, "deadlines": deadlines.CHAINS, "fees": fees.CHAINS}
MAX_STEPS = {
    **dict.fromkeys(CHAINS, 5),
    "triage": len(triage.ANSWERS),
    **dict.fromkeys(checkdigits.KINDS, checkdigits.MOST),
}
WORDS = {"dosing": dosing.WORDS, "deadlines": deadlines.WORDS, "fees": fees.WORDS}

# Share of the fees questions that list options. Our choice: few answers can be guessed.
CHOICE_SHARE = 0.3


class _Table(NamedTuple):
    """The chains and codes that questions are drawn from, and the share of labels."""

    chains: Mapping[str, Sequence[Chain]]
    codes: Mapping[str, checkdigits.Code]
    label_share: float


_SKELETONS, _DRAWS = 100, 200


def generate(
    seed: int,
    pool: int,
    dev: int,
    test: int,
    domains: tuple[str, ...],
    min_steps: int,
    max_steps: int,
    families: int = 0,
    label_share: float = 0.4,
) -> Splits:
    """Returns practice examples, uniform over domains and over steps of reasoning.

    The splits are drawn one after the other (test, dev, pool), each from its own stream, so that
    test does not change with the sizes of dev and pool.

    Args:
      seed: same seed, same examples.
      pool: how many examples of the pool.
      dev: of dev.
      test: of test.
      domains: of `MAX_STEPS`.
      min_steps: steps of reasoning at least, 1 or more.
      max_steps: at most, up to 5 (triage: 3, check digits: 12).
      families: kinds of problem per domain of arithmetic, or of item per domain of check digits,
        the first of each list; 0 is all.
      label_share: share of questions with a label as answer, in domains that have such.

    Raises:
      UserError: unknown domain, steps out of range, or sizes beyond what can be told apart.
    """
    unknown = [domain for domain in domains if domain not in MAX_STEPS]
    if unknown or not domains:
        raise UserError(f"data.domains={','.join(domains)}: some of {', '.join(MAX_STEPS)}")
    most = min(MAX_STEPS[domain] for domain in domains)
    if not 1 <= min_steps <= max_steps <= most:
        raise UserError(
            f"data.min_steps={min_steps}, data.max_steps={max_steps}: 1 <= min <= max <= {most} "
            f"for data.domains={','.join(domains)}"
        )
    if 0 < families < max_steps and any(domain in checkdigits.KINDS for domain in domains):
        raise UserError(
            f"data.max_steps={max_steps}, data.families={families}: a question of check digits has "
            "no item twice; raise data.families, or set it to 0, which is all kinds"
        )
    cells = [(name, steps) for name in domains for steps in range(min_steps, max_steps + 1)]
    table = _Table(
        {name: chains[: families or None] for name, chains in CHAINS.items()},
        {name: checkdigits.code(seed, name, families) for name in checkdigits.KINDS},
        label_share,
    )
    for name, steps in cells:
        if name in CHAINS and not excerpts(table.chains[name], steps):
            raise UserError(
                f"data.families={families}: none of these kinds of {name} takes {steps} steps; "
                "raise data.families, or lower data.max_steps"
            )
    seen: set[str] = set()
    splits: dict[str, tuple[Example, ...]] = {}
    for name, size in (("test", test), ("dev", dev), ("pool", pool)):
        splits[name] = _split(random.Random(f"practice-{seed}-{name}"), table, cells, size, seen)
    return Splits(pool=splits["pool"], dev=splits["dev"], test=splits["test"])


def open_ended(splits: Splits, min_rouge: float) -> Splits:
    """Returns the same questions with a sentence as their answer: the explanation in full.

    The teacher's rationale is the shorter explanation, whichever variant is asked for.
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
    rng: random.Random, table: _Table, cells: list[tuple[str, int]], size: int, seen: set[str]
) -> tuple[Example, ...]:
    examples: list[Example] = []
    while len(examples) < size:
        block = rng.sample(cells, len(cells))
        for domain, steps in block[: size - len(examples)]:
            example = _unseen(rng, table, domain, steps, seen)
            seen.add(example.question)
            examples.append(example)
    return tuple(examples)


def _unseen(rng: random.Random, table: _Table, domain: str, steps: int, seen: set[str]) -> Example:
    for _ in range(_SKELETONS):
        skeleton = _skeleton(rng, table, domain, steps)
        # The same skeleton again, so that those with rare friendly numbers are not crowded out.
        for _ in range(_DRAWS):
            problem = skeleton()
            if problem is None:
                continue
            example = _example(rng, f"practice-{domain}-{len(seen):05d}", domain, problem)
            if example is not None and example.question not in seen:
                return example
    raise UserError(
        f"practice tasks: no unseen {domain} question with {steps} steps after {len(seen):,} "
        "examples; lower data.pool, data.dev or data.test"
    )


def _skeleton(
    rng: random.Random, table: _Table, domain: str, steps: int
) -> Callable[[], Problem | None]:
    """Returns what draws questions of one kind, None where the numbers are not friendly."""
    if domain == "triage":
        return functools.partial(triage.draw, rng, steps)
    if domain in table.codes:
        return functools.partial(checkdigits.draw, rng, table.codes[domain], steps)
    excerpt = _excerpt(rng, table.chains[domain], steps, table.label_share)
    return functools.partial(draw, rng, excerpt, WORDS[domain])


def _excerpt(
    rng: random.Random, chains: Sequence[Chain], steps: int, label_share: float
) -> Excerpt:
    """Returns a part of a chain: the kind of answer first, then the chain, then where it starts."""
    found = excerpts(chains, steps)
    label = rng.random() < label_share

    def wanted(excerpt: Excerpt) -> bool:
        return (excerpt.last.op in LABEL_OPS) == label

    group = [excerpt for excerpt in found if wanted(excerpt)] or found
    chain = rng.choice(sorted({excerpt.chain.name for excerpt in group}))
    return rng.choice([excerpt for excerpt in group if excerpt.chain.name == chain])


def _example(rng: random.Random, name: str, domain: str, problem: Problem) -> Example | None:
    example = Example(
        id=name,
        question=problem.question,
        answer=problem.answer,
        kind="label" if problem.labels else "numeric",
        choices=problem.labels,
        domain=domain,
        rationales=problem.rationales,
    )
    if problem.labels or domain != "fees" or rng.random() >= CHOICE_SHARE:
        return example
    options = _options(rng, problem)
    if options is None:
        return None
    listed = "\n".join(f"{letter}) {option}" for letter, option in zip("ABCD", options))
    question = f"{problem.question}\n{listed}"
    return dataclasses.replace(example, question=question, kind="choice", choices=options)


def _options(rng: random.Random, problem: Problem) -> tuple[str, ...] | None:
    """Returns the answer among three plausible errors: a step left out, or a slip."""
    answer = int(problem.answer)
    slips = {answer + 10, answer - 10, answer * 2, answer + 5, answer // 2, answer + 2}
    near = sorted(value for value in slips if value > 0 and value != answer)
    stops = [value for value in problem.values[-3:-1] if value != answer]
    wrong = list(dict.fromkeys([*stops, *rng.sample(near, len(near))]))[:3]
    options = rng.sample([answer, *wrong], len(wrong) + 1)
    return tuple(map(str, options)) if len(options) == 4 else None
