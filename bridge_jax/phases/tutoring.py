"""Phase 2, tutoring (BRIDGE, 2512.20403): the assistant teaches the student.

The student is instruction-tuned, the assistant writes a rationale for every example of the pool,
and the student learns from those whose answer is gold.
"""

from pathlib import Path
from typing import Any

from bridge_jax.config import RunConfig, TrainConfig
from bridge_jax.generation.engine import Completion
from bridge_jax.phases import apprenticeship
from bridge_jax.phases.completions import write_completions
from bridge_jax.phases.context import Run
from bridge_jax.phases.stages import Stage
from bridge_jax.tasks.answers import is_correct, parse_answer, split_completion
from bridge_jax.tasks.example import Example
from bridge_jax.tasks.practice.instructions import generate_instructions

INSTRUCT = "tutoring/instruct"
RATIONALES = "tutoring/rationales"
STUDENT = "tutoring/student"
DIRECT = "baselines/direct"


def instruct(run: Run, out: Path) -> None:
    """Trains the student on generic instructions, so that it does not stay blind to them."""
    config = run.config.instruct
    examples = generate_instructions(run.config.seed, config.examples)
    sequences = [run.sequence("student", e, e.rationales.get("medium")) for e in examples]
    run.train(out, "instructions", run.trainable("student", None), sequences, config.train)


def rationales(run: Run, out: Path) -> None:
    """Writes a rationale for every example of the pool with the trained assistant."""
    pool = run.splits.pool
    prompts = [run.prompt("assistant", example, "reason") for example in pool]
    model = run.model("assistant", apprenticeship.ASSISTANT)

    def to_row(example: Example, completion: Completion) -> dict[str, Any]:
        text = model.tokenizer.decode(completion.ids)
        rationale, written = split_completion(text)
        answer = parse_answer(written, example)
        logprobs = completion.logprobs
        return {
            "id": example.id,
            "domain": example.domain,
            "question": example.question,
            "completion": text,
            "rationale": rationale,
            "answer": answer,
            "gold": example.answer,
            "kept": bool(rationale.strip()) and completion.ended and is_correct(answer, example),
            "mean_logprob": sum(logprobs) / max(1, len(logprobs)),
            "tokens": len(completion.ids),
        }

    path = out / "rationales.jsonl"
    write_completions(path, "rationales", run.engine(model), pool, prompts, to_row)


def student(run: Run, out: Path) -> None:
    """Trains the student on the whole pool.

    The teacher's rationale where one was bought, else the assistant's where its answer is gold,
    else the gold answer alone.
    """
    kept = _kept(run, f"{RATIONALES}/rationales.jsonl") | _bought(run)
    sequences = [run.sequence("student", e, kept.get(e.id)) for e in run.splits.pool]
    _train_student(run, out, "student", sequences, run.config.student_training)


def direct(run: Run, out: Path) -> None:
    """Trains the student on the teacher's answers alone: direct distillation, the baseline."""
    bought = _bought(run)
    sequences = [run.sequence("student", run.pool_by_id[k], text) for k, text in bought.items()]
    _train_student(run, out, "direct student", sequences, run.config.direct_training)


def labels(run: Run, out: Path) -> None:
    """Trains the student on the gold answers of the whole pool: fine-tuning, the baseline."""
    sequences = [run.sequence("student", example, None) for example in run.splits.pool]
    _train_student(run, out, "student", sequences, run.config.student_training)


def _train_student(
    run: Run, out: Path, name: str, sequences: list[Any], config: TrainConfig
) -> None:
    run.train(out, name, run.trainable("student", instruct_stage(run.config)), sequences, config)


def _kept(run: Run, file: str) -> dict[str, str]:
    return {row["id"]: row["rationale"] for row in run.rows(file) if row["kept"]}


def _bought(run: Run) -> dict[str, str]:
    return _kept(run, f"{apprenticeship.ANNOTATIONS}/annotations.jsonl")


def instruct_stage(config: RunConfig) -> str | None:
    """Returns where the student's training begins: after its warm-up, if it has one."""
    return INSTRUCT if config.instruct.examples else None


_TO_STUDENT = ("student", "seed", "max_prompt_tokens", "on_long_prompt")
INSTRUCT_STAGE = Stage(INSTRUCT, instruct, ("instruct", *_TO_STUDENT))
RATIONALES_STAGE = Stage(
    RATIONALES, rationales, ("generation", "assistant.checkpoint"), (apprenticeship.ASSISTANT,)
)


def student_stage(config: RunConfig) -> Stage:
    """Returns the student's training for a method."""
    first = tuple(filter(None, [instruct_stage(config)]))
    if config.method == "labels":
        return Stage(STUDENT, labels, ("student_training", "data", *_TO_STUDENT), first)
    if config.method == "direct":
        return direct_stage(config, STUDENT)
    after = (*first, apprenticeship.ANNOTATIONS, RATIONALES)
    return Stage(STUDENT, student, ("student_training", *_TO_STUDENT), after)


def direct_stage(config: RunConfig, name: str = DIRECT) -> Stage:
    """Returns the training of the direct student, as the run's method or beside it."""
    first = tuple(filter(None, [instruct_stage(config)]))
    after = (*first, apprenticeship.ANNOTATIONS)
    return Stage(name, direct, ("direct_training", *_TO_STUDENT), after)
