"""The student's warm-up on generic instructions, from which all its trainings begin."""

from pathlib import Path

from bridge_jax.config import RunConfig
from bridge_jax.phases.context import Run
from bridge_jax.phases.stages import Stage

INSTRUCT = "tutoring/instruct"
# What a stage reads that puts text before the student.
TO_STUDENT = ("student", "seed", "max_prompt_tokens", "on_long_prompt")


def instruct(run: Run, out: Path) -> None:
    """Trains the student on generic instructions, so that it does not stay blind to them."""
    config = run.config.instruct
    sequences = run.instructions(config.examples).sequences
    run.train(out, "instructions", run.trainable("student", None), sequences, config.train)


def instruct_stage(config: RunConfig) -> str | None:
    """Returns where the student's training begins: after its warm-up, if it has one."""
    return INSTRUCT if config.instruct.examples else None


INSTRUCT_STAGE = Stage(INSTRUCT, instruct, ("instruct", *TO_STUDENT))
