r"""Answers the questions of a file with a trained model.

python -m launch.predict --model=models/student --data.path=new.jsonl \
    --out=answers.jsonl

The model is an exported folder, the workdir of a run, or any checkpoint; for a checkpoint, flags
give the task (`--data.kind`, `--data.choices`, `--data.instruction`). Questions and answers are
JSON Lines or CSV, depending on the file names. Every setting of how a model is asked is a flag
(`--generation.batch_size=128`; `bridge_jax.serving.models`). The same command resumes a killed run.

Exits with 0, or with 1 if a row has an error; all other rows are answered.
"""

from pathlib import Path

from absl import flags, logging

from bridge_jax import display
from launch.overrides import run_main

_MODEL = flags.DEFINE_string(
    "model", None, "An exported folder, a workdir, or a checkpoint.", required=True
)
_ROLE = flags.DEFINE_enum(
    "role", None, ["student", "assistant"], "Of a workdir: which model; default: the student."
)
_OUT = flags.DEFINE_string("out", None, "The file to write, .jsonl or .csv.", required=True)
_GOLD = flags.DEFINE_bool("gold", False, "Compare with the gold answers of the file.")
_LEAST = flags.DEFINE_float(
    "least_confidence",
    None,
    "Mark answers of at least this confidence as trusted; by default that of the run; 0 is none.",
    lower_bound=0,
    upper_bound=1,
)
_BUDGET = flags.DEFINE_integer(
    "budget",
    None,
    "Think for at most this many tokens; the prompt states it, and thinking is cut off there.",
    lower_bound=1,
)


def main(assignments: list[str]) -> int:
    """Finds the model, answers the questions, and prints the outcome of the rows."""
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax.config.io import override
    from bridge_jax.evaluation.intervals import wilson
    from bridge_jax.pipeline.artifacts import Role
    from bridge_jax.report import formatting
    from bridge_jax.serving import models
    from bridge_jax.serving.predict import predict

    logging.set_verbosity(logging.WARNING)
    console, out = Console(highlight=False), Path(_OUT.value)
    role: Role | None = _ROLE.value  # type: ignore[assignment]
    found = models.find(_MODEL.value, role)
    if _LEAST.value is not None:
        assignments = [*assignments, f"least_confidence={_LEAST.value}"]
    asking = override(found.asking, assignments)
    least = asking.least_confidence
    counts, notes = predict(found, asking, out, _GOLD.value, _BUDGET.value or 0)
    for note in notes:
        display.say(console, (note, "yellow"))
    display.say(console, f"{out}: {counts.rows:,} rows")
    if counts.unparsed:
        display.say(console, f"{counts.unparsed:,} have no readable answer")
    if least:
        display.say(
            console, f"{counts.trusted:,} are trusted, with a confidence of {least:g} or more"
        )
    if counts.errors:
        text = f"{counts.errors:,} have an error, the first in {counts.first_error}"
        display.say(console, (text, "yellow"))
    measured = {"questions": (counts.correct, counts.compared)}
    if least:
        measured["trusted ones"] = counts.trusted_correct, counts.trusted_compared
    for name, (right, compared) in measured.items():
        if compared:
            share = formatting.percent(right / compared)
            interval = formatting.interval(list(wilson(right, compared)))
            display.say(console, f"accuracy {share} ({interval}, 95%) on {compared:,} {name}")
    return 1 if counts.errors else 0


if __name__ == "__main__":
    run_main(main, on_interrupt="run the same command again to resume", takes_config=False)
