r"""Writes a copy of a model without the tokens that the data of a config does not need.

python -m launch.trim --config=my_task.py --out=models/student
python -m launch.run --config=my_task.py --workdir=runs/mine \
    --student.checkpoint=models/student

The copy keeps the tokens of questions, answers and instructions, and the tokenizer's most frequent
ones (`--common`). It reads these texts as before, token for token. Other words may be read in
shorter tokens, so other prompts may be longer. transformers loads the copy like any other model.
The test split and the teacher's rationales are not read.

If two models must share their vocabulary (`logits.weight`, method `on_policy`), trim both with the
same flags.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags, logging

from launch import settings
from launch.overrides import run_main

if TYPE_CHECKING:
    from bridge_jax.pipeline.artifacts import Role

_OUT = flags.DEFINE_string("out", None, "The folder to create.", required=True)
_ROLE = flags.DEFINE_enum("role", "student", ["student", "assistant"], "Which model to trim.")
_COMMON = flags.DEFINE_integer(
    "common", 8192, "Keep at least this many of the tokenizer's most frequent tokens."
)


def main(assignments: list[str]) -> None:
    """Writes weights, config and tokenizer, and prints their sizes."""
    from bridge_jax.config import io as config_io

    config = config_io.override(config_io.load(settings.file()), settings.changes(assignments))
    # These imports take seconds, so a mistyped flag is reported before them.
    from rich.console import Console

    from bridge_jax import display
    from bridge_jax.config import MeshConfig
    from bridge_jax.methods.checks import validate
    from bridge_jax.methods.inputs import Inputs
    from bridge_jax.methods.trimming import trim
    from bridge_jax.pipeline.content import Hashes

    # No mesh is needed, so a config for many chips can be trimmed for here.
    config = dataclasses.replace(config, mesh=MeshConfig())
    validate(config)
    logging.set_verbosity(logging.WARNING)
    role: Role = _ROLE.value  # type: ignore[assignment]
    out = Path(_OUT.value)
    inputs = Inputs(config, Path(), None, Hashes())
    found = trim(config, inputs, role, _COMMON.value, out)
    display.say(
        Console(highlight=False),
        f"{out}: {found.tokens:,} of {found.tokens_before:,} tokens, "
        f"{found.params / 1e6:,.1f} of {found.params_before / 1e6:,.1f} million parameters. "
        f"Use it with --{role}.checkpoint={out}",
    )


if __name__ == "__main__":
    run_main(main)
