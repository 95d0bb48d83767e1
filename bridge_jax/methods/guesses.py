"""Writes the assistant's own answers, which stand in for labels where the pool has none."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypedDict

from bridge_jax.config import GenerationConfig, RunConfig
from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion
from bridge_jax.methods import names
from bridge_jax.methods.completions import write_completions
from bridge_jax.pipeline.artifacts import Artifact
from bridge_jax.pipeline.examples import Examples
from bridge_jax.pipeline.load import Load
from bridge_jax.pipeline.models import RoleModel
from bridge_jax.pipeline.stages import Stage
from bridge_jax.pipeline.storage import Folder
from bridge_jax.text import prompts
from bridge_jax.text.rendering import Rendering

FILE = "guesses.jsonl"
TOKENS = 16  # Of an answer, at most; what is longer is scored as far as it goes.


class Guess(TypedDict):
    """The tokens of an answer, its end token included."""

    id: str
    ids: list[int]


@dataclasses.dataclass(frozen=True)
class Guessing:
    """Parameters of the guesses: how answers are written."""

    generation: GenerationConfig


def write(
    params: Guessing,
    out: Folder,
    pool: Examples,
    assistant: RoleModel,
    reading: Rendering,
    warmed: Folder,
) -> None:
    """Writes the most probable answer of the warmed assistant to every question."""
    asked = reading.prompts(pool, pool.digest, "answer")
    model = assistant.load(warmed)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        end = [] if completion.end is None else [completion.end]
        return {"id": example.id, "ids": [*completion.ids, *end]}

    engine = model.engine(params.generation, seed=0)  # It is greedy.
    write_completions(out, FILE, "guesses", engine, pool, asked, to_row)


def stage(config: RunConfig, artifact: Artifact, warmup: Artifact) -> Stage:
    """Returns the stage; `artifact` is its row, `warmup` that of the assistant's warm-up."""
    generation = GenerationConfig(TOKENS, config.generation.batch_size, temperature=0.0)
    return Stage(
        artifact,
        write,
        Guessing(generation),
        {
            "pool": names.POOL,
            "assistant": names.ASSISTANT,
            "reading": names.TO_ASSISTANT,
            "warmed": warmup.name,
        },
        Load("pool", text="answer", modes=("answer",)),
    )


def to_score(
    pool: Examples, reading: Rendering, guessed: Folder | None
) -> Sequence[prompts.Sequence]:
    """Returns a sequence for each example of the pool: the prompt for an answer, and an answer."""
    if guessed is None:
        return reading.labelled(pool, pool.digest)
    written = {row["id"]: row["ids"] for row in guessed.rows(FILE)}
    asked = reading.prompts(pool, pool.digest, "answer")
    return [prompts.Sequence(ids, [], written[e.id]) for e, ids in zip(pool, asked)]
