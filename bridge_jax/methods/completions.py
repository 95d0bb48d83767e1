"""Completions of many examples into a JSONL file that survives a kill between any two batches."""

from collections.abc import Callable, Sequence
from typing import Any

from bridge_jax.data.example import Example
from bridge_jax.generation.engine import Completion, Engine
from bridge_jax.parallel import hosts, preemption
from bridge_jax.pipeline.storage import Folder
from bridge_jax.progress import track


def write_completions(
    out: Folder,
    file: str,
    name: str,
    engine: Engine,
    examples: Sequence[Example],
    prompts: Sequence[list[int]],
    to_row: Callable[[Example, Completion], dict[str, Any]],
) -> None:
    """Writes a row for each example, batch by batch.

    A batch is written whole and then synced; after an interruption the whole batches are kept
    and the rest is made in the same batches as before, so the numbers are the same.
    """
    rows = out.appended(file)
    skip = kept = 0
    for members in engine.plan(prompts):
        if kept + len(members) > len(rows):
            break
        skip, kept = skip + 1, kept + len(members)
    skip, kept = hosts.agree([skip, kept])
    out.write_rows(file, rows[:kept])
    with track(name, len(prompts) - kept, "examples") as advance:
        for batch in engine.complete(prompts, skip_batches=skip):
            out.append_rows(file, [to_row(examples[index], done) for index, done in batch])
            advance(len(batch))
            preemption.stop_together()
