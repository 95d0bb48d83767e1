"""Phase 1, apprenticeship (BRIDGE, 2512.20403): the assistant learns from a few paid answers.

Warm-up on labels, scores by free local inference, selection under the budget, the teacher's
rationales through the ledger, assistant training.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from bridge_jax.parallel import hosts
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import write_json, write_rows
from bridge_jax.phases.stages import Stage
from bridge_jax.progress import track
from bridge_jax.selection.scores import score
from bridge_jax.selection.strategies import select
from bridge_jax.tasks.answers import is_correct, parse_answer, split_completion
from bridge_jax.tasks.example import Example
from bridge_jax.teachers import recorded, replay
from bridge_jax.teachers.accounts import open_ledger
from bridge_jax.teachers.annotate import annotate
from bridge_jax.teachers.prices import Prices
from bridge_jax.teachers.protocol import Failure, Message, Reply, Request, Role, Teacher
from bridge_jax.text import prompts

WARMUP = "apprenticeship/warmup"
SCORES = "apprenticeship/scores"
SELECTION = "apprenticeship/selection"
ANNOTATIONS = "apprenticeship/annotations"
ASSISTANT = "apprenticeship/assistant"

_PROMPTS = ("data", "seed", "max_prompt_tokens", "on_long_prompt")


def warmup(run: Run, out: Path) -> None:
    """Trains the assistant on the gold labels of a small random part of the pool."""
    pool, config = run.splits.pool, run.config
    count = max(1, round(config.warmup.fraction * len(pool)))
    drawn = np.random.default_rng(config.seed).permutation(len(pool))[:count]
    sequences = [run.sequence("assistant", pool[i], None) for i in drawn]
    run.train(out, "warm-up", run.trainable("assistant", None), sequences, config.warmup.train)


def scores(run: Run, out: Path) -> None:
    """Scores every example of the pool with the warmed assistant."""
    pool = run.splits.pool
    model = run.model("assistant", WARMUP)
    sequences = [run.sequence("assistant", example, None) for example in pool]
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
    # An answer that is no label has no group of its own: numbers are compared as one.
    labels = [example.answer if example.kind == "label" else "" for example in pool]
    result = select(
        difficulty, embeddings, config.budget.queries, config.selection, config.seed, labels
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


def annotations(run: Run, out: Path) -> None:
    """Asks the teacher about the selected examples, every request through the ledger."""
    if not hosts.is_first():  # One asks; the others read its rows in the next stage.
        return
    config, teacher_config = run.config, run.config.teacher
    chosen = json.loads((run.workdir / SELECTION / "selection.json").read_text())["ids"]
    examples = [run.pool_by_id[key] for key in chosen]
    teacher = make_teacher(run, examples)
    prices = Prices(teacher_config.usd_per_million_input, teacher_config.usd_per_million_output)
    requests = [make_request(run, example) for example in examples]
    with (
        # Recorded teachers run here and bill nobody.
        open_ledger(run.workdir, config.budget, prices, local=True) as ledger,
        track("teacher", len(requests), "answers") as advance,
    ):
        shown = 0

        def show(done: int, _: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        outcomes = annotate(teacher, ledger, requests, teacher_config.concurrency, show)
        spend = ledger.bill()
    rows = [_annotation(e, o, teacher_config.keep_wrong) for e, o in zip(examples, outcomes)]
    write_rows(out / "annotations.jsonl", rows)
    write_json(out / "spend.json", spend)


def assistant(run: Run, out: Path) -> None:
    """Trains the warmed assistant on the teacher's rationales."""
    sequences = [
        run.sequence("assistant", run.pool_by_id[row["id"]], row["rationale"])
        for row in run.rows(f"{ANNOTATIONS}/annotations.jsonl")
        if row["kept"]
    ]
    model = run.trainable("assistant", WARMUP)
    run.train(out, "assistant", model, sequences, run.config.assistant_training)


def make_teacher(run: Run, examples: Sequence[Example]) -> Teacher:
    """Returns the teacher of the config, who knows `examples`."""
    config = run.config.teacher

    def count_tokens(text: str) -> int:
        return len(run.tokenizer("student").encode(text))

    if config.replay_from:
        return replay.open_replay(Path(config.replay_from), count_tokens)
    make = {"oracle": recorded.oracle, "replay": recorded.replay}[config.kind]
    return make(examples, run.config.data.rationale, count_tokens)


def make_request(run: Run, example: Example) -> Request:
    """Returns what the teacher is sent about an example."""
    chat = prompts.messages(example, "reason")
    # A recorded teacher has several variants, and each is another model to the ledger.
    model = f"{run.config.teacher.model}/{run.config.data.rationale}"
    if source := run.config.teacher.replay_from:
        model = replay.recorded_model(Path(source), model)
    return Request(
        example.id,
        model,
        tuple(Message(cast(Role, m["role"]), m["content"]) for m in chat),
        run.config.teacher.max_output_tokens,
    )


def _annotation(example: Example, outcome: Reply | Failure, keep_wrong: bool) -> dict[str, Any]:
    said = outcome.text if isinstance(outcome, Reply) and outcome.finish == "stop" else ""
    rationale, written = split_completion(said)
    answer = parse_answer(written, example)
    kept = bool(rationale.strip()) and (keep_wrong or is_correct(answer, example))
    return {
        "id": example.id,
        "question": example.question,
        "rationale": rationale,
        "answer": answer,
        "gold": example.answer,
        "kept": kept,
    }


_TO_WARMUP = ("assistant", "warmup", *_PROMPTS)
WARMUP_STAGE = Stage(WARMUP, warmup, _TO_WARMUP)
SCORES_STAGE = Stage(SCORES, scores, (), (WARMUP,))
SELECTION_STAGE = Stage(SELECTION, selection, ("selection", "budget.queries"), (SCORES,))
BLIND_SELECTION_STAGE = Stage(SELECTION, selection, ("selection", "budget.queries", "data", "seed"))
ANNOTATIONS_STAGE = Stage(ANNOTATIONS, annotations, ("teacher", "student.checkpoint"), (SELECTION,))
ASSISTANT_STAGE = Stage(ASSISTANT, assistant, ("assistant_training",), (WARMUP, ANNOTATIONS))
