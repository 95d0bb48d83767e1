"""What the scores are of: the gold answers, or the assistant's own where the pool has none."""

from pathlib import Path
from typing import Any

from bridge_jax.generation.engine import Completion
from bridge_jax.phases.completions import write_completions
from bridge_jax.phases.context import Run
from bridge_jax.tasks.example import Example
from bridge_jax.text import prompts

GUESSES = "apprenticeship/guesses"
TOKENS = 16  # Of an answer, at most; what is longer is scored as far as it goes.


def write(warmup: str, run: Run, out: Path) -> None:
    """Writes the most probable answer of the assistant of stage `warmup` to every question."""
    pool = run.splits.pool
    asked = [run.prompt("assistant", example, "answer") for example in pool]
    model = run.model("assistant", warmup)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        end = [] if completion.end is None else [completion.end]
        return {"id": example.id, "ids": [*completion.ids, *end]}

    engine = run.engine(model, temperature=0.0, max_new_tokens=TOKENS)
    write_completions(out / "guesses.jsonl", "guesses", engine, pool, asked, to_row)


def to_score(run: Run) -> list[prompts.Sequence]:
    """Returns a sequence for each example of the pool: the prompt for an answer, and an answer."""
    pool = run.splits.pool
    if run.config.data.labelled:
        return [run.sequence("assistant", example, None) for example in pool]
    written = {row["id"]: row["ids"] for row in run.rows(f"{GUESSES}/guesses.jsonl")}
    return [
        prompts.Sequence(run.prompt("assistant", example, "answer"), [], written[example.id])
        for example in pool
    ]
