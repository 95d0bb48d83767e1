"""Counts the data that a run uses, leaves out and cuts, for the report."""

from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from bridge_jax.config import RunConfig
from bridge_jax.evaluation import metrics
from bridge_jax.methods.checks import roles
from bridge_jax.methods.inputs import DEV, INSTRUCTIONS, POOL, TEST, Inputs
from bridge_jax.pipeline.artifacts import Role
from bridge_jax.pipeline.content import of_value
from bridge_jax.pipeline.stages import Stage

FILE = "data.json"  # in the workdir


class DataFacts(TypedDict):
    """Facts about the data of a run.

    Attributes:
      sha256: the hash of all splits, including the recorded rationales.
      splits: name -> the number of examples `used`, and the number available (`there`).
      domains: domain -> the number of examples of the pool; "" counts those without a domain.
      rows: rows of the source, good and bad; 0 for practice tasks, which have none.
      bad: fault -> the number of rows that were skipped because of it.
      replaced: the number of rows in which U+FFFD replaces an invalid character.
      cut: role -> how many of its prompts, on all splits that the run reads, were `cut`, `of` how
        many.
      instructions_left_out: the number of instructions that were longer than a row, or bad.
      commonest: the commonest gold answer of the pool, its count, and the number of examples with a
        gold answer; None if there are none.
    """

    sha256: str
    splits: dict[str, dict[str, int]]
    domains: dict[str, int]
    rows: int
    bad: dict[str, int]
    replaced: int
    cut: dict[str, dict[str, int]]
    instructions_left_out: int
    commonest: tuple[str, int, int] | None


def collect(config: RunConfig, stages: Sequence[Stage], inputs: Inputs) -> DataFacts:
    """Returns the facts about a run's data, which has been checked before."""
    splits = inputs.splits
    sizes = {name: len(getattr(splits, name)) for name in ("pool", "dev", "test")}
    known = [example.answer for example in splits.pool if example.answer]
    common = metrics.commonest(known)
    reads_instructions = any(INSTRUCTIONS in stage.reads.values() for stage in stages)
    drawn = inputs.instructions if reads_instructions else None
    return DataFacts(
        sha256=of_value(inputs.digests),
        splits={
            name: {"used": used, "there": splits.cut.get(name, used)}
            for name, used in sizes.items()
        },
        domains=dict(sorted(Counter(example.domain for example in splits.pool).items())),
        rows=splits.bad.total,
        bad=dict(splits.bad.kinds.most_common()),
        replaced=splits.replaced,
        cut={
            role: {"cut": cut, "of": total}
            for role, (cut, total) in cut_prompts(stages, inputs).items()
        },
        instructions_left_out=drawn.left_out + drawn.skipped if drawn else 0,
        commonest=(*common, len(known)) if common else None,
    )


def cut_prompts(stages: Sequence[Stage], inputs: Inputs) -> dict[Role, tuple[int, int]]:
    """Returns role -> (number of questions cut to fit its prompts, number of all questions)."""
    read = {name for stage in stages for name in stage.reads.values()}
    splits = {POOL: inputs.pool, DEV: inputs.dev, TEST: inputs.test}
    asked = [splits[name] for name in splits if name in read]
    found: dict[Role, tuple[int, int]] = {}
    for role in roles(stages):
        reading = inputs.rendering(role)
        cut = [reading.prompts(part, part.digest, "reason").cut for part in asked]
        found[role] = sum(cut), sum(map(len, asked))
    return found
