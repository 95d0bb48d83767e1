"""The assistant's rationales for the pool: written once, then judged.

Writing takes long and judging does not, so runs that differ in the filter alone share what was
written.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bridge_jax.config import RationalesConfig, RunConfig
from bridge_jax.generation.confidence import step_logprobs
from bridge_jax.generation.engine import Completion
from bridge_jax.phases import apprenticeship
from bridge_jax.phases.completions import write_completions
from bridge_jax.phases.context import Run
from bridge_jax.phases.files import write_rows
from bridge_jax.phases.instruct import TO_STUDENT, instruct_stage
from bridge_jax.phases.noise import corrupt
from bridge_jax.phases.stages import Stage
from bridge_jax.tasks.answers import answer_of, is_correct, parse_answer, split_completion
from bridge_jax.tasks.example import Example

COMPLETIONS = "tutoring/completions"
SAMPLES = "tutoring/samples"
RATIONALES = "tutoring/rationales"


def write(by: str, run: Run, out: Path) -> None:
    """Writes a rationale for every example of the pool with the assistant of stage `by`."""
    pool, mode = run.splits.pool, run.config.writing_mode
    prompts = [run.prompt("assistant", example, mode) for example in pool]
    model = run.model("assistant", by)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        rationale, written = split_completion(text)
        logprobs = completion.logprobs
        return {
            "id": example.id,
            "domain": example.domain,
            "question": example.question,
            "completion": text,
            "rationale": rationale,
            "answer": parse_answer(written, example),
            "ended": completion.ended,
            "mean_logprob": sum(logprobs) / max(1, len(logprobs)),
            "min_step_logprob": min(step_logprobs(completion, model.tokenizer), default=0.0),
            "tokens": len(completion.ids),
            "shown_gold": mode == "explain",
        }

    path = out / "completions.jsonl"
    write_completions(path, "rationales", run.engine(model), pool, prompts, to_row)


def sample(run: Run, out: Path) -> None:
    """Lets the student answer every question of the pool several times, before it is taught.

    Of "Teaching-Assistant-in-the-Loop" (2406.05322, ACL Findings 2024.17) come the two signals, the
    student's self-consistency over several outputs and the assistant's confidence, and a student
    that is warmed up before it is asked. Ours is what they decide: there the teacher's annotations
    are weighed, here the assistant's rationales are kept or not; agreement is with the answer of
    the rationale; and the thresholds.
    """
    config, pool = run.config.rationales, run.splits.pool
    examples = [example for example in pool for _ in range(config.samples)]
    prompts = [run.prompt("student", example, "reason") for example in examples]
    model = run.model("student", instruct_stage(run.config))

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        return {"id": example.id, "answer": answer_of(text, example)}

    engine = run.engine(model, temperature=config.temperature)
    path = out / "samples.jsonl"
    write_completions(path, "the student's samples", engine, examples, prompts, to_row)


def judge(run: Run, out: Path) -> None:
    """Says of each rationale whether the student learns from it, and why not."""
    config, rows = run.config.rationales, []
    written = run.rows(f"{COMPLETIONS}/completions.jsonl")
    said: dict[str, list[str | None]] = {row["id"]: [] for row in written}
    if config.filter == "consistency":
        for row in run.rows(f"{SAMPLES}/samples.jsonl"):
            said[row["id"]].append(row["answer"])
    for row in corrupt(written, run.pool_by_id, config, run.config.seed):
        example = run.pool_by_id[row["id"]]
        if samples := said[example.id]:
            same = samples.count(row["answer"]) if row["answer"] is not None else 0
            row["agreement"] = same / len(samples)
        reason = why_rejected(row, example, config)
        # For the report alone: whether it is right is counted, by whatever it was judged.
        truth = {"gold": example.answer, "correct": is_correct(row["answer"], example)}
        rows.append(row | truth | {"kept": reason is None, "reason": reason})
    write_rows(out / "rationales.jsonl", rows)


def why_rejected(row: Mapping[str, Any], example: Example, config: RationalesConfig) -> str | None:
    """Returns why a rationale is not learned from, or None; `gold` alone reads the gold answer.

    No filter keeps what cannot be learned from: a completion that was cut off, or that has no
    rationale or no answer.
    """
    if not row["rationale"].strip():
        return "no rationale"
    if not row["ended"]:
        return "cut off at generation.max_new_tokens"
    if row["answer"] is None:
        return "no answer that parses"
    if config.filter == "gold" and not is_correct(row["answer"], example):
        return "the answer is not the gold one"
    bounds = {}
    if config.filter in ("confidence", "consistency"):
        bounds["mean_logprob"] = config.min_mean_logprob
        bounds["min_step_logprob"] = config.min_step_logprob
    if config.filter == "consistency":
        bounds["agreement"] = config.min_agreement
    return next((f"{name} below {at}" for name, at in bounds.items() if row[name] < at), None)


def author(config: RunConfig) -> str:
    """Returns the stage that made the assistant which writes.

    Without a teacher it is the warm-up: what it gets right is one round of self-training as in STaR
    (2203.14465) and ReST (2308.08998), with the student as the one that learns.
    """
    return apprenticeship.WARMUP if config.method == "self" else apprenticeship.ASSISTANT


def stages(config: RunConfig) -> list[Stage]:
    """Returns the stages of a method that has rationales by the assistant."""
    by, reads = author(config), ("generation", "assistant.checkpoint")
    plan = [Stage(COMPLETIONS, functools.partial(write, by), reads, (by,))]
    if config.rationales.filter == "consistency":
        first = tuple(filter(None, [instruct_stage(config)]))
        sampling = ("rationales.samples", "rationales.temperature", "generation")
        plan.append(Stage(SAMPLES, sample, (*sampling, "data", "task", *TO_STUDENT), first))
    after = tuple(stage.name for stage in plan)
    return [*plan, Stage(RATIONALES, judge, ("rationales",), after)]
