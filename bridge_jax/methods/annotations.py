"""Asks the teacher about the selected examples; every request goes through the ledger."""

import collections
from pathlib import Path
from typing import NotRequired, TypedDict

from bridge_jax.config import API_TEACHERS, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.errors import UserError
from bridge_jax.methods import mending, names
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.teacher import Asking, Count, ask, asking, selected_count
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline.artifacts import Artifact, Measured, record, rows
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import WAY_OUT, Folder


class Annotation(TypedDict):
    """The teacher's rationale and answer for one example, and why they are kept or not."""

    id: str
    question: str
    rationale: str
    answer: str | None
    gold: str
    correct: bool
    kept: bool
    reason: str | None
    asked: int
    agreement: NotRequired[float]


class Bill(TypedDict):
    """The bill of a run (`teachers.caps.bill`), with the price list that it was settled at."""

    queries: int
    input_tokens: int
    output_tokens: int
    usd: float
    prices: dict[str, float]
    no_answer: NotRequired[dict[str, int]]
    unknown: NotRequired[dict[str, float]]
    of_others: NotRequired[dict[str, float]]


class Answered(TypedDict):
    """The keys of the requests that had a reply."""

    keys: list[str]


ANNOTATIONS = Artifact(
    "apprenticeship/annotations",
    "Asking the teacher",
    "ask",
    None,
    (
        rows(mending.ROWS, Annotation),
        record(mending.SPEND, Bill, is_result=False),
        record(mending.ANSWERED, Answered, is_result=False),
    ),
    measured=Measured("teacher", "Teacher", "the model that is paid for"),
)


def annotate(
    params: Asking,
    out: Folder,
    pool: Examples,
    chosen: Folder,
    count: Count,
    workdir: Path,
) -> None:
    """Asks the teacher about the selected examples."""
    if not hosts.is_first():  # One asks; the others read its rows in the next stage.
        return
    examples = selected(chosen, pool)
    with preemption.alone():
        outcomes, spend = ask(params, examples, count, workdir)
    mending.write(params, out, examples, count, outcomes, spend)


def mend(
    params: Asking,
    out: Folder,
    damaged: set[str],
    pool: Examples,
    chosen: Folder,
    count: Count,
    workdir: Path,
) -> bool:
    """Restores damaged annotations from the ledger (`mending.mend`)."""
    return mending.mend(params, out, damaged, selected(chosen, pool), count, workdir)


def selected(chosen: Folder, pool: Examples) -> list[Example]:
    """Returns the selected examples, in the order of the selection.

    Raises:
      UserError: the selection is damaged.
    """
    ids = chosen.record("selection.json").get("ids")
    if not isinstance(ids, list) or not all(key in pool.by_id for key in ids):
        raise UserError(f"{chosen.path}: selection.json is damaged; {WAY_OUT}")
    return [pool.by_id[key] for key in ids]


def bought(annotated: Folder, pool: Examples, labelled: bool) -> list[tuple[Example, str, str]]:
    """Returns example, rationale and answer of what the teacher was paid for and is learned from.

    The answer is the gold one, also after a rationale that `teacher.keep_wrong` let pass; where the
    pool has no labels, it is the teacher's.

    Raises:
      UserError: there is none.
    """
    found, rows = [], annotated.rows(mending.ROWS)
    for row in rows:
        example = pool.by_id[row["id"]]
        answer = example.answer if labelled else row["answer"]
        if row["kept"] and answer is not None:
            found.append((example, row["rationale"], answer))
    if not found:
        reasons = collections.Counter(row["reason"] or "no answer" for row in rows)
        listed = "; ".join(f"{count:,} x {reason}" for reason, count in reasons.most_common(3))
        raise UserError(
            f"there is nothing to learn from the teacher: none of its {len(rows):,} answers is "
            f"kept ({listed}). They are in {annotated.path / mending.ROWS}; they stay paid, and a "
            "looser teacher.keep_wrong or other settings of `teacher` may keep some"
        )
    return found


def annotations(config: RunConfig) -> Stage:
    """Returns the stage that asks the teacher."""
    reads = {
        "pool": names.POOL,
        "chosen": SELECTION.name,
        "count": names.COUNT,
        "workdir": names.WORKDIR,
    }
    said = []  # What is recorded of the teacher: the examples hold it, or a file.
    if config.teacher.kind not in API_TEACHERS:
        said.append(names.RECORDED)
    if config.teacher.replay_from:
        said.append(names.REPLAY)
    load = Load("selected", selected_count(config), samples=config.teacher.samples)
    return Stage(ANNOTATIONS, annotate, asking(config), reads, load, mend, tuple(said))
