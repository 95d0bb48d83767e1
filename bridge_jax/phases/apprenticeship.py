"""Phase 1, apprenticeship (BRIDGE, 2512.20403): the assistant learns from a few paid answers.

Warm-up on labels, scores by free local inference, selection under the budget, the teacher's
rationales through the ledger, assistant training.
"""

import dataclasses
import functools
import json
from pathlib import Path

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.parallel import hosts, preemption
from bridge_jax.phases import guesses
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import write_json, write_rows
from bridge_jax.phases.stages import Stage
from bridge_jax.phases.teacher import ask, rules_of
from bridge_jax.progress import track
from bridge_jax.selection.scores import score
from bridge_jax.selection.strategies import select
from bridge_jax.tasks.example import Example
from bridge_jax.teachers.verification import annotation

WARMUP = "apprenticeship/warmup"
SCORES = "apprenticeship/scores"
SELECTION = "apprenticeship/selection"
ANNOTATIONS = "apprenticeship/annotations"
ASSISTANT = "apprenticeship/assistant"

_PROMPTS = ("data", "seed", "max_prompt_tokens", "on_long_prompt")


def warmup(run: Run, out: Path) -> None:
    """Trains the assistant on the gold labels of a small random part of the pool."""
    sequences = [run.sequence("assistant", example, None) for example in run.warmup_examples()]
    model = run.trainable("assistant", None)
    run.train(out, "warm-up", model, sequences, run.config.warmup.train)


def scores(run: Run, out: Path) -> None:
    """Scores every example of the pool with the warmed assistant."""
    pool = run.splits.pool
    model = run.model("assistant", WARMUP)
    sequences = guesses.to_score(run)
    with track("scores", len(pool), "examples") as advance:
        result = score(
            model.config,
            model.params,
            sequences,
            run.config.selection.batch_tokens,
            model.tokenizer.pad_id,
            run.mesh,
            advance,
        )
    if hosts.is_first():
        np.save(out / "embeddings.npy", result.embeddings)
    write_rows(
        out / "scores.jsonl",
        (
            {"id": e.id, "domain": e.domain, "nll": float(n), "entropy": float(h)}
            for e, n, h in zip(pool, result.nll, result.entropy)
        ),
    )


def selection(run: Run, out: Path) -> None:
    """Chooses the examples that the budget is spent on."""
    config, pool = run.config, run.splits.pool
    if config.selection.strategy != "random":
        rows = run.rows(f"{SCORES}/scores.jsonl")
        difficulty = np.array([row[config.selection.difficulty] for row in rows])
        embeddings = np.load(run.workdir / SCORES / "embeddings.npy")
    else:  # Random selection needs no scores; those of an earlier run may be of another pool.
        difficulty, embeddings = np.zeros(len(pool)), np.zeros((len(pool), 1))
    # An answer that is no label, or not known, has no group of its own: all such are one.
    known = config.data.labelled
    labels = [example.answer if known and example.kind == "label" else "" for example in pool]
    result = select(difficulty, embeddings, config.selected, config.selection, config.seed, labels)
    ids = [example.id for example in pool]
    clusters = result.clusters
    write_json(
        out / "selection.json",
        {
            "strategy": config.selection.strategy,
            "size": len(result.chosen),
            "ids": [ids[i] for i in result.chosen],
            "clusters": None if clusters is None else {k: int(c) for k, c in zip(ids, clusters)},
            "set_aside": [ids[i] for i in result.set_aside],
        },
    )


def annotations(run: Run, out: Path) -> None:
    """Asks the teacher about the selected examples, every request through the ledger."""
    if not hosts.is_first():  # One asks; the others read its rows in the next stage.
        return
    chosen = json.loads((run.workdir / SELECTION / "selection.json").read_text())["ids"]
    examples = [run.pool_by_id[key] for key in chosen]
    with preemption.alone():
        outcomes, spend = ask(run, examples)
    rules = rules_of(run)
    write_rows(
        out / "annotations.jsonl",
        (annotation(example, said, rules) for example, said in zip(examples, outcomes)),
    )
    write_json(out / "spend.json", spend)


def assistant(run: Run, out: Path) -> None:
    """Trains the warmed assistant on the teacher's rationales."""
    sequences = [run.sequence("assistant", *paid) for paid in bought(run)]
    model = run.trainable("assistant", WARMUP)
    run.train(out, "assistant", model, sequences, run.config.assistant_training)


def bought(run: Run) -> list[tuple[Example, str, str]]:
    """Returns example, rationale and answer of what the teacher was paid for and is learned from.

    The answer is the gold one, also after a rationale that `teacher.keep_wrong` let pass; where the
    pool has no labels, it is the teacher's.
    """
    found, labelled = [], run.config.data.labelled
    for row in run.rows(f"{ANNOTATIONS}/annotations.jsonl"):
        example = run.pool_by_id[row["id"]]
        answer = example.answer if labelled else row["answer"]
        if row["kept"] and answer is not None:
            found.append((example, row["rationale"], answer))
    return found


_TO_WARMUP = ("assistant", "warmup", *_PROMPTS)
WARMUP_STAGE = Stage(WARMUP, warmup, _TO_WARMUP)
SCORES_STAGE = Stage(SCORES, scores, (), (WARMUP,))
GUESSES_STAGE = Stage(
    guesses.GUESSES, functools.partial(guesses.write, WARMUP), ("generation.batch_size",), (WARMUP,)
)
BLIND_SELECTION_STAGE = Stage(SELECTION, selection, ("selection", "selected", "data", "seed"))
ANNOTATIONS_STAGE = Stage(ANNOTATIONS, annotations, ("teacher", "student.checkpoint"), (SELECTION,))
ASSISTANT_STAGE = Stage(
    ASSISTANT, assistant, ("assistant_training", "data.labelled"), (WARMUP, ANNOTATIONS)
)


def selection_stages(config: RunConfig) -> list[Stage]:
    """Returns the scores, what they are of where the pool has no labels, and the selection."""
    first = [] if config.data.labelled else [GUESSES_STAGE]
    names = tuple(stage.name for stage in first)
    scored = dataclasses.replace(SCORES_STAGE, after=(*SCORES_STAGE.after, *names))
    reads = ("selection", "selected", "data.labelled")
    return [*first, scored, Stage(SELECTION, selection, reads, (SCORES,))]
