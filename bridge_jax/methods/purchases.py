"""Selects in parts: what an assistant has learned so far decides what the teacher is asked next.

The strategy chooses the first part. For each further one an assistant is trained on the answers so
far, and drafts rationales for questions of the pool. A draft shows what its answer would be made
of: next are asked the questions whose drafts say most that no answer has said yet. Where the pool
has labels, a right draft has little to be asked about, so wrong ones come first.

Each part asks about its own questions and the earlier ones, whose answers are on the ledger. The
last part is the selection of the run, and its answers are the annotations.
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

    return Part(*map(in_part, (SELECTION, ANNOTATIONS, rationales.ASSISTANT, DRAFTS)))


PARTS = tuple(_part(number) for number in range(1, MOST_PARTS))
ALL = tuple(artifact for part in PARTS for artifact in part)  # In the order of reports.


@dataclasses.dataclass(frozen=True)
class Drafting(Writing):
    """Parameters of the drafts; `count` questions are drawn by `draw`."""

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
    """Drafts rationales for questions that are not asked yet, with the assistant of stage `by`."""
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
    """Parameters of a further part.

    Attributes:
      count: examples that it adds.
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
    """Adds the examples to a selection whose drafts say most that no answer has said yet."""
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


def selection_stages(config: RunConfig, scored: bool = True) -> list[Stage]:
    """Returns the stages of the first part's selection, or of the whole one if there is no other.

    Args:
      scored: whether there is an assistant to score the pool.
    """
    into = SELECTION if config.selection.parts == 1 else PARTS[0].selection
    return apprenticeship.selection_stages(config, scored, into, counts(config)[0])


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages from the first part's selection to the teacher's answers to all parts."""
    plan: list[Stage] = []
    sizes = counts(config)
    for number, (part, new, following) in enumerate(zip(PARTS, sizes, sizes[1:])):
        last = number + 2 == len(sizes)
        into = SELECTION if last else PARTS[number + 1].selection
        so_far = sum(sizes[: number + 1])
        draw = zlib.crc32(f"{part.drafts.name} {config.seed}".encode())
        drafts = config.selection.drafts * following
        drafting = Drafting(config.generation, "reason", config.seed, drafts, draw)
        from_part = {"chosen": part.selection.name}
        plan += [
            annotations_stage(config, part.selection, part.annotations, new),
            rationales.assistant_stage(
                config, ("reason",), part.assistant, part.annotations, so_far
            ),
            Stage(
                part.drafts,
                draft,
                drafting,
                inputs.POOL_TO_ASSISTANT | from_part | {"by": part.assistant.name},
                Workload("pool", drafts),
            ),
            Stage(
                into,
                choose_next,
                ChoosingNext(following, config.data.labelled),
                {"pool": inputs.POOL, "reading": inputs.TO_ASSISTANT}
                | from_part
                | {"annotated": part.annotations.name, "drafted": part.drafts.name},
            ),
        ]
    return [*plan, annotations_stage(config, SELECTION, new=sizes[-1])]
