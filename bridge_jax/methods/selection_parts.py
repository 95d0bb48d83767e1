"""Selects in parts: an assistant's drafts decide which questions the teacher is asked next.

The strategy chooses the first part. Before each later part, the assistant is trained further on all
the answers so far, and drafts rationales for other questions of the pool. A draft approximates the
teacher's answer. The next part takes the questions whose drafts have the most n-grams that occur in
no kept answer. Where the pool has labels, questions with wrong drafts come first, since the others
gain less from an answer.

Each part asks about its own questions and those of earlier parts, whose answers are on the ledger.
The selection of the last part is the selection of the run, and its answers are the annotations. The
assistant that learns these does not continue the assistants of the parts: it starts where it would
without parts. A request without a reply is sent again by each later part. Only the last part
retries.
"""

import dataclasses
import zlib
from typing import NamedTuple

import numpy as np

from bridge_jax.config import MOST_PARTS, RunConfig
from bridge_jax.data.answers import is_correct
from bridge_jax.methods import apprenticeship, inputs, rationales
from bridge_jax.methods.annotations import ANNOTATIONS, annotations_stage, selected
from bridge_jax.methods.apprenticeship import SELECTION
from bridge_jax.methods.filtering import COMPLETED
from bridge_jax.methods.inputs import Examples
from bridge_jax.methods.rationales import Writing, write_rationales
from bridge_jax.methods.teacher import selected_count
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage, Workload
from bridge_jax.pipeline.storage import Folder
from bridge_jax.selection.novelty import most_novel
from bridge_jax.text.rendering import Rendering

DRAFTS = Artifact("apprenticeship/drafts", "Drafting", "generate", "assistant", (COMPLETED,))


class Part(NamedTuple):
    """Names the stages of a part that is not the last."""

    selection: Artifact
    annotations: Artifact
    assistant: Artifact
    drafts: Artifact


def _part(number: int) -> Part:
    def in_part(artifact: Artifact) -> Artifact:
        return dataclasses.replace(
            artifact,
            name=f"{artifact.name}_part_{number}",
            title=f"{artifact.title}, part {number}",
            is_last=False,
            measured=None,
        )

    return Part(
        in_part(SELECTION), in_part(ANNOTATIONS), in_part(rationales.ASSISTANT), in_part(DRAFTS)
    )


PARTS = tuple(_part(number) for number in range(1, MOST_PARTS))
ALL = tuple(artifact for part in PARTS for artifact in part)  # In the order of reports.
ANNOTATED = (*(part.annotations for part in PARTS), ANNOTATIONS)
LEAST_PART = 3  # The fewest examples of a part. Our default.


@dataclasses.dataclass(frozen=True)
class Drafting(Writing):
    """Parameters of the drafts: `count` questions, drawn at random with the seed `draw`."""

    count: int
    draw: int


def draft(
    params: Drafting,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    by: Folder,
    chosen: Folder,
) -> None:
    """Drafts rationales for questions not asked yet, with the assistant that `by` trained."""
    taken = {example.id for example in selected(chosen, pool)}
    taken.update(chosen.record("selection.json")["set_aside"])
    left = [i for i, example in enumerate(pool) if example.id not in taken]
    order = np.random.default_rng(params.draw).permutation(len(left))[: params.count]
    drawn = sorted(left[i] for i in order)
    asked = reading.prompts(pool, pool.digest, params.mode)
    examples, prompts = [pool[i] for i in drawn], [asked[i] for i in drawn]
    write_rationales(params, out, "drafts", examples, prompts, assistant.load(by))


@dataclasses.dataclass(frozen=True)
class ChoosingNext:
    """Parameters of a later part.

    Attributes:
      count: number of examples that it adds.
      labelled: whether the gold labels of the pool are known.
    """

    count: int
    labelled: bool


def choose_next(
    params: ChoosingNext,
    out: Folder,
    pool: Examples,
    reading: Rendering,
    chosen: Folder,
    annotated: Folder,
    drafted: Folder,
) -> None:
    """Adds to a selection the examples whose drafts have the most n-grams in no kept answer."""
    encode, before = reading.tokenizer.encode, chosen.record("selection.json")
    known = [encode(row["rationale"]) for row in annotated.rows("annotations.jsonl") if row["kept"]]
    wrong: list[tuple[str, list[int]]] = []
    right: list[tuple[str, list[int]]] = []
    for row in drafted.rows("completions.jsonl"):
        example = pool.by_id[row["id"]]
        is_right = params.labelled and is_correct(row["answer"], example)
        drafts = right if is_right else wrong
        drafts.append((example.id, encode(row["rationale"])))
    added: list[str] = []
    for drafts in (wrong, right):
        texts = [text for _, text in drafts]
        for index in most_novel(texts, known, params.count - len(added)):
            added.append(drafts[index][0])
            known.append(texts[index])
    ids = [*before["ids"], *added]
    out.write_record("selection.json", before | {"ids": ids, "size": len(ids)})


def counts(config: RunConfig) -> list[int]:
    """Returns the number of examples of each part, as equal as possible, larger ones first."""
    whole, rest = divmod(selected_count(config), config.selection.parts)
    return [whole + (part < rest) for part in range(config.selection.parts)]


def selection_stages(config: RunConfig) -> list[Stage]:
    """Returns the stages that select the first part, or all if there is only one part."""
    into = SELECTION if config.selection.parts == 1 else PARTS[0].selection
    return apprenticeship.selection_stages(config, into, counts(config)[0])


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages after the first part's selection, up to the answers to all parts."""
    plan: list[Stage] = []
    sizes = counts(config)
    for number in range(len(sizes) - 1):
        plan += _stages_of(number, config, sizes)
    return [*plan, annotations_stage(config, SELECTION, new=sizes[-1])]


def _stages_of(number: int, config: RunConfig, sizes: list[int]) -> list[Stage]:
    """Returns the stages after a part's selection, up to and including the next selection.

    Args:
      number: the index of the part, from 0.
      config: the config of the run.
      sizes: the number of examples of each part.
    """
    part, following = PARTS[number], sizes[number + 1]
    continued = PARTS[number - 1].assistant if number else None
    is_next_last = number + 2 == len(sizes)
    into = SELECTION if is_next_last else PARTS[number + 1].selection
    draft_count = config.selection.drafts * following
    draw = zlib.crc32(f"{part.drafts.name} {config.seed}".encode())
    drafting = Drafting(config.generation, "reason", config.seed, draft_count, draw)
    chosen = {"chosen": part.selection.name}
    to_draft = inputs.POOL_TO_ASSISTANT | chosen | {"by": part.assistant.name}
    to_choose = {"pool": inputs.POOL, "reading": inputs.TO_ASSISTANT} | chosen
    to_choose |= {"annotated": part.annotations.name, "drafted": part.drafts.name}
    choosing = ChoosingNext(following, config.data.labelled)
    return [
        annotations_stage(config, part.selection, part.annotations, sizes[number]),
        rationales.assistant_stage(
            config,
            ("reason",),
            part.assistant,
            part.annotations,
            sum(sizes[: number + 1]),
            continued,
        ),
        Stage(part.drafts, draft, drafting, to_draft, Workload("pool", draft_count)),
        Stage(into, choose_next, choosing, to_choose),
    ]
