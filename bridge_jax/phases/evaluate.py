"""The test set put to every model along the way."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from bridge_jax.generation.engine import Completion
from bridge_jax.phases.completions import write_completions
from bridge_jax.phases.context import Role, Run
from bridge_jax.phases.stages import Stage
from bridge_jax.tasks.answers import answer_of, is_correct
from bridge_jax.tasks.example import Example
from bridge_jax.tasks.rouge import rouge_l


class Candidate(NamedTuple):
    """A model to measure: its name in the report, its role, and the stage that made it."""

    name: str
    role: Role
    stage: str | None


def evaluate(candidate: Candidate, run: Run, out: Path) -> None:
    """Writes the candidate's completions of the test questions, parsed and compared with gold."""
    examples = run.splits.test
    if candidate.role == "assistant" and run.config.evaluation.assistant_examples:
        examples = examples[: run.config.evaluation.assistant_examples]
    mode = run.config.student_mode if candidate.role == "student" else "reason"
    prompts = [run.prompt(candidate.role, example, mode) for example in examples]
    model = run.model(candidate.role, candidate.stage)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        answer = answer_of(text, example)
        row = {
            "id": example.id,
            "domain": example.domain,
            "question": example.question,
            "completion": text,
            "answer": answer,
            "gold": example.answer,
            "correct": is_correct(answer, example),
            "tokens": len(completion.ids),
        }
        if example.kind == "text":
            row["score"] = rouge_l(answer or "", example.answer)
        return row

    name = f"test: {candidate.name.replace('_', ' ')}"
    path = out / "predictions.jsonl"
    write_completions(path, name, run.engine(model), examples, prompts, to_row)


def stage(candidate: Candidate) -> Stage:
    """Returns the stage that measures `candidate`."""
    reads = ("data", "task", "seed", "max_prompt_tokens", "on_long_prompt", "generation")
    reads += (candidate.role,)
    of_role = {"assistant": "evaluation.assistant_examples", "student": "student_mode"}
    reads += (of_role[candidate.role],)
    after = (candidate.stage,) if candidate.stage else ()
    return Stage(
        f"evaluation/{candidate.name}", functools.partial(evaluate, candidate), reads, after
    )
