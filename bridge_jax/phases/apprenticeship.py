"""Phase 1, apprenticeship (BRIDGE, 2512.20403): the assistant learns from a few paid answers.

Warm-up on labels, scores by free local inference, selection under the budget, the teacher's
rationales through the ledger, assistant training.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np

from bridge_jax.config import RunConfig
from bridge_jax.errors import UserError
from bridge_jax.parallel import hosts, preemption
from bridge_jax.phases import guesses, mending
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import read_json, write_json, write_rows
from bridge_jax.phases.stages import Stage
from bridge_jax.phases.teacher import ask
from bridge_jax.progress import track
from bridge_jax.selection.scores import gradients, score
from bridge_jax.selection.strategies import select
from bridge_jax.tasks.example import Example

WARMUP = "apprenticeship/warmup"
SCORES = "apprenticeship/scores"
GRADIENTS = "apprenticeship/gradients"
SELECTION = "apprenticeship/selection"
ANNOTATIONS = "apprenticeship/annotations"
ASSISTANT = "apprenticeship/assistant"

_PROMPTS = ("data", "task", "seed", "max_prompt_tokens", "on_long_prompt")


def warmup(run: Run, out: Path) -> None:
    """Trains the assistant on the gold labels of a small random part of the pool."""
    sequences = [run.sequence("assistant", example, None) for example in run.warmup_examples()]
    model = run.trainable("assistant", None)
    run.train(out, "warm-up", model, sequences, run.config.warmup.train)


def scores(run: Run, out: Path) -> None:
    """Scores every example of the pool with the warmed assistant."""
    pool, result = run.splits.pool, _of_pool(run, "scores", score)
    if hosts.is_first():
        np.save(out / "embeddings.npy", result.embeddings)
    write_rows(
        out / "scores.jsonl",
        (
            {
                "id": e.id,
                "domain": e.domain,
                "nll": float(n),
                "entropy": float(h),
                "margin": float(m),
            }
            for e, n, h, m in zip(pool, result.nll, result.entropy, result.margin)
        ),
    )


def gradient_embeddings(run: Run, out: Path) -> None:
    """Writes the gradient embedding of every example, which `badge` alone looks at."""
    found = _of_pool(run, "gradients", gradients)
    if hosts.is_first():
        np.save(out / "gradients.npy", found)


def _of_pool(run: Run, name: str, function: Any) -> Any:
    """Returns what `function` says of the pool with the warmed assistant."""
    pool = run.splits.pool
    model = run.model("assistant", WARMUP)
    sequences = guesses.to_score(run)
    with track(name, len(pool), "examples") as advance:
        return function(
            model.config,
            model.params,
            sequences,
            run.config.selection.batch_tokens,
            model.tokenizer.pad_id,
            run.mesh,
            advance,
        )


def selection(run: Run, out: Path) -> None:
    """Chooses the examples that the budget is spent on."""
    config, pool = run.config, run.splits.pool
    found = None
    if config.selection.strategy != "random":
        difficulty = _difficulty(run, config.selection.difficulty)
        embeddings = np.load(run.workdir / SCORES / "embeddings.npy")
        if config.selection.strategy == "badge":
            found = np.load(run.workdir / GRADIENTS / "gradients.npy")
    else:  # Random selection needs no scores; those of an earlier run may be of another pool.
        difficulty, embeddings = np.zeros(len(pool)), np.zeros((len(pool), 1))
    # An answer that is no label, or not known, has no group of its own: all such are one.
    known = config.data.labelled
    labels = [example.answer if known and example.kind == "label" else "" for example in pool]
    result = select(
        difficulty,
        embeddings,
        config.selected,
        config.selection,
        config.seed,
        labels,
        found,
        run.mesh,
    )
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


def _difficulty(run: Run, measure: str) -> np.ndarray:
    rows = run.rows(f"{SCORES}/scores.jsonl")
    if any(measure not in row for row in rows):
        raise UserError(
            f"{run.workdir / SCORES}: scores of an earlier version, without {measure}; delete the "
            "folder and run the same command"
        )
    return np.array([row[measure] for row in rows])


def annotations(run: Run, out: Path) -> None:
    """Asks the teacher about the selected examples, every request through the ledger."""
    if not hosts.is_first():  # One asks; the others read its rows in the next stage.
        return
    examples = selected(run)
    with preemption.alone():
        outcomes, spend = ask(run, examples)
    mending.write(run, out, examples, outcomes, spend)


def annotations_are_whole(run: Run, out: Path) -> bool:
    """Checks annotations that were written before against the ledger (`mending.mend`)."""
    return mending.mend(run, out, selected(run))


def selected(run: Run) -> list[Example]:
    """Returns the selected examples, in the order of the selection.

    Raises:
      UserError: the selection is damaged.
    """
    path = run.workdir / SELECTION / "selection.json"
    ids, pool = (read_json(path) or {}).get("ids"), run.pool_by_id
    if not isinstance(ids, list) or not all(isinstance(key, str) and key in pool for key in ids):
        raise UserError(
            f"{path}: damaged; delete the folder {path.parent} and run the same command, which "
            "makes it again"
        )
    return [pool[key] for key in ids]


def assistant(run: Run, out: Path) -> None:
    """Trains the warmed assistant on the teacher's rationales.

    Where it is to explain gold answers, it learns each rationale twice: from the question alone,
    and from the question with its gold answer.
    """
    sequences = [
        run.sequence("assistant", *paid, mode=mode)
        for paid in bought(run)
        for mode in run.config.assistant_modes
    ]
    model = run.trainable("assistant", WARMUP)
    run.train(out, "assistant", model, sequences, run.config.assistant_training)


def bought(run: Run) -> list[tuple[Example, str, str]]:
    """Returns example, rationale and answer of what the teacher was paid for and is learned from.

    The answer is the gold one, also after a rationale that `teacher.keep_wrong` let pass; where the
    pool has no labels, it is the teacher's.
    """
    found, labelled = [], run.config.data.labelled
    for row in run.rows(f"{ANNOTATIONS}/{mending.ROWS}"):
        example = run.pool_by_id[row["id"]]
        answer = example.answer if labelled else row["answer"]
        if row["kept"] and answer is not None:
            found.append((example, row["rationale"], answer))
    return found


_TO_WARMUP = ("assistant", "warmup", *_PROMPTS)
WARMUP_STAGE = Stage(WARMUP, warmup, _TO_WARMUP)
SCORES_STAGE = Stage(SCORES, scores, (), (WARMUP,))
GRADIENTS_STAGE = Stage(GRADIENTS, gradient_embeddings, (), (WARMUP,))
GUESSES_STAGE = Stage(
    guesses.GUESSES, functools.partial(guesses.write, WARMUP), ("generation.batch_size",), (WARMUP,)
)
BLIND_SELECTION_STAGE = Stage(SELECTION, selection, ("selection", "selected", "data", "seed"))
ANNOTATIONS_STAGE = Stage(
    ANNOTATIONS,
    annotations,
    ("teacher", "task", "student.checkpoint"),
    (SELECTION,),
    annotations_are_whole,
)
ASSISTANT_STAGE = Stage(
    ASSISTANT,
    assistant,
    ("assistant_training", "data.labelled", "shows_gold"),
    (WARMUP, ANNOTATIONS),
)


def selection_stages(config: RunConfig) -> list[Stage]:
    """Returns what the strategy looks at, and the selection.

    That is the scores, where the pool has no labels those of the assistant's own answers.
    """
    first = [] if config.data.labelled else [GUESSES_STAGE]
    looked_at = [SCORES_STAGE] + [GRADIENTS_STAGE] * (config.selection.strategy == "badge")
    answers = tuple(stage.name for stage in first)
    looked_at = [dataclasses.replace(s, after=(*s.after, *answers)) for s in looked_at]
    reads = ("selection", "selected", "data.labelled")
    names = tuple(stage.name for stage in looked_at)
    return [*first, *looked_at, Stage(SELECTION, selection, reads, names)]
